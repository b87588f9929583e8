"""Every error and warning the package raises, in one place.

Each error also derives from the builtin that Python users would catch (`ValueError`, `TypeError`, ...).
"""


class TightframeError(Exception):
    """Base class of every error raised on purpose by tightframe."""


class ShapeError(TightframeError, ValueError):
    """A tensor has the wrong number of dimensions or the wrong size."""


class DtypeError(TightframeError, TypeError):
    """A tensor has a dtype that the operation can't use without changing its meaning."""


class LabelError(TightframeError, ValueError):
    """A label lies outside [0, num_classes)."""


class NonFiniteError(TightframeError, ValueError):
    """A value is NaN, infinite, or too large for its square to be a float64."""


class EmptyBatchError(TightframeError, ValueError):
    """A batch without a single row."""


class EmptyClassError(TightframeError, ValueError):
    """Fewer than two classes have samples, so no quantity between classes exists."""


class ScatterError(TightframeError, ValueError):
    """The statistics lack the scatter that a metric needs; the message names the option that keeps it."""


class EvidenceError(TightframeError, ValueError):
    """A metric was asked for without the data that it needs."""


class WeightingError(TightframeError, ValueError):
    """A weighting of classes other than "class" or "sample"."""


class MergeError(TightframeError, ValueError):
    """Two mergeable values don't describe the same classes, features or centres."""


class DistributedError(TightframeError, RuntimeError):
    """Processes that should sum their values lost each other; the message says over what, and who noticed."""


class ClassifierError(TightframeError, ValueError):
    """A classifier doesn't fit the statistics, or no classifier was found in a model."""


class LayerError(TightframeError, LookupError):
    """No layer of a model matches a name or pattern, or a layer gave no features that fit the labels."""


class DimensionError(TightframeError, ValueError):
    """A geometry doesn't exist in the dimension asked for."""


class CostMatrixError(TightframeError, ValueError):
    """Costs between classes that are no metric, or don't fit the construction; the message names the entry."""


class HierarchyError(TightframeError, ValueError):
    """A class hierarchy isn't a tree; the message names the node, the roots or the cycle."""


class RangeError(TightframeError, ValueError):
    """An argument lies outside the values for which it means something."""


class ZeroVectorError(TightframeError, ValueError):
    """A vector of length zero, which has no direction."""


class ChoiceError(TightframeError, LookupError):
    """A name that isn't among those on offer; the message lists them."""


class StateError(TightframeError, ValueError):
    """A saved state doesn't fit the object it is loaded into, or a file isn't what it should be."""


class OptionError(TightframeError, ValueError):
    """Options of a command that are missing, or that exclude each other."""


class LoaderError(TightframeError, RuntimeError):
    """A data loader gave something that can't be measured, or not the same samples twice."""


class ShardError(TightframeError, ValueError):
    """A shard of features is missing, foreign, damaged or there twice; the message names the file."""


class DatasetError(TightframeError, LookupError):
    """A data set is unknown, not found, or its files are damaged."""


class MissingExtraError(TightframeError, ImportError):
    """An optional package is missing; the message says which extra installs it."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"{package} is not installed. Run: pip install 'tightframe[{extra}]'")


class GeometryWarning(UserWarning):
    """The geometry of the class means is degenerate: coincident classes, or a lower rank than K - 1."""


class ResolutionWarning(GeometryWarning):
    """A measure is near, or below, what the products behind it resolve; the message says how near."""


class ZeroVectorWarning(UserWarning):
    """Embeddings of length zero, which have no direction: their cosines count as 0, and they get no gradient."""


class UntrainedWarning(UserWarning):
    """A head that follows class means was asked for logits before it saw a sample; they are all 0."""


class BlipWarning(UserWarning):
    """A measurement in eval mode that is likely not to be typical, as batch normalisation's averages lag behind."""


class ClassCountWarning(UserWarning):
    """A head has another number of classes than the classifier whose place it takes."""


class TrackerWarning(UserWarning):
    """A tracker failed; the message says which, and why. What it should have logged is in the series."""


class SearchWarning(UserWarning):
    """A search ended before it found what was asked for; the message says how near it came."""


class FolderWarning(UserWarning):
    """A run folder can't be written at the moment, or not be protected from other runs; the message says why."""
