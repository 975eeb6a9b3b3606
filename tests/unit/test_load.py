"""Sending a workload's requests: when, how an answer is read, what is counted, and what is refused."""

from __future__ import annotations

import ast
import asyncio
import csv
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from tests.commands import refused, said

from scalepilot.cli import main
from scalepilot.cli.workload_load import _Rows
from scalepilot.errors import InputError
from scalepilot.operate.answering import answering
from scalepilot.operate.load.answer import Answer, BadAnswerError
from scalepilot.operate.load.locust import locustfile
from scalepilot.operate.load.schedule import Schedule, schedule_of
from scalepilot.operate.load.tally import NO_TIME, Latencies, Tally
from scalepilot.operate.load.target import Request
from scalepilot_envs.workloads import RateSeries

RATES = np.array([10.0, 0.0, 333.3, 40.5])


@pytest.fixture(autouse=True)
def no_other_loop() -> Iterator[None]:
    """A browser that an earlier module of this process has opened keeps its event loop running, so to say."""
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(running)


def moments(schedule: Schedule, arrivals: str, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(schedule.blocks(arrivals, np.random.default_rng(seed))))


@pytest.mark.parametrize("interval", [0.3, 1.0, 7.0])
def test_recorded_arrivals_are_as_many_in_every_second_as_the_workload_says(interval: float) -> None:
    schedule = Schedule(RATES, interval, 3.7 * interval)
    found = moments(schedule, "recorded")
    assert np.all(np.diff(found) >= 0)
    assert 0 <= found[0] <= found[-1] <= schedule.seconds
    assert len(found) == round(schedule.expected)
    seconds = np.arange(0, schedule.seconds)
    assert np.abs(np.searchsorted(found, seconds) - schedule.cumulated(seconds)).max() <= 0.5 + 1e-6


def test_poisson_arrivals_vary_as_independent_users_do() -> None:
    schedule = Schedule(np.full(400, 50.0), 1.0, 400.0)
    counts = np.diff(np.searchsorted(moments(schedule, "poisson"), np.arange(401)))
    assert abs(counts.mean() - 50) < 1.5
    assert 0.8 < counts.var() / counts.mean() < 1.25
    assert not np.array_equal(counts, np.diff(np.searchsorted(moments(schedule, "poisson", 1), np.arange(401))))


