"""The redis_farm target with a real Redis, and workers that are processes and pop real tasks."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import dripping, openfaas_standin, real_redis
from tests.openfaas_standin import Standin
from tests.real_kubernetes import until

from scalepilot.errors import ConfigError, InputError
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import WARNING, Target, TargetContext, make_target
from scalepilot.operate.targets.redis_farm import RedisFarmTarget
from scalepilot.operate.twin import Clock
from scalepilot.operate.workflow.connection import RedisDoor, RedisSettings
from scalepilot.operate.workflow.feed import TaskFeed

DATABASES = itertools.count()
ORDERS, ACKS = "worker_control_syn_queue", "worker_control_ack_queue"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with real_redis.running(tmp_path_factory.mktemp("redis"), "--databases", "200") as port:
        yield port


class Farm:
    """A stand-in of the gateway, a database of one's own, and the targets on both."""

    def __init__(self, standin: Standin, password: Path) -> None:
        self.standin, self.password = standin, password
        host, port, database = standin.redis
        self.url = f"redis://{host}:{port}/{database}"
        self.door = RedisDoor(RedisSettings(self.url), "test")
        self.feed = TaskFeed(self.door, clock=standin.clock, pace=standin.clock.pace)
        self.made: list[Target] = []

    def target(self, *, dry_run: bool = False, workers: dict[str, Any] | None = None, **settings: Any) -> Target:
        gateway = {"kind": "openfaas", "url": self.standin.url, "password_file": str(self.password), "image": "worker:1"}
        chosen = {"kind": "redis_farm", "url": self.url, "workers": {**gateway, **(workers or {})}, **settings}
        self.made.append(found := make_target(chosen, TargetContext("a", dry_run, 8.0)))
        return found

    def grown(self, count: int, **settings: Any) -> Target:
        """A target whose workers all serve."""
        target = self.target(**settings)
        assert target.write(count, 0).outcome == "written"
        settled(target, count)
        return target

    def tasks(self, count: int, service: float) -> None:
        """As many, all at once."""
        self.feed.start(np.column_stack([np.zeros(count), np.full(count, service)]))

    def length(self, queue: str) -> int:
        return int(self.door.ask(("LLEN", queue))[0])

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.door.ask(("LRANGE", "output_queue", 0, -1))[0]]

    def none_lost(self, count: int) -> None:
        """Every task is collected, once."""
        until(lambda: self.length("output_queue") >= count)
        assert len({result["task_id"] for result in self.results()}) == self.length("output_queue") == count

    def close(self) -> None:
        self.feed.stop()
        for target in self.made:
            target.close()
        self.door.close()


def settled(target: Target, count: int) -> Replicas:
    """When so many workers are asked for, and serve."""

    def found() -> Replicas | None:
        seen = target.read(time.time())
        return seen if (seen.spec, seen.ready) == (count, count) and not seen.starting_ages_seconds else None

    return until(found)


@pytest.fixture
def farm(redis: int, tmp_path: Path) -> Iterator[Farm]:
    password = tmp_path / "password"
    password.write_text(openfaas_standin.PASSWORD)
    password.chmod(0o600)
    standin = Standin(("127.0.0.1", redis, next(DATABASES)), Clock(10.0))
    with openfaas_standin.running(standin):
        found = Farm(standin, password)
        yield found
        found.close()


def test_workers_are_made_called_and_say_that_they_have_started(farm: Farm) -> None:
    target = farm.target()
    assert target.read(time.time()) == Replicas(0, 0, ())
    done = target.write(3, 0)
    assert (done.outcome, done.replicas) == ("written", 3)
    found = settled(target, 3)
    assert found.problem == ""
    assert {f.invocations for f in farm.standin.functions.values()} == {1}
    assert all(name.startswith("worker-") for name in farm.standin.functions)
    farm.tasks(9, 0.5)
    farm.none_lost(9)
    assert len({result["worker"] for result in farm.results()}) == 3


def test_a_worker_finishes_its_task_before_it_goes(farm: Farm) -> None:
    target = farm.grown(2)
    farm.tasks(2, 5.0)
    until(lambda: farm.length("worker_queue") == 0)
    done = target.write(1, 2)
    assert (done.outcome, done.replicas) == ("written", 1)
    # It counts as gone at once; its process is there, and at work.
    assert target.read(time.time()).spec == 1
    assert len(farm.standin.functions) == 2
    farm.none_lost(2)
    settled(target, 1)
    until(lambda: target.read(time.time()) and len(farm.standin.functions) == 1)
    assert (farm.length(ORDERS), farm.length(ACKS)) == (0, 0)


