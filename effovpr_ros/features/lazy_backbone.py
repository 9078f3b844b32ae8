"""The network of a configuration, whose weights are read once something needs them.

An engine of its own has weights of its own: where it is in the cache, reading PyTorch's costs a start a second or two,
and memory that nothing uses.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from effovpr_ros.core.errors import EngineError, WeightsError
from effovpr_ros.engines.cache import cache_root, digest, read_record, write_record
from effovpr_ros.features.backbone import Backbone, Layout, create_backbone
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.tails import find_tail
from effovpr_ros.features.weights import base_file, load_weights

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Which network it is.

    Attributes:
        architecture: of timm.
        weights_sha256: fingerprint of the base's weights.
        layout: of the network.
    """

    architecture: str
    weights_sha256: str
    layout: Layout


class LazyBackbone:
    """A network on one device; for any number of threads.

    Attributes:
        tail: on top of it, if any.
        identity: of it.
    """

    def __init__(self, config: ExtractorConfig, device: torch.device, dtype: torch.dtype) -> None:
        """Find out which network it is: from what an earlier start kept of the same files, else by reading them.

        Args:
            config: that names it.
            device: where the network is placed.
            dtype: of its weights there.

        Raises:
            ConfigError: see `create_backbone`.
            WeightsError: see `load_weights`.
        """
        self._lock = threading.Lock()
        self._config = config
        self._placed = (device, dtype)
        self._backbone: Backbone | None = None
        base, self.tail = find_tail(config.model, config.weights, config.tail)
        self._record = _record_path(config, base, self.tail.sha256 if self.tail else "")
        known = _kept(self._record)
        if known is None:
            known, self._backbone = self._read()
            _keep(self._record, known)
        self.identity = known

    def __call__(self) -> Backbone:
        """The network, read now unless it was.

        Raises:
            WeightsError: its files are gone, or others than before.
        """
        with self._lock:
            if self._backbone is None:
                found, backbone = self._read()
                if found != self.identity:
                    raise WeightsError("the weights were replaced while they were in use; start again")
                self._backbone = backbone
            return self._backbone

    def release(self) -> None:
        """Keep no weights beyond those that others use."""
        with self._lock:
            self._backbone = None

    def _read(self) -> tuple[Identity, Backbone]:
        weights = load_weights(self._config.model, self._config.weights, self._config.tail)
        backbone = create_backbone(weights, image_size=self._config.image_size)
        identity = Identity(weights.timm_name.split(".")[0], weights.sha256, backbone.layout)
        return identity, backbone.to(*self._placed)


def _record_path(config: ExtractorConfig, base: str, tail_sha256: str) -> Path | None:
    """Where the identity of a network is kept; None where nobody can tell whether its files are the same."""
    try:
        path = base_file(config.model, base)
        if path is None:
            return None
        state = path.resolve().stat()
        # What changes a file changes the time of its status, which nobody can set.
        file = (str(path.resolve()), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        return cache_root() / "networks" / f"{digest(config.model, file, tail_sha256, config.image_size)}.json"
    except (OSError, EngineError):
        return None


def _kept(record: Path | None) -> Identity | None:
    values = None if record is None else read_record(record)
    if values is None:
        return None
    layout = Layout.from_record(values.get("layout"))
    architecture, sha256 = values.get("architecture"), values.get("weights_sha256")
    if layout is None or not isinstance(architecture, str) or not isinstance(sha256, str):
        return None
    return Identity(architecture, sha256, layout)


def _keep(record: Path | None, identity: Identity) -> None:
    if record is not None:
        try:
            write_record(record, asdict(identity))
        except EngineError as error:
            _logger.info("the next start reads the weights again: %s", error)
