"""The files of measures, in the order of tables. What their `__all__` names is public, metrics are in `METRICS`."""

# ruff: noqa: F403, I001
from tightframe.metrics.scatter_ratio import *
from tightframe.metrics.traces import *
from tightframe.metrics.normalised_variance import *
from tightframe.metrics.total_scatter import *
from tightframe.metrics.spectra import *
from tightframe.metrics.lengths import *
from tightframe.metrics.angles import *
from tightframe.metrics.etf import *
from tightframe.metrics.participation import *
from tightframe.metrics.predicted import *
from tightframe.metrics.one_vs_rest import *
from tightframe.metrics.kernels import *
from tightframe.metrics.duality import *
from tightframe.metrics.layers import *
from tightframe.metrics.agreement import *
from tightframe.metrics.transfer import *
from tightframe.metrics.orthogonality import *
from tightframe.metrics.regression import *
from tightframe.metrics.multilabel import *