@pytest.mark.slow
def test_without_the_drain_tasks_are_lost(farm: Farm) -> None:
    """What the drain is for: the stand-in does kill what works."""
    farm.grown(4)
    farm.tasks(8, 3.0)
    until(lambda: farm.length("worker_queue") == 4)
    for name in list(farm.standin.functions)[:2]:
        assert farm.standin.answer("DELETE", "/system/functions", {"functionName": name})[0] == 202
    until(lambda: farm.length("output_queue") == 6)
    time.sleep(0.5)
    assert farm.feed.unfinished() == 2


@pytest.mark.slow
def test_an_acknowledgement_that_was_not_put_down_is_no_loss(farm: Farm) -> None:
    """As if this process had ended between the two."""
    target = farm.grown(2)
    target.write(1, 2)
    until(lambda: farm.length(ACKS) == 1)
    gone = json.loads(farm.door.ask(("LINDEX", ACKS, 0))[0])["pod_name"].rsplit("-", 2)[0]
    farm.standin.answer("DELETE", "/system/functions", {"functionName": gone})
    for _ in range(3):
        found = target.read(time.time())
        assert (found.spec, found.ready, found.problem) == (1, 1, "")
    assert farm.length(ACKS) == 0


@pytest.mark.slow
def test_orders_that_nobody_has_taken_are_taken_back(farm: Farm) -> None:
    target = farm.grown(2)
    farm.tasks(4, 3.0)
    until(lambda: farm.length("worker_queue") == 2)
    assert target.write(0, 2).replicas == 0
    assert farm.length(ORDERS) == 2
    done = target.write(2, 0)
    assert (done.outcome, done.replicas) == ("written", 2)
    assert farm.length(ORDERS) == 0
    assert len(farm.standin.functions) == 2
    farm.none_lost(4)
    assert target.read(time.time()).spec == 2


@pytest.mark.slow
def test_a_restart_knows_what_was_ordered(farm: Farm) -> None:
    first = farm.grown(3)
    farm.tasks(3, 4.0)
    until(lambda: farm.length("worker_queue") == 0)
    first.write(1, 3)
    first.close()
    second = farm.target()
    assert second.read(time.time()).spec == 1
    settled(second, 1)
    farm.none_lost(3)
    until(lambda: second.read(time.time()) and len(farm.standin.functions) == 1)


def test_a_write_on_what_is_no_longer_so_changes_nothing(farm: Farm) -> None:
    target, other = farm.grown(2), farm.target()
    assert other.write(3, 2).outcome == "written"
    done = target.write(5, 2)
    assert (done.outcome, done.replicas, done.detail) == ("refused", 3, "3 workers are asked for, not 2")


@pytest.mark.slow
def test_of_two_that_have_seen_the_same_one_writes(farm: Farm) -> None:
    target, other = farm.grown(2), farm.target()
    assert isinstance(other, RedisFarmTarget)
    seen = other._look()
    target.write(1, 2)
    other._look = lambda: seen  # type: ignore[method-assign]
    assert other.write(1, 2).detail == "another process wrote at the same time"
    assert other.write(3, 2).detail == "another process wrote at the same time"
    assert farm.door.ask(("HLEN", "scalepilot:worker_queue:workers")) == [2]
    settled(target, 1)


def test_of_two_one_calls_a_worker(farm: Farm) -> None:
    """Called twice, it would have two tasks at a time."""
    target, other = farm.target(), farm.target()
    assert isinstance(other, RedisFarmTarget)
    target.write(1, 0)
    seen = other._look()
    target.read(time.time())
    other._look = lambda: seen  # type: ignore[method-assign]
    other.read(time.time())
    assert [deployed.invocations for deployed in farm.standin.functions.values()] == [1]


def test_of_two_none_starts_again_what_the_other_has_removed(farm: Farm) -> None:
    target, other = farm.grown(1), farm.target()
    assert isinstance(other, RedisFarmTarget)
    seen = other._look()
    target.write(0, 1)
    until(lambda: target.read(time.time()) and not farm.standin.functions)
    # What the other knows is older.
    other._look = lambda: replace(seen, listed={})  # type: ignore[method-assign]
    other.read(time.time())
    assert target.read(time.time()).spec == 0


