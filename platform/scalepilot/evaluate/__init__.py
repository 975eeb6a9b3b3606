"""From episodes to a verdict: intervals, comparisons, tables, and the report."""

from scalepilot.evaluate.compare import compare
from scalepilot.evaluate.comparison import METRICS, Comparison, Contestant
from scalepilot.evaluate.files import read_evaluation, summary, write_evaluation
from scalepilot.evaluate.report import ReportData, write_report
from scalepilot.evaluate.statistics import (
    GapClosed,
    Interval,
    PairedDifference,
    block_bootstrap,
    gap_closed,
    paired_difference,
)
from scalepilot.evaluate.tables import comparison_table, verdict

__all__ = [
    "METRICS",
    "Comparison",
    "Contestant",
    "GapClosed",
    "Interval",
    "PairedDifference",
    "ReportData",
    "block_bootstrap",
    "compare",
    "comparison_table",
    "gap_closed",
    "paired_difference",
    "read_evaluation",
    "summary",
    "verdict",
    "write_evaluation",
    "write_report",
]
