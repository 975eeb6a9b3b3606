"""Feeds: an HPA or KEDA is told the newest target, or an error; never a number in place of what is unknown."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from tests.keda_client import Keda, Stubs, asking, certificate, made
from tests.real_kubernetes import until
from tests.unit.test_operate_controller import Bench, Deployment

from scalepilot.errors import ConfigError, InputError
from scalepilot.operate.config import load_service, operate_config
from scalepilot.operate.feeds import FeedContext, Offer, Offers, feed_of, make_feed
from scalepilot.operate.feeds import keda as feeds_keda
from scalepilot.operate.feeds.keda_messages import file_descriptor
from scalepilot.operate.feeds.offer import told_by
from scalepilot.operate.ledger import Ledger
from scalepilot.operate.live.system import live_service
from scalepilot.operate.replay import replayed
from scalepilot.operate.status import status_server

SHOP = FeedContext("shop/web", 15.0, "127.0.0.1:0")


class Told:
    """What a feed is given to tell, and may be changed at any time."""

    def __init__(self, replicas: int | None = 12, problem: str = "") -> None:
        self.offer = Offer(replicas, problem, 1e9)

    def __call__(self) -> Offer:
        return self.offer


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Stubs:
    return made(tmp_path_factory.mktemp("stubs"))


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def url(told: Told) -> Iterator[str]:
    with make_feed({"kind": "keda", "listen": "127.0.0.1:0"}, replace(SHOP, interval_seconds=0.05)).answering(told) as found:
        yield found


@pytest.fixture
def keda(stubs: Stubs, url: str, told: Told) -> Iterator[Keda]:
    told.offer = Offer(12, "", 1e9)
    with asking(stubs, url) as found:
        yield found


def without_json_names(message: Any) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for inner in message.nested_type:
        without_json_names(inner)


def test_the_messages_are_those_of_kedas_interface(stubs: Stubs) -> None:
    ours, theirs = file_descriptor(), stubs.descriptor
    for message in theirs.message_type:
        without_json_names(message)
    assert list(ours.message_type) == list(theirs.message_type)
    ours, theirs = ours.service[0], theirs.service[0]
    for method in theirs.method:
        method.ClearField("options")
    assert ours == theirs


def test_keda_is_told_the_target_in_both_fields(keda: Keda, told: Told) -> None:
    (spec,) = keda.spec().metricSpecs
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == ("desired-replicas", 1, 1.0)
    assert keda.value() == (12, 12.0)
    told.offer = Offer(0, "", 1e9)
    assert keda.value() == (0, 0.0)
    assert keda.scaler.IsActive(keda.reference).result


def test_without_a_decision_the_value_is_an_error_and_everything_else_is_answered(keda: Keda, told: Told) -> None:
    told.offer = Offer(None, "no decision for 300 s (allowed 45 s)")
    assert keda.refused() == ("UNAVAILABLE", "no decision for 300 s (allowed 45 s)")
    assert len(keda.spec().metricSpecs) == 1
    assert keda.scaler.IsActive(keda.reference).result
    told.offer = Offer(13, "", 1e9)
    assert keda.value() == (13, 13.0)


def test_the_streams_begin_at_once_and_agree_with_what_is_asked_for(keda: Keda) -> None:
    active = keda.scaler.StreamIsActive(keda.reference)
    assert [next(active).result for _ in range(3)] == [True] * 3
    specs = keda.scaler.StreamMetricSpec(keda.reference)
    assert next(specs) == keda.spec()
    active.cancel()
    specs.cancel()


def test_streams_that_stay_open_keep_nobody_from_being_answered(stubs: Stubs, url: str, told: Told) -> None:
    with asking(stubs, url) as many:
        streams = [many.scaler.StreamMetricSpec(many.reference) for _ in range(60)]
        assert all(len(next(stream).metricSpecs) == 1 for stream in streams)
        assert many.value()[0] == told.offer.replicas
        for stream in streams:
            stream.cancel()


def test_a_connection_that_says_nothing_is_ended(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**dict(feeds_keda._OPTIONS), "grpc.server_handshake_timeout_ms": 100}
    monkeypatch.setattr(feeds_keda, "_OPTIONS", list(options.items()))
    with make_feed({"kind": "keda", "listen": "127.0.0.1:0"}, SHOP).answering(told) as url:
        host, port = url.removeprefix("grpc://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as silent:
            # What the server says first.
            while silent.recv(1000):
                pass


def test_more_streams_than_keda_opens_are_refused(stubs: Stubs, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalepilot.operate.feeds.keda._MOST_STREAMS", 3)
    with asking(stubs, url) as many:
        streams = [many.scaler.StreamIsActive(many.reference) for _ in range(3)]
        assert all(next(stream).result for stream in streams)
        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            next(many.scaler.StreamMetricSpec(many.reference))
        for stream in streams:
            stream.cancel()
        until(lambda: _streamed(many))


def _streamed(keda: Keda) -> bool:
    stream = keda.scaler.StreamIsActive(keda.reference)
    try:
        return bool(next(stream).result)
    except grpc.RpcError:
        return False
    finally:
        stream.cancel()


def test_another_metric_or_target_gets_no_number(stubs: Stubs, url: str, keda: Keda) -> None:
    assert keda.refused("cpu") == ("INVALID_ARGUMENT", "metricName: 'cpu' is not known; allowed: desired-replicas")
    for wrong, words in (
        ({"target": "shop/api"}, "target: 'shop/api' is not scaled here; allowed: shop/web"),
        ({"target": "", "namespace": "bank"}, "namespace: 'bank' is not scaled here; allowed: shop"),
    ):
        with asking(stubs, url, **wrong) as other:
            assert other.refused() == ("INVALID_ARGUMENT", words)
            with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
                other.scaler.IsActive(other.reference)
            with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
                next(other.scaler.StreamIsActive(other.reference))
            # Without an answer KEDA would make an HPA on CPU.
            assert other.spec() == keda.spec()
    with asking(stubs, url, target="") as unnamed:
        assert unnamed.value() == (12, 12.0)


def test_what_is_no_message_is_an_error_of_that_call_alone(keda: Keda, url: str, caplog: pytest.LogCaptureFixture) -> None:
    with grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            channel.unary_unary("/externalscaler.ExternalScaler/GetMetrics")(b"\xff\xff\xff", timeout=5)
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            channel.unary_unary("/externalscaler.ExternalScaler/Scale")(b"", timeout=5)
    assert keda.value() == (12, 12.0)
    assert caplog.records == []


def test_a_port_of_another_is_refused_and_not_shared(url: str, told: Told) -> None:
    taken = make_feed({"kind": "keda", "listen": url.removeprefix("grpc://")}, SHOP)
    with pytest.raises(InputError, match=r"^feed\.listen: 127\.0\.0\.1:\d+ is not available"), taken.answering(told):
        pass


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A folder with an authority, a server's certificate, a client's, and a stranger's."""
    certificate(tmp_path, "ca", authority=True)
    for name in ("server", "client"):
        certificate(tmp_path, name, "ca")
    certificate(tmp_path, "stranger")
    return tmp_path