def test_a_page_in_place_of_functions_is_no_farm_without_workers(farm: Farm) -> None:
    target = farm.target()
    target.write(1, 0)
    # With the text "the reason".
    farm.standin.fail["/system/functions"] = 200
    found = target.read(time.time())
    assert (found.spec, found.problem) == (None, "gateway: HTTP 200: answered no JSON: the reason")
    farm.standin.fail.clear()
    assert (target.read(time.time()).spec, len(farm.standin.functions)) == (1, 1)


@pytest.mark.slow
def test_a_dry_run_changes_nothing(farm: Farm) -> None:
    target = farm.grown(2)
    target.write(1, 2)
    until(lambda: farm.length(ACKS) == 1)
    watching = farm.target(dry_run=True)
    before = len(farm.standin.asked)
    assert watching.read(time.time()).spec == 1
    assert watching.write(5, 1).outcome == "forbidden"
    assert watching.check(dry_run=True) == []
    assert {method for method, _, _ in farm.standin.asked[before:]} == {"GET"}
    assert farm.length(ACKS) == 1


@pytest.mark.slow
def test_a_worker_is_called_once_it_is_up_and_never_twice(farm: Farm) -> None:
    farm.standin.start_seconds = 0.4
    target = farm.target()
    target.write(1, 0)
    for _ in range(3):
        found = target.read(time.time())
        assert (found.spec, found.ready, len(found.starting_ages_seconds or ())) == (1, 0, 1)
    settled(target, 1)
    (function,) = farm.standin.functions.values()
    assert function.invocations == 1


@pytest.mark.slow
def test_a_call_that_is_refused_is_made_again(farm: Farm) -> None:
    farm.standin.fail["/async-function"] = 404
    target = farm.target()
    target.write(1, 0)
    found = target.read(time.time())
    assert (found.ready, found.problem.split(": ", 1)[1]) == (0, "HTTP 404: the reason")
    farm.standin.fail.clear()
    settled(target, 1)


