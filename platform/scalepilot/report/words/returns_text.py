"""A comparison by return in words: the terminal's table, the one for documents, and the verdict."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from scalepilot.evaluate.returns import ReturnComparison
from scalepilot.report.words.tables import plain_table


def returns_table(comparison: ReturnComparison) -> Table:
    """One row each, highest return first."""
    episodes = len(comparison.rows[0].results.episode_return)
    said = ["95 % intervals: bootstrap over episodes.", *returns_notes(comparison)]
    table = plain_table(f"{comparison.env_id}: {episodes} test episodes", "\n".join(said))
    table.add_column("", overflow="fold")
    for heading in ("return", "95 % interval", "length"):
        table.add_column(heading, justify="right", no_wrap=True)
    best = comparison.best("policy")
    for row in sorted(comparison.rows, key=lambda row: -row.figures["return"].mean):
        mark, figure = "*" if best is row else " ", row.figures["return"]
        interval = f"{figure.low:,.2f} to {figure.high:,.2f}" if figure.is_known else "-"
        style = "bold" if best is row else None
        table.add_row(
            Text(f"{mark} {row.name}"), f"{figure.mean:,.2f}", interval, f"{row.figures['length'].mean:,.1f}", style=style
        )
    return table


def returns_notes(comparison: ReturnComparison) -> list[str]:
    """What was odd about the environment in the test, a line a row and kind."""
    return [f"{row.name}: {line}" for row in comparison.rows for line in row.notes]


def returns_markdown(comparison: ReturnComparison) -> str:
    """The table for documents."""
    lines = [f"| {comparison.env_id} | return | 95 % interval | length |", "|---|---:|---:|---:|"]
    for row in sorted(comparison.rows, key=lambda row: -row.figures["return"].mean):
        figure = row.figures["return"]
        interval = f"{figure.low:.2f} to {figure.high:.2f}" if figure.is_known else ""
        name = f"{row.name} ({row.detail})".replace("|", "\\|")
        lines.append(f"| {name} | {figure.mean:.2f} | {interval} | {row.figures['length'].mean:.1f} |")
    return "\n".join(lines)


def returns_verdict(comparison: ReturnComparison) -> str:
    """One sentence: what the best policy collects, against the best rule, and whether chance could explain it."""
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    if policy is None or baseline is None:
        alone = policy or baseline or comparison.rows[0]
        return f"{alone.name} collects {alone.figures['return'].mean:,.2f} an episode; there is nothing to compare it with."
    difference = comparison.versus[policy.name][baseline.name].difference
    ours, theirs = policy.figures["return"].mean, baseline.figures["return"].mean
    undecided = not difference.is_known or difference.low <= 0 <= difference.high
    word = "not distinguishable from" if undecided else "more than" if difference.low > 0 else "less than"
    interval = (
        f"; 95 % interval of the difference {difference.low:+,.2f} to {difference.high:+,.2f}" if difference.is_known else ""
    )
    return f"{policy.name} collects {ours:,.2f} an episode, {word} {baseline.name} ({theirs:,.2f}{interval})."
