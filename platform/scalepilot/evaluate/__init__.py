"""From episodes to a verdict: intervals and comparisons."""

from scalepilot.evaluate.compare import compare
from scalepilot.evaluate.comparison import Comparison, Contender, Member
from scalepilot.evaluate.statistics.aggregate import interquartile_mean, probability_of_improvement, stratified_bootstrap
from scalepilot.evaluate.statistics.intervals import (
    GapClosed,
    Interval,
    PairedDifference,
    block_bootstrap,
    gap_closed,
    paired_difference,
)
from scalepilot.evaluate.store import read_evaluation, summary, write_evaluation
from scalepilot.evaluate.suite import Standing, SuiteComparison, compare_suite

__all__ = [
    "Comparison",
    "Contender",
    "GapClosed",
    "Interval",
    "Member",
    "PairedDifference",
    "Standing",
    "SuiteComparison",
    "block_bootstrap",
    "compare",
    "compare_suite",
    "gap_closed",
    "interquartile_mean",
    "paired_difference",
    "probability_of_improvement",
    "read_evaluation",
    "stratified_bootstrap",
    "summary",
    "write_evaluation",
]
