"""The blocks of docs/serving.md from the first server to its end, run as they stand there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from benchmarks.ports import free_port

pytestmark = pytest.mark.ray

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Of the page; a free one is put in its place, as another test may run beside.
_PORT = "8711"


def as_script(page: str) -> str:
    """One shell script; Python's blocks are one session, so each is run behind those before it."""
    run = page[page.index("## A first server") : page.index("## Configuration")]
    parts, session = [], ""
    for language, text in _BLOCK.findall(run):
        if language == "python":
            session += text
        parts.append(text if language == "sh" else f"python -W error - <<'END_OF_BLOCK'\n{session}END_OF_BLOCK\n")
    # Whatever fails, the server ends with the script.
    return "set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(parts)


@pytest.fixture(scope="module")
def ran(repo: Path, tmp_path_factory: pytest.TempPathFactory, cli_env: dict[str, str]) -> tuple[Path, str]:
    """Folder in which the page's blocks were run, and what they printed."""
    folder = tmp_path_factory.mktemp("serving")
    folder.chmod(0o755)
    page = (repo / "docs" / "serving.md").read_text(encoding="utf-8")
    assert page.count(_PORT) == 2
    script = as_script(page.replace(_PORT, str(free_port())))
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=cli_env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_both_versions_answered_in_words_and_by_name(ran: tuple[Path, str]) -> None:
    _, printed = ran
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith('{"policy"')]
    assert [answer["version"] for answer in answers] == ["2", "1"]
    assert all("The rule hpa chooses" in answer["explanation"]["words"] for answer in answers)


@pytest.mark.slow
def test_the_rule_of_the_page_remembers_its_busiest_moment(ran: tuple[Path, str]) -> None:
    _, printed = ran
    replicas = [int(line.split()[1]) for line in printed.splitlines() if re.fullmatch(r"0\.[934] \d+", line)]
    # Up at 90 %, and not below the six there are soon after: the busy moment is in the state. The session ran twice.
    assert replicas == [8, 6, 6] * 2


@pytest.mark.slow
def test_the_rollback_of_the_page_is_written_down(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    assert "shop: 2 → 1" in printed
    assert "default: '1'" in (folder / "policies" / "routes.yaml").read_text()


def test_every_file_that_the_page_links_is_there(repo: Path) -> None:
    page = (repo / "docs" / "serving.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", page) if "://" not in link]
    assert links
    for link in links:
        assert (repo / "docs" / link).is_file(), link
