"""Reports: named values beside what they should be, and their terminal, file and HTML forms."""

from tightframe.report.comparison import Comparison
from tightframe.report.report import Entry, Report
from tightframe.report.run_folder import RunFolder

__all__ = ["Comparison", "Entry", "Report", "RunFolder"]