def test_a_stretch_of_a_workload_keeps_its_rates_and_only_comes_sooner() -> None:
    series = RateSeries(np.arange(1.0, 11.0), 60.0)
    schedule = schedule_of(series, 30.0, 120.0, 1e9)
    assert schedule.rates_rps.tolist() == list(range(3, 11))
    assert (schedule.interval_seconds, schedule.seconds) == (2.0, 16.0)
    assert schedule.expected == 2 * sum(range(3, 11))
    assert schedule_of(series, 1.0, 90.0, 60.0).expected == pytest.approx(30 * 2 + 30 * 3)
    with pytest.raises(ValueError, match=r"--start-hours: 1 is not allowed; allowed: below 0\.16"):
        schedule_of(series, 1.0, 3600.0, 1.0)


ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, True),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;a=b\r\n!\r\n0\r\nX: y\r\n\r\n", 200, True),
    "nothing": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, True),
    "continued": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Full\r\nConnection: close\r\ncontent-length: 0\r\n\r\n",
        503,
        False,
    ),
    "old": (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n.", 200, False),
    "until it closes": (b"HTTP/1.1 200 OK\r\n\r\nhello", 200, False),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_an_answer_is_read_however_it_is_cut(name: str, step: int) -> None:
    data, status, keeps_open = ANSWERS[name]
    answer = Answer()
    complete = [answer.feed(data[at : at + step]) for at in range(0, len(data), step)]
    assert not any(complete[:-1])
    assert complete[-1] or answer.closed()
    assert (answer.status, answer.keeps_open) == (status, keeps_open)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 20x OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nmore",
        b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_said(data: bytes) -> None:
    answer = Answer()
    with pytest.raises(BadAnswerError):
        answer.feed(data)
    assert not answer.closed()


def test_the_answer_to_head_has_no_body() -> None:
    assert Answer(has_body=False).feed(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")


def test_quantiles_are_within_a_hundredth() -> None:
    drawn = np.random.default_rng(0).lognormal(-4, 1.5, 20_000)
    latencies = Latencies()
    for seconds in drawn:
        latencies.add(float(seconds))
    for share in (0.5, 0.95, 0.999):
        assert latencies.quantile(share) == pytest.approx(np.quantile(drawn, share), rel=0.012)
    assert latencies.figures()["max"] == pytest.approx(drawn.max(), rel=1e-3)
    assert set(Latencies().figures().values()) == {None}


def test_nothing_that_was_to_be_sent_is_lost_from_the_figures() -> None:
    rows: list[dict] = []
    tally = Tally(1.0, 0.5, lambda begin, end: 2 * (end - begin), rows.append)
    for moment in (0.1, 0.5, 1.2, 1.4):
        tally.intend(moment)
    tally.send(0.1, 0.1)
    tally.answer(0.1, 0.2, 200)
    tally.send(0.5, 1.1)
    tally.answer(0.5, 1.3, 503)
    tally.settle(1.2)
    assert [(row["intended"], row["sent"], row["sent_late"], row["errors"], row["late_share"]) for row in rows] == [
        (2, 1, 1, 1, 0.5)
    ]
    tally.fail(1.2, NO_TIME, 10.0)
    tally.send(1.4, 1.4)
    tally.fail(1.4, "connection closed")
    figures = tally.finish(2.0)
    assert [row["seconds"] for row in rows] == [0.0, 1.0]
    assert (figures["workload"], figures["intended"], figures["sent"], figures["not_sent"], figures["answered"]) == (
        4,
        4,
        3,
        1,
        2,
    )
    assert figures["errors"] == {"status 503": 1, NO_TIME: 1, "connection closed": 1}
    # Without an answer is late, too; what was given up took at least as long as it was waited for.
    assert figures["late_share"] == 0.75
    assert figures["latency_seconds"]["max"] == 10.0
    assert figures["sent_error"] is None


def test_without_an_slo_nothing_is_said_of_late_ones() -> None:
    tally = Tally(1.0, None, lambda begin, end: 1.0)
    tally.intend(0.0)
    tally.fail(0.0, "timeout", 1.0)
    assert tally.finish(1.0)["late_share"] is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"url": "http://shop.example/"}, r"--url: shop\.example is not this machine; .*--allow-host shop\.example"),
        (
            {"url": "http://10.0.0.1/", "allow_host": "10.0.0.2"},
            r"--allow-host: 10\.0\.0\.2 is not used; --url names 10\.0\.0\.1",
        ),
        ({"allow_host": "127.0.0.1"}, "--allow-host: .* needs no leave"),
        ({"url": "ftp://127.0.0.1/"}, "--url: .* is not allowed"),
        ({"url": "http://127.0.0.1:0/"}, "--url: .* is not allowed"),
        ({"url": "http://127.0.0.1:99999/"}, "--url: .* is not allowed"),
        ({"url": "http://127.0.0.1/a b"}, "--url: .* is not allowed"),
        ({"url": "http://127.0.0.1/\r\nX: y"}, "--url: .* is not allowed"),
        ({"url": "http://user:secret@127.0.0.1/"}, "--url: holds a user or a password"),
        ({"url": "http://localhost.shop.example/"}, "is not this machine"),
        ({"ca_file": Path("ca.pem")}, "--ca-file: is not used"),
        ({"headers": {"X": "a\r\nb"}}, "--header: 'X' is not allowed"),
        ({"headers": {"Content-Length": "3"}}, "--header: Content-Length is not allowed"),
    ],
)
def test_only_this_machine_is_loaded_unless_another_is_named(changed: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Request(**{"url": "http://127.0.0.1:8000/"} | changed)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:1/", "http://[::1]:1/", "http://127.8.9.1/", "https://127.0.0.1/"])
def test_this_machine_has_several_names(url: str) -> None:
    assert Request(url).encoded().startswith(b"GET / HTTP/1.1\r\nHost: ")


class Service(BaseHTTPRequestHandler):
    """Keeps connections, and notes what it was asked."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append((self.command, self.path, body, self.headers.get("authorization")))
        self.send_response({"/broken": 500, "/moved": 302}.get(self.path, 200))
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with answering(Service, "127.0.0.1", 0, "service") as url:
        yield url


STEADY = ("steady", "--peak-rps", 200, "--minutes", 0.005)


def test_a_workload_is_sent_and_summed_up(service: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "intervals.csv"
    options = ("--slo-seconds", 5, "--out", out, "--interval-seconds", 0.1, "--json")
    figures = json.loads(said(capsys, "workload", "replay", *STEADY, "--url", service, *options))
    assert (figures["intended"], figures["sent"], figures["answered"]) == (60, 60, 60)
    assert (figures["errors"], figures["late_share"], figures["stopped"]) == ({}, 0, False)
    assert 0 < figures["latency_seconds"]["p50"] <= figures["latency_seconds"]["max"] < 5
    rows = list(csv.DictReader(out.open()))
    assert sum(int(row["intended"]) for row in rows) == 60
    assert {float(row["workload_rps"]) for row in rows[:3]} == {200.0}
    assert "exists already" in refused(capsys, "workload", "replay", *STEADY, "--url", service, "--out", out)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_full_disk_ends_the_intervals_and_not_the_replay(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _Rows(None)
    rows._path = Path("/dev/full")
    rows({"seconds": 0.0})
    rows({"seconds": 1.0})
    assert "no more intervals are written (No space left on device)" in capsys.readouterr().err


def test_what_is_sent_can_be_said(service: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text('{"a": 1}')
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "token").chmod(0o600)
    sending = ("--method", "post", "--body", tmp_path / "body.json", "--token-file", tmp_path / "token")
    text = said(capsys, "workload", "replay", *STEADY, "--url", f"{service}/broken?x=1", *sending, code=0)
    assert "errors: none" in text
    assert Service.seen[-1] == ("POST", "/broken?x=1", b'{"a": 1}', "Bearer t0ken")
    text = said(capsys, "workload", "replay", *STEADY, "--url", f"{service}/broken", code=0)
    assert "60 answered" in text
    assert "errors: status 500 60" in text
    assert "errors: status 302 60" in said(capsys, "workload", "replay", *STEADY, "--url", f"{service}/moved", code=0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--peak-rps", 2000), "--max-rps: the workload asks for up to 2000 requests/s; allowed: 1000"),
        (("--max-open", 0), "--max-open: 0 is not allowed; allowed: 1 to 100000"),
        (("--minutes", "nan"), "--minutes: nan is not allowed"),
        (("--body", "x"), "--body: is not used by GET"),
        (("--method", "TRACE"), "--method: 'TRACE' is not allowed"),
        (("--header", "x"), "--header: 'x' is not allowed; allowed: NAME=VALUE"),
        (("--start-hours", 500), "--start-hours: 500 is not allowed; allowed: below 336"),
        (("--set", "num_stepz=3"), "num_stepz"),
        (("--out", "no-such-folder/a.csv"), "no-such-folder is not a directory"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_a_line(words: tuple, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refused(capsys, "workload", "replay", "steady", "--url", "http://127.0.0.1:1/", *words)


def test_where_nobody_answers_nothing_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workload", "replay", "steady", "--url", "http://127.0.0.1:1/"]) == 1
    assert "http://127.0.0.1:1/: connection refused" in capsys.readouterr().err


def test_connections_that_the_service_has_closed_cost_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    class Closing(Service):
        def do_GET(self) -> None:
            super().do_GET()
            # Without a word of it.
            self.close_connection = True

    with answering(Closing, "127.0.0.1", 0, "closing") as url:
        figures = json.loads(said(capsys, "workload", "replay", *STEADY, "--url", url, "--json"))
    assert (figures["answered"], figures["errors"]) == (60, {})


@pytest.mark.parametrize(
    ("after", "kind"), [(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok?", "not HTTP"), (b"HTTP/1.0 200 OK\r\n\r\n", "timeout")]
)
def test_what_is_given_up_is_gone(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, after: bytes, kind: str
) -> None:
    class Odd(Service):
        def do_GET(self) -> None:
            self.wfile.write(after)
            # Without an end, until we close it.
            self.rfile.read(1)
            self.close_connection = True

    with answering(Odd, "127.0.0.1", 0, "odd") as url:
        options = ("--timeout-seconds", 0.2, "--max-open", 30, "--json")
        assert main([str(word) for word in ("workload", "replay", *STEADY, "--url", url, *options)]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert figures["errors"].pop(kind) == figures["sent"] > 25
    assert figures["answered"] == 0
    assert not caplog.records


def test_more_than_may_be_open_waits_and_its_wait_counts(capsys: pytest.CaptureFixture[str]) -> None:
    release = threading.Event()

    class Slow(Service):
        def do_GET(self) -> None:
            release.wait(0.02)
            super().do_GET()

    with answering(Slow, "127.0.0.1", 0, "slow") as url:
        options = ("--max-open", 1, "--timeout-seconds", 0.3, "--slo-seconds", 0.25, "--json")
        figures = json.loads(said(capsys, "workload", "replay", *STEADY, "--url", url, *options))
    assert figures["intended"] == 60
    assert 0 < figures["answered"] < 40
    assert figures["errors"][NO_TIME] == figures["not_sent"] > 10
    assert figures["answered"] + sum(figures["errors"].values()) == 60
    assert figures["sent_late"] > 5
    assert figures["late_share"] >= figures["not_sent"] / 60
    assert figures["latency_seconds"]["p99"] >= 0.29


def test_a_locust_file_stands_alone_and_has_the_workloads_rates() -> None:
    schedule = Schedule(np.array([20.0, 60.0, 40.0]), 2.0, 5.0)
    text = locustfile(schedule, 'a"""b\\')
    tree = ast.parse(text)
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"locust"}
    assert re.search(r"SECONDS = 5\.0\n.*\nINTERVAL_SECONDS = 2\.0\nRATES_RPS = \[\n    20, 60, 40,\n\]\n", text)


