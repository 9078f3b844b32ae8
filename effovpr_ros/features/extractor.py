"""Images to features: one global descriptor and the local descriptors of the patches that attention selects."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.engines.agreement import DenseFeatures
from effovpr_ros.engines.catalogue import AUTO, TORCH
from effovpr_ros.engines.graph import RequestedOutputs
from effovpr_ros.engines.model import FeatureHead, Model
from effovpr_ros.engines.quantisation_images import QuantisationImages
from effovpr_ros.engines.runtime import Engines, RunningEngine
from effovpr_ros.engines.selection import Choice
from effovpr_ros.features.backbone import Backbone, BackboneOutput, Layout
from effovpr_ros.features.codes import encode_tensor
from effovpr_ros.features.devices import resolve_device, resolve_precision
from effovpr_ros.features.engine_takeover import EngineTakeover, describe_engine
from effovpr_ros.features.extractor_config import READING_FIELDS, ExtractorConfig, ModelFingerprint
from effovpr_ros.features.global_descriptor import GlobalDescriptor, TailDescriptor, choose_descriptor
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.features.keypoints import select_keypoints
from effovpr_ros.features.lazy_backbone import LazyBackbone
from effovpr_ros.features.local_projection import FacetSource, choose_projection, codes_name
from effovpr_ros.features.preprocessing import PREPROCESSING, preprocess, preprocess_on
from effovpr_ros.features.tails import tail_beside

_logger = logging.getLogger(__name__)

# So many images take as long as finding the fastest engine does.
_WORTH_A_SEARCH = 150


class FeatureExtractor:
    """The model, ready to run on one device; for one thread at a time.

    Attributes:
        engine: that runs the network.
        layout: of the network.
    """

    engine: RunningEngine
    layout: Layout

    def __init__(self, config: ExtractorConfig, quantisation_images: QuantisationImages | None = None) -> None:
        """Load the weights, place the model and open its engine.

        Args:
            config: what to make.
            quantisation_images: for an 8-bit engine; read only where it was not quantised with them before.

        Raises:
            ConfigError: an impossible setting, or a device that is not there.
            EngineError: the engine is not installed, or its descriptors are not PyTorch's.
            WeightsError: no usable weights.
        """
        self.device = resolve_device(config.device, config.engine)
        self.dtype = resolve_precision(config.precision, self.device, config.engine)
        self._network = LazyBackbone(config, self.device, self.dtype)
        identity, self._tail, self.layout = self._network.identity, self._network.tail, self._network.identity.layout
        self._architecture, self._weights_sha256 = identity.architecture, identity.weights_sha256
        tail_sha256 = self._tail.sha256 if self._tail else ""
        known_by = (self._architecture, self._weights_sha256, tail_sha256, config.image_size)
        self._engines = Engines(Model(self._network, self.device, self.dtype, *known_by), quantisation_images)
        self._read(config)

    @property
    def backbone(self) -> Backbone:
        """PyTorch's network; read now where an engine with weights of its own runs."""
        return self._network()

    def _read(self, config: ExtractorConfig) -> None:
        """Take from the network what a configuration says."""
        self.config = config
        self.block = self.layout.block_number(config.local_block)
        self._descriptor: GlobalDescriptor | TailDescriptor = choose_descriptor(
            self.layout,
            self.device,
            self._tail,
            kind=config.global_kind,
            dim=config.global_dim,
            block=self.block,
            facet=config.facet,
            centered=config.centered,
        )
        read = {name: getattr(config, name) for name in READING_FIELDS}
        read |= {"local_block": self.block, "global_kind": self._descriptor.kind}
        network = self._tail.sha256 if self._tail and self._tail.weights else self._weights_sha256
        self.facet_source = FacetSource(network, self.block, config.facet, config.centered)
        projection = choose_projection(config.local_codes, self.facet_source)
        self._components = torch.from_numpy(projection.components).to(self.device) if projection else None
        self.fingerprint = ModelFingerprint(
            architecture=self._architecture,
            weights_sha256=self._weights_sha256,
            image_size=config.image_size,
            preprocessing=PREPROCESSING,
            global_dim=self._descriptor.dimension,
            local_dim=projection.dimension if projection else self.layout.width,
            local_codes=codes_name(projection),
            tail_sha256=self._tail.sha256 if self._tail else "",
            **read,
        )
        self._head = FeatureHead(self.requested_outputs, self._describe, repr(self.fingerprint))
        self._takeover: EngineTakeover | None = None
        # Numbers that were asked for are PyTorch's to give.
        engine = TORCH if config.engine == AUTO and config.precision != AUTO else config.engine
        self.engine = self._engines.open(engine, self._head)

    def seek_faster_engine(self, num_images: int = _WORTH_A_SEARCH) -> None:
        """Have the fastest engine found beside the work at hand; it takes over between two images. Returns at once.

        Nothing happens where an engine was named, where the fastest is known, and where too few images are to come.
        """
        config = self.config
        undecided = config.engine == AUTO and config.precision == AUTO and self.engine.choice is None
        if undecided and self._takeover is None and num_images >= _WORTH_A_SEARCH and self._engines.may_choose():
            _logger.info("engine auto: PyTorch runs the network while the fastest engine is found")
            self._takeover = EngineTakeover(config, partial(self._engines.open, head=self._head))

    def choose_engine(self, on_faster: Callable[[str], object] = lambda name: None) -> Choice:
        """Find the fastest engine of this machine and keep which it is, for all that are opened from now on.

        Args:
            on_faster: see `Engines.choose`.

        Raises:
            EngineError: the cache is not usable.
        """
        return self._engines.choose(self._head, on_faster)

    @property
    def engine_state(self) -> dict[str, str]:
        """The engine in use and how it came to be that, for people."""
        return describe_engine(self.config, self.engine, self._takeover)

    def take_over(self) -> bool:
        """Go on with a faster engine if one was found; whether that is so."""
        found = self._takeover.take() if self._takeover is not None else None
        if found is None:
            return False
        before, self.engine = self.engine.name, found
        if found.name != before:
            _logger.info("engine %s takes over from %s", found.name, before)
            self._engines.forget(before, self._head)
        return True

    def close(self) -> None:
        """End the search for a faster engine."""
        if self._takeover is not None:
            self._takeover.close()

    def reading(self, config: ExtractorConfig) -> FeatureExtractor:
        """An extractor of other features that shares this one's network, so that nothing is loaded.

        Args:
            config: may differ in what is read of the network: block, facet, centring, kind and length of the global
                descriptor, T1, the cap on keypoints, the local codes, and tails that leave the network as it is.

        Raises:
            ConfigError: another network, input size, device or precision; or no such block.
        """
        names = (*READING_FIELDS, "global_dim", "local_codes", "tail")
        read = {name: getattr(self.config, name) for name in names}
        if replace(config, **read) != self.config:
            raise ConfigError(f"{config} needs another network than {self.config}; load an extractor of its own")
        shared = copy.copy(self)
        if config.tail != self.config.tail:
            shared._tail = tail_beside(self._tail, config.model, config.weights, config.tail)
        shared._read(config)
        return shared

    def extract(self, images: Sequence[RgbImage]) -> list[Features]:
        """Compute the features of a batch.

        Args:
            images: (H, W, 3) uint8 RGB each, sizes may differ.

        Returns:
            One `Features` an image, in order; [] for no images.

        Raises:
            ImageError: an image of another type or shape.
        """
        if not images:
            return []
        return self.features(self.run(images, self.requested_outputs))

    @property
    def requested_outputs(self) -> RequestedOutputs:
        """What the features need of a forward pass."""
        return RequestedOutputs.of({self.block, *self._descriptor.blocks}, to_the_end=not self._descriptor.blocks)

    @torch.inference_mode()
    def run(self, images: Sequence[RgbImage], requested_outputs: RequestedOutputs) -> BackboneOutput:
        """One forward pass; see `Backbone.forward`.

        Raises:
            ConfigError: the engine was made, and verified, for another reading.
            ImageError: an image of another type or shape.
        """
        self.take_over()
        network = (
            self.engine.run
            if requested_outputs == self.requested_outputs
            else self._engines.another(self.engine.name, requested_outputs)
        )
        return network(self.pixels(images))

    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """(B, 3, S, S) input of the network, on its device and of its type.

        Raises:
            ImageError: an image of another type or shape.
        """
        if self.device.type == "cuda":
            return preprocess_on(self.device, images, self.config.image_size).to(self.dtype)
        return preprocess(images, self.config.image_size).to(self.dtype)

    def _describe(self, output: BackboneOutput) -> DenseFeatures:
        reading = output.blocks[self.block]
        facets = self.layout.read_facet(reading, self.config.facet, centered=self.config.centered)
        return DenseFeatures(self._descriptor(output), facets)

    @torch.inference_mode()
    def features(self, output: BackboneOutput) -> list[Features]:
        """What this extractor reads in a forward pass of its network, one `Features` an image."""
        described = self._describe(output)
        attention: NDArray[np.float32] | None = None
        # A softmax is never 0, so nothing needs to be computed where all patches are kept.
        if self.config.min_attention > 0.0 or self.config.max_keypoints:
            attention = self.layout.attention_to_cls(output.blocks[self.block]).cpu().numpy()
        # On the device, since codes are a small part of the facets' bytes; on a CPU too by torch, since NumPy's own
        # threads keep spinning and slow the network's next pass down by half.
        facets = described.facets if self._components is None else described.facets @ self._components.T
        codes = encode_tensor(facets).cpu().numpy()
        rows, columns = self.layout.grid_hw
        global_array = described.global_descriptors.cpu().numpy()
        return [
            Features(
                global_array[number],
                self._select(codes[number], None if attention is None else attention[number]),
                (columns, rows),
            )
            for number in range(len(global_array))
        ]

    def _select(self, codes: NDArray[np.int8], attention: NDArray[np.float32] | None) -> LocalFeatures:
        columns = self.layout.grid_hw[1]
        kept = np.arange(len(codes))
        if attention is not None:
            kept = select_keypoints(attention, self.config.min_attention, self.config.max_keypoints)
        return LocalFeatures(codes[kept], np.stack([kept % columns, kept // columns], axis=1).astype(np.uint8))