def tls(folder: Path, *, clients: bool = True) -> dict[str, Any]:
    keys = {"cert_file": str(folder / "server.crt"), "key_file": str(folder / "server.key")}
    return keys | ({"client_ca_file": str(folder / "ca.crt")} if clients else {})


def test_with_tls_only_clients_of_the_named_authority_are_answered(stubs: Stubs, signed: Path, told: Told) -> None:
    told.offer = Offer(12, "", 1e9)

    def asked(url: str, name: str = "") -> tuple[int, float]:
        pair = [(signed / f"{name}.{ending}").read_bytes() for ending in ("key", "crt")] if name else [None, None]
        credentials = grpc.ssl_channel_credentials((signed / "ca.crt").read_bytes(), *pair)
        with grpc.secure_channel(url.removeprefix("grpcs://"), credentials) as channel:
            return Keda(stubs, channel).value()

    with make_feed({"kind": "keda", "listen": "127.0.0.1:0", **tls(signed)}, SHOP).answering(told) as url:
        assert asked(url, "client") == (12, 12.0)
        for stranger in ("", "stranger"):
            with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
                asked(url, stranger)
        # A new certificate, of a new authority, while it runs.
        certificate(signed, "ca", authority=True)
        certificate(signed, "server", "ca")
        certificate(signed, "client", "ca")
        assert asked(url, "client") == (12, 12.0)


def hpa(url: str, folder: Path, name: str = "", path: str = "") -> httpx2.Response:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if name:
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    with httpx2.Client(verify=context, timeout=5) as client:
        return client.get(f"{url}{path}")