# Its class runs in a process of its own: importing it changes the standard library (gevent).
_ASKED = """
import json, sys, time, types
try:
    import locust
except ModuleNotFoundError:
    sys.exit(77)
spec = types.ModuleType("locustfile")
exec(open(sys.argv[1]).read(), spec.__dict__)
shape = spec.WorkloadShape()
assert isinstance(shape, locust.LoadTestShape)
spec.WorkloadUser.host = "http://127.0.0.1:1"
shape.get_current_user_count = lambda: 3
told = []
for now in (0.0, 1.9, 2.0, 4.9, 5.0):
    shape.get_run_time = lambda now=now: now
    told.append(shape.tick())
user = spec.WorkloadUser(locust.env.Environment())
user.due = time.monotonic()
# A user that was too slow goes on from now.
told += [round(user.wait_time(), 1), round(user.wait_time(), 1)]
user.due = 0.0
told.append(round(user.wait_time(), 1))
print(json.dumps(told))
"""


@pytest.mark.slow
def test_locusts_own_class_follows_the_rates(tmp_path: Path) -> None:
    (tmp_path / "locustfile.py").write_text(locustfile(Schedule(np.array([20.0, 600.0, 40.0]), 2.0, 5.0), "spike"))
    words = [sys.executable, "-c", _ASKED, str(tmp_path / "locustfile.py")]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if answer.returncode == 77:
        pytest.skip("locust is not installed")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1]) == [[20, 17], [20, 17], [600, 597], [40, 37], None, 1.0, 2.0, 0.0]
