"""Which patches of an image are kept as keypoints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def select_keypoints(attention: NDArray[np.float32], min_attention: float, max_keypoints: int) -> NDArray[np.int64]:
    """Patches whose attention to [CLS] exceeds T1, at most the most attended ones (EffoVPR, section 3.2).

    Args:
        attention: (P,) attention to [CLS].
        min_attention: T1.
        max_keypoints: cap; 0 for none.

    Returns:
        (N,) indices in ascending order. Equal attention at the cap keeps the lower index.
    """
    kept = np.flatnonzero(attention > min_attention)
    if max_keypoints and len(kept) > max_keypoints:
        order = np.argsort(-attention[kept], kind="stable")[:max_keypoints]
        kept = np.sort(kept[order])
    return kept.astype(np.int64)
