"""A plugin of pytest: a run in which a worker of xdist died, or a test was never run, has failed and says so.

xdist itself reports a test in whose middle a worker died; a worker that dies between tests or after its last it only mentions.
"""

from __future__ import annotations

from typing import Any

import pytest


class AllRan:
    """What became of every test that the workers collected, as the process that commands them sees it."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self.died: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """A worker is ready; all have the same tests, one that replaces another too."""
        if not self.died:
            self.waiting.update(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A worker ended, in order or not."""
        if error:
            self.died.append(f"{node.gateway.id}: {error}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test; xdist calls the one of a test in which a worker died `???`."""
        if report.when not in ("setup", "call"):
            self.waiting.discard(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn what is missing into an error of the run, which its last line counts."""
        stopped = bool(session.shouldstop or session.shouldfail)
        missing = [] if stopped else sorted(self.waiting)
        faults = [f"a worker died: {line}" for line in self.died]
        faults += [f"{len(missing)} tests were never run: {', '.join(missing[:5])}"] if missing else []
        for fault in faults:
            report = pytest.TestReport("tests/all_ran.py", ("tests/all_ran.py", 0, ""), {}, "failed", fault, "teardown")
            session.config.hook.pytest_runtest_logreport(report=report)
        if faults and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    """Only where there are workers, and not in them."""
    if getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(AllRan())
