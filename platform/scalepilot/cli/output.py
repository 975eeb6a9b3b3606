"""What commands print: tables on standard output, 100 columns where it is no terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalepilot.evaluate.compare import Comparison

_PIPED_COLUMNS = 100


def print_comparison(comparison: Comparison) -> None:
    """The table and the sentence that judge."""
    from rich.console import Console

    from scalepilot.evaluate.tables import comparison_table, verdict

    console = Console(width=None if sys.stdout.isatty() else _PIPED_COLUMNS, highlight=False)
    console.print(comparison_table(comparison))
    console.print(verdict(comparison))
    console.print()
