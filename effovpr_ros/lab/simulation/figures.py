"""Pictures of the building from above, without a window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from effovpr_ros.core.errors import SimulationError


def new_figure(width_in: float, height_in: float) -> Any:
    """An empty matplotlib figure that is only saved.

    Args:
        width_in: inches.
        height_in: inches.

    Raises:
        SimulationError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SimulationError("the picture needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_lines(axes: Any, ends: ArrayLike, colour: str, width: float, zorder: float = 2.0) -> None:
    """Lines between points.

    Args:
        axes: of a figure.
        ends: (N, 2, 2) end points.
        colour: of all.
        width: in points.
        zorder: what is higher lies above.
    """
    from matplotlib.collections import LineCollection

    axes.add_collection(
        LineCollection(list(np.reshape(ends, (-1, 2, 2))), colors=colour, linewidths=width, zorder=zorder)
    )