@pytest.mark.slow
def test_a_worker_that_never_says_that_it_has_started_is_told(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalepilot.operate.targets.farm_state._SILENT_SECONDS", 0.1)
    farm.standin.says_started = False
    target = farm.target()
    target.write(1, 0)
    target.read(time.time())
    time.sleep(0.15)
    found = target.read(time.time())
    assert (found.spec, found.ready) == (1, 0)
    assert "1 workers were called and do not say that they have started: worker-" in found.problem
    # Where workers do not say so, a call is taken for a start.
    silent = farm.target(queues={"started": None})
    assert silent.read(time.time()).ready == 1


@pytest.mark.slow
def test_no_more_workers_than_the_gateway_allows(farm: Farm) -> None:
    farm.standin.most_functions = 3
    target = farm.target()
    done = target.write(5, 0)
    assert (done.outcome, done.replicas) == ("written", 3)
    assert "no more than 3 functions" in done.detail
    settled(target, 3)
    assert target.write(5, 3).outcome == "refused"
    assert target.read(time.time()).spec == 3


@pytest.mark.slow
def test_a_worker_that_never_came_is_asked_for_again(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalepilot.operate.targets.farm_state._COMES_SECONDS", 0.1)
    monkeypatch.setattr("scalepilot.operate.targets.door.SECONDS", 0.2)
    target = farm.target()
    answer = farm.standin.answer

    def lost(method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST" and path == "/system/functions":
            time.sleep(0.3)
            return 500, "lost"
        return answer(method, path, body)

    monkeypatch.setattr(farm.standin, "answer", lost)
    done = target.write(1, 0)
    assert (done.outcome, done.replicas) == ("written", 1)
    assert target.read(time.time()).spec == 1
    monkeypatch.setattr(farm.standin, "answer", answer)
    settled(target, 1)


@pytest.mark.slow
def test_an_order_that_was_taken_by_one_that_died_is_given_up(farm: Farm) -> None:
    target = farm.grown(2, drain_seconds=1)
    farm.tasks(2, 60.0)
    until(lambda: farm.length("worker_queue") == 0)
    target.write(1, 2)
    # One takes the order and dies of it.
    farm.door.ask(("RPOP", ORDERS))
    assert target.read(time.time()).spec == 1
    time.sleep(1.1)
    assert "1 orders to go were taken more than 1 s ago" in target.read(time.time()).problem
    assert target.read(time.time()).spec == 2
    assert len(farm.standin.functions) == 2


def test_a_clock_that_was_set_back_and_what_is_none_of_ours(farm: Farm) -> None:
    target, keys = farm.target(drain_seconds=5), "scalepilot:worker_queue"
    farm.door.ask(("HSET", f"{keys}:orders", "a", time.time() + 3600, "b", "soon"))
    farm.door.ask(("HSET", f"{keys}:workers", "worker-x", "x y", "worker-\x1b", "made soon"))
    # Milliseconds.
    farm.door.ask(("SET", "workflow:program_start_time", 1000 * time.time()))
    found = target.read(time.time())
    assert (found.spec, found.starting_ages_seconds) == (0, ())
    assert found.problem == "1 orders to go were taken more than 5 s ago and never acknowledged"
    assert target.read(time.time()).problem == ""


@pytest.mark.slow
def test_a_worker_that_vanishes_is_started_again(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalepilot.operate.targets.farm_state._COMES_SECONDS", 0.2)
    target = farm.grown(3)
    lost, kept, _ = farm.standin.functions
    farm.standin.answer("DELETE", "/system/functions", {"functionName": lost})
    hidden = farm.standin.functions.pop(kept)
    # It still counts: nobody has asked for fewer.
    assert target.read(time.time()).spec == 3
    farm.standin.functions[kept] = hidden
    found = target.read(time.time())
    assert (found.spec, found.ready) == (3, 1)
    assert f"2 workers have vanished, and are started again: {', '.join(sorted((lost, kept)))}" == found.problem
    settled(target, 3)
    # One that was merely not shown for a moment is not called again.
    assert {name: f.invocations for name, f in farm.standin.functions.items()}[kept] == 1


@pytest.mark.slow
def test_orders_without_workers_do_not_end_new_ones(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalepilot.operate.targets.farm_state._COMES_SECONDS", 0.2)
    target = farm.grown(2)
    farm.tasks(4, 3.0)
    until(lambda: farm.length("worker_queue") == 2)
    target.write(0, 2)
    for name in list(farm.standin.functions):
        farm.standin.answer("DELETE", "/system/functions", {"functionName": name})
    assert target.read(time.time()).spec == 0
    target.write(2, 0)
    settled(target, 2)
    assert farm.length(ORDERS) == 0


@pytest.mark.slow
def test_workers_that_others_have_started_count(farm: Farm) -> None:
    farm.standin.answer("POST", "/system/functions", {"service": "worker-7", "image": "worker:1"})
    farm.standin.answer("POST", "/system/functions", {"service": "emitter", "image": "emitter:1"})
    farm.standin.answer("POST", "/async-function/worker-7.openfaas-fn", {})
    target = farm.target()
    assert target.read(time.time()).spec == 1
    (line,) = target.check(dry_run=False)
    assert line == f"{WARNING}1 workers were not started here, and are taken to run: worker-7"
    target.write(0, 1)
    until(lambda: target.read(time.time()) and set(farm.standin.functions) == {"emitter"})


@pytest.mark.slow
def test_messages_of_others_are_left_where_they_are(farm: Farm) -> None:
    target = farm.grown(1)
    farm.door.ask(("LPUSH", ACKS, "no JSON", json.dumps({"type": "TERMINATE", "action": "ACK"}), json.dumps([1])))
    farm.door.ask(("LPUSH", "worker_start_queue", json.dumps({"pod_name": "stranger-1"})))
    farm.door.ask(("LPUSH", ORDERS, "{}"))
    assert target.read(time.time()).problem in ("", "1 orders to go were not given here")
    assert target.read(time.time()).spec == 1
    assert (farm.length(ACKS), farm.length("worker_start_queue")) == (3, 1)


@pytest.mark.slow
def test_what_a_worker_is_called_with(farm: Farm) -> None:
    farm.feed.start(np.zeros((0, 2)))
    farm.grown(1, workers={"payload": {"wait_time": 0.1}, "deployment": {"labels": {"tier": "farm"}}})
    (body,) = [body for _, path, body in farm.standin.asked if path.startswith("/async-function")]
    assert body["worker_queue_name"] == "worker_queue"
    assert body["worker_control_ack_queue_name"] == ACKS
    assert (body["wait_time"], body["program_start_time"][:4].isdigit()) == (0.1, True)
    (function,) = farm.standin.functions.values()
    assert function.body["labels"] == {"tier": "farm"}
    assert function.body.keys() == {"service", "image", "namespace", "labels"}


@pytest.mark.slow
def test_without_redis_or_the_gateway_nothing_is_known(farm: Farm, tmp_path: Path) -> None:
    target = farm.grown(1)
    farm.standin.fail["/system"] = 500
    found = target.read(time.time())
    assert (found.spec, found.problem) == (None, "gateway: HTTP 500: the reason")
    assert target.write(3, 1).outcome == "refused"
    nowhere = farm.target(url="redis://127.0.0.1:1")
    assert "redis redis://127.0.0.1:1: " in nowhere.read(time.time()).problem
    assert nowhere.check(dry_run=True)[0].startswith("redis redis://127.0.0.1:1: ")


@pytest.mark.slow
def test_a_redis_that_hangs_holds_nobody_up(farm: Farm, tmp_path: Path) -> None:
    with real_redis.running(tmp_path) as port:
        target = farm.target(url=f"redis://127.0.0.1:{port}")
        assert target.read(time.time()).spec == 0
        process = int(RedisDoor(RedisSettings(f"redis://127.0.0.1:{port}"), "test").ask(("INFO", "server"))[0]["process_id"])
        os.kill(process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            found = target.read(time.time())
            assert found.spec is None
            assert "imed out" in found.problem or "imeout" in found.problem
            assert time.monotonic() - began < 2.5
        finally:
            os.kill(process, signal.SIGCONT)
        assert until(lambda: target.read(time.time()).spec == 0)


@pytest.mark.slow
def test_a_redis_that_sends_a_little_now_and_then_holds_nobody_up(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalepilot.operate.workflow.connection._ANSWER_SECONDS", 0.2)
    with dripping.server(b"+OK\r\n" + b"+QUEUED\r\n" * 7 + b"*7\r\n$1000\r\n") as port:
        target = farm.target(url=f"redis://127.0.0.1:{port}")
        began = time.monotonic()
        for _ in range(2):
            assert "no answer within 0.2 s" in target.read(time.time()).problem
        assert time.monotonic() - began < 1.5


def test_by_commands_of_ones_own(farm: Farm, tmp_path: Path) -> None:
    script = tmp_path / "worker"
    worker = openfaas_standin.WORKER
    spec = {"kind": "worker", "redis": farm.standin.redis, "pace": 10.0, "clock": [0, 0], "says_started": True}
    script.write_text(
        f"""#!/bin/sh
cd {tmp_path}
case $1 in
start) echo "$WORKER_PAYLOAD" > payload; spec=$(printf '%s' '{json.dumps(spec)}' | sed 's/}}$/, "pod_name": "'$2'"}}/')
  {openfaas_standin.sys.executable} -I -S {worker} "$spec" & echo $! > "pid-$2" ;;
all) ls | sed -n 's/^pid-//p' ;;
remove) kill -9 $(cat "pid-$2"); rm "pid-$2" ;;
esac
"""
    )
    script.chmod(0o700)
    commands = {"kind": "command", **{key: [str(script), key] for key in ("start", "all", "remove")}}
    chosen = {"kind": "redis_farm", "url": farm.url, "workers": commands}
    target = make_target(chosen, TargetContext("a", False, 8.0))
    target.write(2, 0)
    settled(target, 2)
    assert json.loads((tmp_path / "payload").read_text())["result_queue_name"] == "result_queue"
    farm.tasks(6, 1.0)
    until(lambda: farm.length("worker_queue") < 4)
    target.write(0, 2)
    farm_left = until(lambda: target.read(time.time()) and not list(tmp_path.glob("pid-*")) and [farm.length("worker_queue")])
    farm.none_lost(6 - farm_left[0])
    script.chmod(0o777)
    with pytest.raises(InputError, match=r"target.workers.start: .*others may write"):
        make_target(chosen, TargetContext("a", False, 8.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "redis://:secret@127.0.0.1"}, "url: holds a user or a password"),
        ({"url": "http://127.0.0.1"}, "url: 'http://127.0.0.1' is not allowed"),
        ({"url": "redis://127.0.0.1/one"}, "url: 'redis://127.0.0.1/one' is not allowed"),
        ({"ca_file": "ca.pem"}, "ca_file: is not used by redis://"),
        ({"user": "pilot"}, "user: is not used without password_file"),
        ({"queues": {"order": "worker_queue"}}, "one is empty or twice there"),
        ({"queues": {"input": "worker_queue:enqueued_total"}}, "one is empty or twice there"),
        ({"queues": {"order": "scalepilot:worker_queue:orders"}}, "one begins with scalepilot:"),
        ({"workers": {"kind": "pods"}}, "target.workers.kind: 'pods' is not allowed; allowed: openfaas, command"),
        ({"workers": {"image": ""}}, "image: is missing"),
        ({"workers": {"deployment": {"image": "x"}}}, "deployment.image: is not allowed"),
        ({"drain_seconds": 0}, "drain_seconds"),
    ],
)
def test_settings_that_are_not_allowed(settings: dict[str, Any], message: str) -> None:
    workers = {"kind": "openfaas", "image": "worker:1", **settings.pop("workers", {})}
    with pytest.raises(ConfigError, match=message):
        make_target({"kind": "redis_farm", "workers": workers, **settings}, TargetContext("a", False, 8.0))


@pytest.mark.slow
def test_a_password_and_tls(farm: Farm, tmp_path: Path) -> None:
    from tests.keda_client import certificate

    password = tmp_path / "redis-password"
    password.write_text("sesame\n")
    password.chmod(0o600)
    certificate(tmp_path, "redis", authority=True)
    tls = real_redis.free_port()
    options = ("--requirepass", "sesame", "--tls-port", str(tls), "--tls-cert-file", str(tmp_path / "redis.crt"))
    with real_redis.running(tmp_path, *options, "--tls-key-file", str(tmp_path / "redis.key"), "--tls-auth-clients", "no"):
        url = f"rediss://localhost:{tls}"
        good = farm.target(url=url, ca_file=str(tmp_path / "redis.crt"), password_file=str(password))
        assert good.read(time.time()).spec == 0
        assert "uthentication" in farm.target(url=url, ca_file=str(tmp_path / "redis.crt")).read(time.time()).problem
        # Not one of the system's authorities.
        assert "ertificate" in farm.target(url=url, password_file=str(password)).read(time.time()).problem
        password.write_text("another\n")
        assert good.read(time.time()).spec == 0


@pytest.mark.slow
def test_what_a_redis_user_may_and_must(farm: Farm, tmp_path: Path) -> None:
    password = tmp_path / "redis-password"
    password.write_text("sesame")
    password.chmod(0o600)
    farm.grown(2)
    farm.door.ask(("ACL", "SETUSER", "pilot", "on", ">sesame", "~*", "+@read", "+select", "+multi", "+exec", "+discard"))
    target = farm.target(user="pilot", password_file=str(password))
    assert target.read(time.time()).spec == 2
    done = target.write(1, 2)
    assert (done.outcome, "no permissions to run the 'eval' command" in done.detail) == ("forbidden", True)
    assert target.check(dry_run=True) == []
    assert "no permissions to run the 'hdel' command" in target.check(dry_run=False)[0]
    assert farm.length(ORDERS) == 0
    # The page says what it takes.
    page = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()
    rights = re.findall(r"`(\+[a-z+ ]+)`", page)
    assert len(rights) == 2
    farm.door.ask(("ACL", "SETUSER", "pilot", "-@all", *" ".join(rights).split()))
    assert target.check(dry_run=False) == []
    assert target.write(3, 2).outcome == "written"
    settled(target, 3)
    assert target.write(1, 3).outcome == "written"
    settled(target, 1)
    assert target.write(2, 1).outcome == "written"
    until(lambda: target.read(time.time()).ready == 2 and farm.length(ACKS) == 0)
    # A connection is not used before whoever asks is known.
    password.chmod(0o644)
    farm.door.ask(("CLIENT", "KILL", "USER", "pilot"))
    for _ in range(2):
        assert "open to every user" in target.read(time.time()).problem


@pytest.mark.slow
def test_one_function_with_many_replicas_works_on_the_same_queue(farm: Farm) -> None:
    """The openfaas target, with workers that finish their task when they are stopped, as a function may."""
    farm.standin.answer("POST", "/system/functions", {"service": "worker", "image": "worker:1", "labels": {"works": "true"}})
    chosen = {"kind": "openfaas", "url": farm.standin.url, "function": "worker", "password_file": str(farm.password)}
    target = make_target(chosen, TargetContext("a", False, 8.0))
    assert target.write(4, 1).replicas == 4
    # On a busy machine the first may have done everything before the others have begun.
    until(lambda: farm.length("worker_start_queue") == 4)
    farm.tasks(12, 2.0)
    until(lambda: farm.length("worker_queue") <= 4)
    assert target.write(1, 4).replicas == 1
    farm.none_lost(12)
    assert len({result["worker"] for result in farm.results()}) == 4
    target.close()
