"""How features are made, and everything that must agree for two of them to be comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from effovpr_ros.core.errors import ConfigError, MapFormatError
from effovpr_ros.engines.catalogue import DEFAULT_ENGINE, check_engine
from effovpr_ros.features.names import AUTO, FACETS, NAMED_MODELS, OFFLINE_MODEL, PRECISIONS

GLOBAL_KINDS = ("regional", "cls")
_TAIL_FIELD = "tail_sha256"
READING_FIELDS = ("local_block", "facet", "centered", "global_kind", "min_attention", "max_keypoints")
"""Fields of `ExtractorConfig` that say what is read of a network, as they stand in a fingerprint too."""


@dataclass(frozen=True)
class ExtractorConfig:
    """How features are made. All but weights, device, precision and engine belong to a map's fingerprint.

    The defaults were chosen for the offline model; docs/defaults.md says on which images.

    Attributes:
        model: offline, small, base, large, giant or a timm ViT name.
        weights: local weights file, a tail that `effovpr train` made, or both joined by a comma; empty for the
            model's own source.
        tail: where `weights` names none: auto (the one shipped for the model, if any and `weights` is empty), none,
            or the name of a shipped one.
        image_size: side of the square input in pixels, a multiple of the patch size.
        local_block: block whose facet re-ranking reads; negative counts from the last.
        facet: query, key or value.
        centered: subtract the image's mean facet, which carries its light and season, from every patch.
        global_kind: regional, [CLS] and facet averages of the local block, beyond which the network need not run
            (see `features.regional`); or cls, [CLS] of the last block (the paper). A tail has a kind of its own.
        global_dim: length of the global descriptor, one of the tail's; 0 for its default, or without a tail.
        min_attention: T1, patches at or below this attention to [CLS] are no keypoints; 0 keeps all.
        max_keypoints: the most attended patches that are kept; 0 keeps all above T1. A cap loses recall.
        local_codes: length of the local descriptors: auto (short where a projection for the network comes with this
            package, see `features.local_projection`), full, or the name of a projection.
        device: auto (CUDA where there is one, else CPU) or a torch device.
        precision: auto (fp16 on CUDA, fp32 elsewhere), fp32, fp16 or bf16.
        engine: what runs the network, see `engines.catalogue`; auto for the fastest that was found on this machine
            and gives PyTorch's descriptors, PyTorch before one was found and where a precision is named.
    """

    model: str = OFFLINE_MODEL
    weights: str = ""
    tail: str = AUTO
    image_size: int = 322
    local_block: int = -4
    facet: str = "value"
    centered: bool = True
    global_kind: str = "regional"
    global_dim: int = 0
    min_attention: float = 0.0
    max_keypoints: int = 0
    local_codes: str = AUTO
    device: str = "auto"
    precision: str = "auto"
    engine: str = DEFAULT_ENGINE

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not 0.0 <= self.min_attention < 1.0:
            raise ConfigError(f"min_attention (T1) {self.min_attention} is outside [0, 1)")
        if self.max_keypoints < 0:
            raise ConfigError(f"max_keypoints {self.max_keypoints} is negative; 0 means no cap")
        if self.global_dim < 0:
            raise ConfigError(f"global_dim {self.global_dim} is negative; 0 is the tail's default")
        if self.global_kind not in GLOBAL_KINDS:
            raise ConfigError(f"global_kind {self.global_kind!r} is unknown; use {', '.join(GLOBAL_KINDS)}")
        if self.facet not in FACETS:
            raise ConfigError(f"facet {self.facet!r} is unknown; use one of {', '.join(FACETS)}")
        if self.precision != "auto" and self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r} is unknown; use auto, {', '.join(PRECISIONS)}")
        check_engine(self.engine, self.precision)


@dataclass(frozen=True)
class ModelFingerprint:
    """Everything that must agree for two descriptors to be comparable.

    Attributes:
        architecture: of the network, as timm names it.
        weights_sha256: of the names and values of its weights.
        image_size: side of its input in pixels.
        preprocessing: name of what is done to a picture before it.
        global_dim: length of the global descriptor.
        local_dim: length of a local descriptor.
        local_block: block that is read, from 0.
        facet: query, key or value.
        centered: whether the image's mean facet is subtracted.
        global_kind: regional or cls.
        min_attention: T1; 0 keeps all patches.
        max_keypoints: most patches that are kept; 0 keeps all above T1.
        local_codes: name of how local descriptors are stored.
        tail_sha256: of the trained tail; empty for the network as it is.
    """

    architecture: str
    weights_sha256: str
    image_size: int
    preprocessing: str
    global_dim: int
    local_dim: int
    local_block: int
    facet: str
    centered: bool
    global_kind: str
    min_attention: float
    max_keypoints: int
    local_codes: str
    tail_sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML; without a tail as before there were any."""
        values = asdict(self)
        if not self.tail_sha256:
            del values[_TAIL_FIELD]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelFingerprint:
        """Inverse of `to_dict`.

        Raises:
            MapFormatError: a field is missing.
        """
        complete = {_TAIL_FIELD: "", **values}
        missing = [field.name for field in fields(cls) if field.name not in complete]
        if missing:
            raise MapFormatError(f"the model fingerprint lacks {', '.join(missing)}; rebuild the map")
        return cls(**{field.name: complete[field.name] for field in fields(cls)})

    def differences(self, other: ModelFingerprint) -> list[str]:
        """One line `field: mine != theirs` for each field that differs."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{name}: {mine[name]} != {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def config_for_fingerprint(
    fingerprint: ModelFingerprint,
    *,
    weights: str = "",
    device: str = "auto",
    precision: str = "auto",
    engine: str = ExtractorConfig.engine,
) -> ExtractorConfig:
    """The configuration that makes descriptors comparable with a map's.

    Args:
        fingerprint: of the map.
        weights: where the weights lie if not at the model's own source.
        device: see `ExtractorConfig`.
        precision: see `ExtractorConfig`.
        engine: see `ExtractorConfig`.

    Raises:
        WeightsError: the map was made with a tail that neither `weights` nor this package has.
    """
    # They load PyTorch, which the settings themselves need not.
    from effovpr_ros.features.local_projection import setting_for_codes
    from effovpr_ros.features.tails import tail_of_map

    by_architecture = {name.split(".")[0]: model for model, name in NAMED_MODELS.items()}
    return ExtractorConfig(
        model=by_architecture.get(fingerprint.architecture, fingerprint.architecture),
        weights=weights,
        tail=tail_of_map(fingerprint.tail_sha256, weights),
        global_dim=fingerprint.global_dim if fingerprint.tail_sha256 else 0,
        image_size=fingerprint.image_size,
        local_codes=setting_for_codes(fingerprint.local_codes),
        device=device,
        precision=precision,
        engine=engine,
        **{name: getattr(fingerprint, name) for name in READING_FIELDS},
    )
