"""All errors and warnings of the package.

Each error also derives from a builtin exception (`ValueError`, `TypeError`, ...).
"""


class TightframeError(Exception):
    """Base class of all tightframe errors."""


class ShapeError(TightframeError, ValueError):
    """A tensor has the wrong number of dimensions or the wrong size."""


class DtypeError(TightframeError, TypeError):
    """A tensor has a dtype that the operation does not support."""


class LabelError(TightframeError, ValueError):
    """A label lies outside [0, num_classes)."""


class NonFiniteError(TightframeError, ValueError):
    """A value is NaN, infinite, or so large that its square overflows float64."""


class EmptyBatchError(TightframeError, ValueError):
    """A batch has no rows."""


class EmptyClassError(TightframeError, ValueError):
    """Fewer than two classes have samples, so measures between classes are undefined."""


class ScatterError(TightframeError, ValueError):
    """The statistics have no scatter, but a metric needs it; the message names the option that keeps it."""


class EvidenceError(TightframeError, ValueError):
    """The data that a metric needs are missing."""


class WeightingError(TightframeError, ValueError):
    """A weighting of classes is neither "class" nor "sample"."""


class MergeError(TightframeError, ValueError):
    """Two values can't be merged: their classes, features or centres differ."""


class DistributedError(TightframeError, RuntimeError):
    """A process was lost during a sum over processes; the message names the sum and the rank that noticed."""


class ClassifierError(TightframeError, ValueError):
    """A classifier does not fit the statistics, or a model has no recognisable classifier."""


class LayerError(TightframeError, LookupError):
    """No layer matches a name or pattern, or a layer's output does not fit the labels."""


class DimensionError(TightframeError, ValueError):
    """A geometry does not exist in the requested dimension."""


class CostMatrixError(TightframeError, ValueError):
    """Costs between classes are not a metric or do not fit the construction; the message names the entry."""


class HierarchyError(TightframeError, ValueError):
    """A class hierarchy is not a tree; the message names the node, the roots or the cycle."""


class RangeError(TightframeError, ValueError):
    """An argument lies outside its valid range."""


class ZeroVectorError(TightframeError, ValueError):
    """A vector has length zero and therefore no direction."""


class ChoiceError(TightframeError, LookupError):
    """A name is unknown; the message lists the known names."""


class StateError(TightframeError, ValueError):
    """A saved state does not fit the object, or a file has the wrong content."""


class OptionError(TightframeError, ValueError):
    """Options of a command are missing, or exclude each other."""


class LoaderError(TightframeError, RuntimeError):
    """A data loader yields an unknown form, or different samples in the second pass."""


class ShardError(StateError):
    """A shard of features is missing, foreign, damaged or duplicated; the message names the file."""


class DatasetError(TightframeError, LookupError):
    """A data set is unknown or missing, or its files are damaged."""


class MissingExtraError(TightframeError, ImportError):
    """An optional package is missing; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"{package} is not installed. Run: pip install 'tightframe[{extra}]'")


class GeometryWarning(UserWarning):
    """The class means are degenerate: some coincide, or their rank is below K - 1."""


class ResolutionWarning(GeometryWarning):
    """A measure is near or below its numerical resolution; the message gives both."""


class ZeroVectorWarning(UserWarning):
    """An embedding has length zero: its cosines are 0, and it gets no gradient."""


class UntrainedWarning(UserWarning):
    """A head that follows class means has seen no sample; its logits are all 0."""


class BlipWarning(UserWarning):
    """A measurement in eval mode is probably untypical: batch normalisation's running averages lag behind."""


class ClassCountWarning(UserWarning):
    """A head and the classifier that it replaces have different numbers of classes."""


class MarginWarning(UserWarning):
    """A margin is larger than fixed prototypes allow; the message says what they and their dimension allow."""


class TrackerWarning(UserWarning):
    """A tracker failed; the message names it and the reason. The series still holds the values."""


class SearchWarning(UserWarning):
    """A search ended without reaching its target; the message says how near it came."""


class FolderWarning(UserWarning):
    """A run folder can't be written at the moment, or not be protected from other runs; the message says why."""
