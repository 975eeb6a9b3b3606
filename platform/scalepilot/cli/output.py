"""What commands print: tables on standard output, 100 columns where it is no terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from scalepilot.evaluate.compare import Comparison
    from scalepilot.evaluate.suite import SuiteComparison

_PIPED_COLUMNS = 100


def console() -> Console:
    """Standard output: the terminal's width, or 100 columns when piped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_COLUMNS, highlight=False)


def print_comparison(comparison: Comparison) -> None:
    """The table and the verdict."""
    from scalepilot.report.words.tables import comparison_table, verdict

    out = console()
    out.print(comparison_table(comparison))
    out.print(verdict(comparison))
    out.print()


def print_suite(suite: SuiteComparison) -> None:
    """Every workload's table and sentence; with several, what they come to."""
    for comparison in suite.comparisons:
        print_comparison(comparison)
    if len(suite.comparisons) > 1:
        from scalepilot.report.words.tables import suite_table, suite_verdict

        out = console()
        out.print(suite_table(suite))
        out.print(suite_verdict(suite))
        out.print()
