"""One self-contained HTML file: verdict, tables, curves, a day played back, what the policy does, provenance.

The page needs no network and runs one script, allowed by its hash in the page's own content security policy. Text goes
through jinja2's autoescape, the charts' data through JSON with `<`, `>` and `&` escaped, and pictures are images, in which
a browser runs nothing: so a name can do no harm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from scalepilot.evaluate.comparison import Comparison
from scalepilot.evaluate.suite import SuiteComparison
from scalepilot.files.atomic import write_bytes
from scalepilot.report.html.chart_data import chart_data, learning_data
from scalepilot.report.html.page import TEMPLATES, content_hash, environment, image_address
from scalepilot.report.html.report_figures import learning_caption, visible
from scalepilot.report.html.report_suite import suite_view
from scalepilot.report.html.report_tables import workload_view

# In the order in which they use each other.
_SCRIPTS = ("core.js", "learning.js", "scatter.js", "playback.js", "page.js")


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes:
        title: above it.
        caption: below it.
        image: SVG text, or the bytes of a GIF.
    """

    title: str
    caption: str
    image: str | bytes


@dataclass(frozen=True)
class LearningCurve:
    """How one training went.

    Attributes:
        name: of what was trained; the trainings of one name differ in their seed and are drawn as a mean with a band.
        training_seed: of this one.
        rows: one an iteration, by the names of the documented metrics; None where not measured.
    """

    name: str
    training_seed: int
    rows: Sequence[Mapping[str, float | None]]


@dataclass(frozen=True)
class ReportData:
    """What a report shows.

    Attributes:
        title: of the page.
        comparison: verdict and tables; of Autoscale also scatter and playback.
        learning_curves: of what was trained; empty if unknown.
        reference_lines: name → validation J per hour of rules, drawn across the learning curves.
        pictures: of policies: what they do in which state, their Q-table, a film.
        stills: pictures of what the page's script draws, for a reader without JavaScript.
        config_yaml: the whole configuration; empty if there is none.
        provenance: git sha, versions, hardware, …; mappings may be nested.
        reproduce: commands.
        deploy: what the run recommends to deploy, and why; empty where it does not say.
    """

    title: str
    comparison: SuiteComparison | Comparison
    learning_curves: Sequence[LearningCurve] = ()
    reference_lines: Mapping[str, float] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    stills: Sequence[Picture] = ()
    config_yaml: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reproduce: Sequence[str] = ()
    deploy: str = ""


def write_report(data: ReportData, path: Path) -> None:
    """Write the report; an older one is replaced in one step.

    Args:
        data: what to show.
        path: of the HTML file; its folder is made if missing.
    """
    html = render_report(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, html.encode())


def render_report(data: ReportData) -> str:
    """The page as text."""
    # Whatever is not text by now is a number of ours.
    templates = environment(lambda value: visible(value) if type(value) is str else value)
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    parts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"
    comparison = data.comparison
    if isinstance(comparison, SuiteComparison) and len(comparison.comparisons) == 1 and not comparison.failed:
        # One workload has nothing to be averaged over.
        comparison = comparison.comparisons[0]
    workloads = comparison.comparisons if isinstance(comparison, SuiteComparison) else (comparison,)
    learning = learning_data([(c.name, c.training_seed, c.rows) for c in data.learning_curves], data.reference_lines)
    drawn = chart_data(workloads)
    charts = {"learning": learning, "workloads": drawn}
    policy = f"default-src 'none'; style-src '{content_hash(style)}'; script-src '{content_hash(script)}'; img-src data:"
    return templates.get_template("report.html.j2").render(
        title=data.title,
        csp=f"{policy}; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 — our own file, not anyone's input
        script=Markup(script),  # noqa: S704
        charts=_embedded_json(charts),
        workloads=[workload_view(c, chart) for c, chart in zip(workloads, drawn, strict=True)],
        suite=suite_view(comparison) if isinstance(comparison, SuiteComparison) else None,
        learning=learning,
        learning_caption=learning_caption([c.rows for c in data.learning_curves]),
        pictures=[_shown(picture) for picture in data.pictures],
        stills=[_shown(picture) for picture in data.stills],
        config_yaml=data.config_yaml,
        provenance=list(_flat(data.provenance)),
        reproduce=data.reproduce,
        deploy=data.deploy,
    )


def _shown(picture: Picture) -> dict[str, str]:
    return {"title": picture.title, "caption": picture.caption, "source": image_address(picture.image)}


def _embedded_json(value: Any) -> Markup:
    """JSON that cannot end its script element, whatever the names in it."""
    text = json.dumps(_all_visible(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 — escaped on the lines above


def _all_visible(value: Any) -> Any:
    """With every text in it as `visible` shows it."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _all_visible(item) for key, item in value.items()}
    return [_all_visible(item) for item in value] if isinstance(value, list) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{key}", "–" if value is None else str(value)
