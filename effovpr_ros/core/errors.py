"""The one exception family of this package: catch `EffoVPRError` to catch them all."""


class EffoVPRError(Exception):
    """Base class. A message names the bad value, where it was found and the remedy."""


class ConfigError(EffoVPRError):
    """A setting has an impossible value."""


class ImageError(EffoVPRError):
    """An image is unreadable, empty or of an unsupported kind."""


class WeightsError(EffoVPRError):
    """Model weights are missing, damaged or do not fit the architecture."""


class ModelMismatchError(EffoVPRError):
    """Descriptors of two different models were about to be compared."""


class EngineError(EffoVPRError):
    """An engine is not installed, cannot be made, or gives other descriptors than PyTorch."""


class DescriptorShapeError(EffoVPRError):
    """Descriptor arrays do not fit each other."""


class GeodesyError(EffoVPRError):
    """A coordinate is out of range or not finite."""


class TrajectoryError(EffoVPRError):
    """A pose is invalid, or no pose is known for the wanted time."""


class TransformError(EffoVPRError):
    """No transform joins two frames at the wanted time, or one is impossible."""


class SourceError(EffoVPRError):
    """An image folder, table or bag cannot be read as asked."""


class MapError(EffoVPRError):
    """A map is missing, damaged or cannot be written."""


class MapFormatError(MapError):
    """A file of a map holds what this version does not read, or what no map holds."""


class InUseError(MapError):
    """Another program writes the same map; the message names it."""


class SimulationError(EffoVPRError):
    """The simulator is missing or does not do as it is told."""


class ServerError(EffoVPRError):
    """A server of maps cannot be started or reached, is late, refuses, or answers what cannot be read."""


class NodeError(EffoVPRError):
    """A node's process failed or refused a transition."""


class EvaluationError(EffoVPRError):
    """An evaluation has no valid ground truth or inconsistent inputs."""


class TrainingError(EffoVPRError):
    """There is nothing to train on, or training cannot go on."""


class CameraError(EffoVPRError):
    """A camera's intrinsic calibration is missing or impossible, or a depth image does not fit it."""