def test_the_hpas_api_has_one_metric_of_one_namespace(signed: Path, told: Told) -> None:
    told.offer = Offer(12, "", 1e9)
    settings = {"kind": "external_metrics", "listen": "127.0.0.1:0", **tls(signed, clients=False)}
    with make_feed(settings, SHOP).answering(told) as url:
        root = url.partition("/namespaces/")[0]
        (resource,) = hpa(root, signed).json()["resources"]
        assert (resource["name"], resource["verbs"]) == ("desired-replicas", ["get"])
        answer = hpa(url, signed)
        (value,) = answer.json()["items"]
        assert (answer.status_code, value["value"], value["timestamp"]) == (200, "12", "2001-09-09T01:46:40Z")
        for wrong, code in (("x", 404), ("?labelSelector=app%3Dweb", 400)):
            found = hpa(url, signed, path=wrong).json()
            assert (found["kind"], found["status"], found["code"]) == ("Status", "Failure", code)
        assert hpa(url.replace("/shop/", "/bank/"), signed).status_code == 404
        told.offer = Offer(None, "holding: request_rate_rps_0: time-out")
        answer = hpa(url, signed)
        assert (answer.status_code, answer.json()["message"]) == (503, "holding: request_rate_rps_0: time-out")
        assert "items" not in answer.json()
        # Whoever speaks no TLS, or says nothing, keeps nobody waiting.
        with pytest.raises(httpx2.TransportError):
            httpx2.get(root.replace("https", "http"), timeout=5)
        silent = socket.create_connection(("127.0.0.1", int(root.split(":")[2].partition("/")[0])))
        # A new certificate, of a new authority, while it runs.
        certificate(signed, "ca", authority=True)
        certificate(signed, "server", "ca")
        assert hpa(url, signed).status_code == 503
        silent.close()


def test_the_hpas_api_can_ask_for_the_api_servers_certificate(signed: Path, told: Told) -> None:
    told.offer = Offer(12, "", 1e9)
    with make_feed({"kind": "external_metrics", "listen": "127.0.0.1:0", **tls(signed)}, SHOP).answering(told) as url:
        assert hpa(url, signed, "client").status_code == 200
        for stranger in ("", "stranger"):
            with pytest.raises(httpx2.TransportError):
                hpa(url, signed, stranger)


def test_a_renewal_within_reach_of_others_is_not_taken_up_and_said_once(
    signed: Path, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.offer = Offer(12, "", 1e9)
    with make_feed({"kind": "external_metrics", "listen": "127.0.0.1:0", **tls(signed)}, SHOP).answering(told) as url:
        certificate(signed, "server", "ca")
        (signed / "server.key").chmod(0o666)
        assert [hpa(url, signed, "client").status_code for _ in range(3)] == [200] * 3
        (line,) = caplog.messages
        assert "others may write there (mode 666)" in line
        assert "the certificate of before stays" in line
        (signed / "server.key").chmod(0o600)
        assert hpa(url, signed, "client").status_code == 200
        assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "kedaa"}, "feed.kind: 'kedaa' is not allowed; allowed: keda, metrics_api, external_metrics"),
        ({}, "feed.kind: None is not allowed"),
        ({"kind": "keda", "listen": "localhost"}, "feed.listen: 'localhost' is not allowed"),
        ({"kind": "keda", "listen": "[::1]:1"}, "feed.listen: '[::1]:1' is not allowed"),
        ({"kind": "keda", "target": "web"}, "target: 'web' is not allowed; allowed: NAMESPACE/NAME"),
        ({"kind": "keda", "target": "shop/api"}, "feed.target: shop/api is not the target, shop/web; allowed: that one, or none"),
        ({"kind": "keda", "max_age_seconds": 0}, "max_age_seconds: 0"),
        ({"kind": "keda", "cert_file": "x"}, "key_file: none given; allowed: cert_file and key_file together"),
        ({"kind": "keda", "client_ca_file": "x"}, "client_ca_file: is of TLS"),
        ({"kind": "keda", "cert_file": "/no", "key_file": "/no"}, "feed.cert_file: /no: cannot be read"),
        ({"kind": "metrics_api", "listen": "127.0.0.1:1"}, "listen"),
        ({"kind": "external_metrics"}, "cert_file"),
    ],
)
def test_what_is_not_allowed_is_said_in_a_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as raised:
        make_feed(settings, SHOP)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_certificates_are_a_pair_and_nobody_elses(signed: Path, told: Told) -> None:
    with pytest.raises(ConfigError, match="are no PEM pair"):
        make_feed({"kind": "keda", **tls(signed), "key_file": str(signed / "client.key")}, SHOP)
    (signed / "server.key").chmod(0o644)
    with pytest.raises(InputError, match=r"feed\.key_file: .* is open to every user"):
        make_feed({"kind": "keda", **tls(signed)}, SHOP)


