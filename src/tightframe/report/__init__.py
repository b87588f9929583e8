"""Reports: named values with their targets and levels, as text, files and HTML."""

from tightframe.report.comparison import Comparison
from tightframe.report.entry import Entry
from tightframe.report.facts import Facts
from tightframe.report.profile import Profile
from tightframe.report.ranking import Ranking
from tightframe.report.report import Report
from tightframe.report.run_folder import RunFolder
from tightframe.report.series import plateau, terminal_phase

__all__ = ["Comparison", "Entry", "Facts", "Profile", "Ranking", "Report", "RunFolder", "plateau", "terminal_phase"]
