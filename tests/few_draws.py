"""Levels from few draws, which take a tenth of the time: for the tests, and for the processes that they start."""

import importlib
import math

levels = importlib.import_module("tightframe.metrics.levels")  # the function hides the module
DRAWS, levels.DRAWS = levels.DRAWS, ((math.inf, 4),)