def test_a_feed_knows_the_kubernetes_object_and_needs_a_door_where_it_has_none() -> None:
    target = {"kind": "kubernetes", "namespace": "shop", "name": "web"}
    assert feed_of(operate_config({"target": target}), 15.0) is None
    config = operate_config({"target": target, "feed": {"kind": "keda"}})
    assert getattr(feed_of(config, 15.0), "_target", "") == "shop/web"
    with pytest.raises(ConfigError, match=r"listen: null is not allowed with feed\.kind metrics_api"):
        feed_of(operate_config({"feed": {"kind": "metrics_api"}, "listen": None}), 15.0)
    with pytest.raises(ConfigError, match=r"does not scale target\.kind 'ray_serve'; allowed: kubernetes, file, none"):
        feed_of(operate_config({"target": {"kind": "ray_serve"}, "feed": {"kind": "keda"}}), 15.0)


def test_who_scales_by_itself_takes_no_feed() -> None:
    config = operate_config({"policy": "hpa", "feed": {"kind": "keda"}})
    with pytest.raises(ConfigError, match="feed: a live environment scales by itself"):
        live_service(config, load_service(config).env, frozenset())


class Fed(Bench):
    """A controller that offers its target, and an autoscaler that does with it what it likes."""

    def __init__(self, tmp_path: Path, *wanted: float, dry_run: bool = False) -> None:
        super().__init__(tmp_path, *wanted, dry_run=dry_run)
        self.service = replace(
            self.service, feeds=load_service(operate_config({"policy": "hpa", "feed": {"kind": "keda"}})).feeds
        )
        self.controller = self.started()
        self.offers = Offers(self.controller, None)


def test_the_target_is_offered_and_never_written(tmp_path: Path) -> None:
    fed = Fed(tmp_path, 10.0)
    assert fed.offers.newest() == Offer(None, "no decision yet")
    fed.target.shown = {"owners": ("HorizontalPodAutoscaler web",)}
    record = fed.step()
    assert (record.mode, record.outcome, fed.target.writes) == ("active", "feed", [])
    assert fed.offers.newest() == Offer(10, "", fed.now)
    # Who reads it scales, in its own steps.
    fed.target.spec = 9
    assert (fed.step().mode, fed.offers.newest().replicas) == ("active", 10)
    fed.target.spec = 10
    assert (fed.step().outcome, fed.offers.newest().replicas) == ("same", 10)
    assert fed.target.writes == []
    text = fed.controller.metrics.text().decode()
    assert 'scalepilot_operate_feed_answers_total{answer="replicas"} 3.0' in text
    assert "scalepilot_operate_writes_total{" not in text


def test_a_decision_that_is_too_old_is_no_number(tmp_path: Path) -> None:
    fed = Fed(tmp_path, 10.0)
    fed.step()
    for seconds, known in ((45.0, True), (1.0, False), (-92.0, False), (2.0, True)):
        fed.now += seconds
        assert (fed.offers.newest().replicas is not None) == known
    fed.now += 1000.0
    assert fed.offers.newest().problem == "no decision for 956 s (allowed 45 s)"


def test_a_clock_that_is_set_back_makes_no_old_decision_new(tmp_path: Path) -> None:
    """The loop hangs for a minute, and meanwhile the clock is set back by one."""
    fed = Fed(tmp_path, 10.0)
    fed.step()
    assert fed.offers.newest().replicas == 10
    fed.controller.decided_at -= 60.0
    assert fed.offers.newest() == Offer(None, "no decision for 60 s (allowed 45 s)", fed.now)
    fed.step()
    assert fed.offers.newest().replicas == 10


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda fed: setattr(fed.telemetry, "error", RuntimeError("away")), "holding: "),
        (lambda fed: setattr(fed.target, "error", RuntimeError("away")), "holding: RuntimeError: away"),
        (lambda fed: fed.controller.pause(True), "paused: at the controller"),
        (lambda fed: setattr(fed.target, "spec", 0), "paused: scaled to zero"),
        (lambda fed: fed.target.shown.update(leading=False, problem="another leads"), "standby: another leads"),
        (lambda fed: setattr(fed.controller, "dry_run", True), "dry run: nothing is offered"),
    ],
)
def test_where_nobody_decides_there_is_no_number(tmp_path: Path, change: Callable[[Fed], None], problem: str) -> None:
    fed = Fed(tmp_path, 10.0)
    fed.step()
    change(fed)
    fed.step()
    offer = fed.offers.newest()
    assert offer.replicas is None
    assert offer.problem.startswith(problem)
    assert fed.target.writes == []


