"""Out-of-distribution detection from the moments of one pass: detectors, AUROC and FPR95, with standard errors."""

from tightframe.ood.collecting import CURVE, DetectionRow, DetectionTable, DetectorScores
from tightframe.ood.curve import ComponentCurve, component_curve, component_values
from tightframe.ood.detector import Detector
from tightframe.ood.distances import Mahalanobis, NearestCentre, RelativeMahalanobis
from tightframe.ood.evaluation import Detection, evaluate
from tightframe.ood.logits import Energy, GeneralizedEntropy, MaxLogit, MaxSoftmax
from tightframe.ood.nci import Nci
from tightframe.ood.neco import Neco
from tightframe.ood.residual import Residual, Vim
from tightframe.ood.table import DETECTORS, DetectorRow, Fitting

__all__ = [
    "CURVE",
    "DETECTORS",
    "ComponentCurve",
    "Detection",
    "DetectionRow",
    "DetectionTable",
    "Detector",
    "DetectorRow",
    "DetectorScores",
    "Energy",
    "Fitting",
    "GeneralizedEntropy",
    "Mahalanobis",
    "MaxLogit",
    "MaxSoftmax",
    "Nci",
    "NearestCentre",
    "Neco",
    "RelativeMahalanobis",
    "Residual",
    "Vim",
    "component_curve",
    "component_values",
    "evaluate",
]
