"""tightframe: the geometry of class representations. Measure neural collapse, build prototypes, train with them."""

from importlib import import_module
from typing import Any

from tightframe.version import __version__

_HOME = {
    "ClassStatistics": "tightframe.statistics",
    "StatisticsAccumulator": "tightframe.statistics",
    "ConfusionCounts": "tightframe.decisions",
    "DecisionCounts": "tightframe.decisions",
    "Prototypes": "tightframe.prototypes",
    "PrototypeHead": "tightframe.heads",
    "PrototypeModel": "tightframe.heads",
    "certify": "tightframe.codes",
    "Layer": "tightframe.hooks",
    "capture": "tightframe.hooks",
    "list_layers": "tightframe.hooks",
    "measure": "tightframe.measuring",
    "rank": "tightframe.ranking",
    "Monitor": "tightframe.monitor",
    "Report": "tightframe.report",
}
_MODULES = (
    "codes",
    "datasets",
    "errors",
    "heads",
    "hierarchy",
    "losses",
    "metrics",
    "ood",
    "prototypes",
    "similarity",
    "sources",
    "theory",
)

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        return import_module(f"tightframe.{name}")
    raise AttributeError(f"module 'tightframe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