class Shared(Deployment):
    """A target that carries a line from the leader to the others."""

    def __init__(self) -> None:
        super().__init__()
        self.line = ""

    def share(self, text: str) -> None:
        self.line = text

    def shared(self) -> str:
        return self.line


def test_a_standby_repeats_the_leader_and_nothing_else(tmp_path: Path) -> None:
    fed = Fed(tmp_path, 10.0)
    fed.target = fed.controller.target = Shared()
    fed.step()
    told = fed.target.line
    assert told_by(told) == fed.offers.newest() == Offer(10, "", fed.now)
    fed.target.shown = {"leading": False}
    fed.step()
    # It does not speak for the leader; what that one says is what it says, as long as it is young enough.
    assert fed.target.line == told
    assert fed.offers.newest() == Offer(10, "", fed.now - 15.0)
    fed.target.line = Offer(None, "paused: at the controller", fed.now).line()
    assert fed.offers.newest().problem == "paused: at the controller"
    for line in ("", "12", "{}", '{"replicas": true, "problem": "", "decided": 1e9}', told.replace("10", "-1"), told[:-3]):
        fed.target.line = line
        assert fed.offers.newest().problem == "standby: another process leads"
    fed.target.line = told
    fed.step(31.0)
    assert fed.offers.newest().problem == "no decision for 46 s (allowed 45 s)"


def test_a_rule_that_decides_after_long_is_a_decision(tmp_path: Path) -> None:
    fed = Fed(tmp_path, 10.0)
    fed.step()
    read = fed.telemetry.read

    def without_rates(now: float, replicas: Any) -> Any:
        shown = read(now, replicas)
        return replace(shown, readings={n: r for n, r in shown.readings.items() if not n.startswith("request_rate")})

    fed.telemetry.read = without_rates  # type: ignore[method-assign]
    assert fed.step().mode == "holding"
    assert fed.offers.newest().replicas is None
    assert fed.step(400.0).mode == "fallback"
    assert fed.offers.newest().replicas is not None


def test_moves_that_follow_the_feed_are_moves_of_ours_to_the_limits(tmp_path: Path) -> None:
    fed = Fed(tmp_path, 6.0)
    fed.step()
    fed.target.spec = 6
    fed.telemetry.read = late(fed)  # type: ignore[method-assign]
    modes = [fed.step() for _ in range(3)]
    # Late requests grow after the move down: at the third decision it is undone, as if we had written it.
    assert [record.target for record in modes] == [6, 6, 8]
    assert modes[-1].steps[0].rule == "undo"
    assert fed.controller.state.guard.moves[0][1:] == (8, 6)
    again = [(entry.record.target, record.target) for entry, record in replayed(fed.folder, fed.service)]
    assert all(recorded == decided for recorded, decided in again)


def late(fed: Fed) -> Callable[[float, Any], Any]:
    read = fed.telemetry.read

    def found(now: float, replicas: Any) -> Any:
        shown = read(now, replicas)
        readings = {**shown.readings, "late_share": replace(shown.readings["late_share"], value=0.5)}
        return replace(shown, readings=readings)

    return found


def test_without_a_feed_who_else_scales_it_is_no_move_of_ours(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 6.0, dry_run=True)
    bench.step()
    bench.target.spec = 6
    bench.step()
    assert bench.controller.state.guard.moves == ()


def test_the_door_tells_the_number_or_503(tmp_path: Path) -> None:
    fed = Fed(tmp_path, 10.0)

    def asked(url: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"{url}/v1/replicas", timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    with status_server(fed.controller, "127.0.0.1:0", fed.offers) as url:
        assert asked(url) == (503, {"error": "no decision yet"})
        fed.step()
        assert asked(url) == (200, {"replicas": 10, "at": "2001-09-09T01:46:55Z"})
        fed.now += 300.0
        code, body = asked(url)
        assert (code, "replicas" in body) == (503, False)
    with status_server(fed.controller, "127.0.0.1:0") as url:
        assert asked(url)[0] == 404


def test_a_ledger_of_before_is_read(tmp_path: Path) -> None:
    fed = Fed(tmp_path, 10.0)
    fed.step()
    (path,) = fed.folder.glob("*.jsonl")
    line = json.loads(path.read_text())
    del line["state"]["offered"]
    path.write_text(json.dumps(line) + "\n")
    last = Ledger(fed.folder).last(0.0)
    assert last is not None
    assert last.state.offered is None
