"""What the server and the training take from a place that another user could change is refused: each kind, where it is used."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.second_user import OTHER, needs_root

from scalepilot.cli import main
from scalepilot.cluster.ray_internals import check_token, close_replica_port, cluster_address, make_token, on_loopback, ray_folder
from scalepilot.config import config_from_mapping
from scalepilot.errors import InputError
from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyStore, load_serve_config, serve_config
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.watch import PolicyWatcher
from scalepilot.serve.http.keys import ApiKeys, read_keys
from scalepilot.serve.ingress.ingress import choose_ingress, set_environment
from scalepilot_envs.autoscale import AutoscaleParams

KEY = "k" * 20


def policy(folder: Path, version: str = "1") -> Path:
    save_policy(make_rule("static", AutoscaleParams(), {"replicas": 3}, name="shop", version=version), folder)
    return folder


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """An empty watched folder with 0755."""
    (tmp_path / "watched").mkdir(mode=0o755)
    return tmp_path / "watched"


def look(folder: Path, times: int = 1) -> list[str]:
    """Which versions are served after some looks, by name."""
    store = PolicyStore([], may_be_empty=True)
    watcher = PolicyWatcher(store, serve_config({"watch": str(folder)}))
    for _ in range(times):
        watcher.look()
    return sorted(served.reference for served in store)


def test_an_open_folder_of_one_name_an_open_file_or_a_link_out_is_not_served(
    watched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="scalepilot.serve")
    (watched / "open-name").mkdir()
    (watched / "open-name").chmod(0o777)
    policy(watched / "open-name" / "1", "1")
    policy(watched / "open-version", "2").chmod(0o777)
    (policy(watched / "open-file", "3") / "policy.json").chmod(0o666)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside").chmod(0o777)
    policy(tmp_path / "outside" / "p", "4")
    (watched / "link-out").symlink_to(tmp_path / "outside" / "p")
    policy(watched / "good", "5")
    assert look(watched) == ["shop@5"]
    reasons = [record.reason for record in caplog.records if getattr(record, "event", "") == "policy_refused"]
    assert len(reasons) == 4
    assert all("others may write there (mode " in reason for reason in reasons)


def test_a_refused_folder_is_served_once_it_is_closed_though_no_file_changed(watched: Path) -> None:
    name = watched / "name"
    name.mkdir()
    policy(name / "1")
    name.chmod(0o777)
    store = PolicyStore([], may_be_empty=True)
    watcher = PolicyWatcher(store, serve_config({"watch": str(watched)}))
    watcher.look()
    assert not list(store)
    name.chmod(0o755)
    watcher.look()
    watcher.look()
    assert [served.reference for served in store] == ["shop@1"]


def test_a_folder_above_the_watched_one_that_others_may_write_to_is_refused(watched: Path, tmp_path: Path) -> None:
    from scalepilot.serve.catalogue.watch import check_watched

    check_watched(watched)
    tmp_path.chmod(0o777)
    with pytest.raises(InputError, match=f"watch: {tmp_path}: others may write there"):
        check_watched(watched)


def test_open_routes_change_nothing(watched: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="scalepilot.serve")
    policy(watched / "1", "1")
    policy(watched / "2", "2")
    routes = watched / "routes.yaml"
    routes.write_text("shop: {default: '1'}\n")
    routes.chmod(0o666)
    store = PolicyStore([], may_be_empty=True)
    PolicyWatcher(store, serve_config({"watch": str(watched)})).look()
    assert store.get("shop").spec.version == "2"
    assert "others may write there (mode 666)" in caplog.records[-1].reason


def test_an_open_serve_yaml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("watch: policies\n")
    assert load_serve_config(file).watch == str(tmp_path / "policies")
    file.chmod(0o666)
    with pytest.raises(InputError, match=f"config: {file}: others may write there"):
        load_serve_config(file)


def test_a_named_policy_is_checked_like_a_watched_one(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> None:
    folder = tmp_path / "tiny"
    save_policy(tiny_network(), folder)
    ServedPolicy.load(folder)
    (folder / "model.onnx").chmod(0o646)
    with pytest.raises(InputError, match=f"policies: {folder / 'model.onnx'}: others may write there"):
        ServedPolicy.load(folder)


@needs_root
def test_another_users_policy_keys_and_haproxy_are_refused(
    watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(policy(watched / "his") / "policy.json", OTHER, -1)
    assert look(watched) == []
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    os.chown(keys, OTHER, -1)
    with pytest.raises(InputError, match=f"api_key_file: {keys}: belongs to user {OTHER}, you are user 0"):
        read_keys(keys)
    binary = tmp_path / "haproxy"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    os.chown(binary, OTHER, -1)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(binary))
    with pytest.raises(InputError, match=f"ingress: HAProxy: {binary}: belongs to user {OTHER}"):
        choose_ingress("auto")


def test_keys_that_others_may_write_are_refused_and_the_old_ones_go_on(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    known = ApiKeys(keys, look_seconds=0.0)
    keys.write_text("x" * 20)
    keys.chmod(0o602)
    known.check([(b"x-api-key", KEY.encode())])
    with pytest.raises(InputError, match=r"others may write there \(mode 602\)"):
        read_keys(keys)


def test_a_replica_that_starts_after_the_key_file_is_gone_knows_the_keys_read_last(tmp_path: Path) -> None:
    keys, shared = tmp_path / "keys", tmp_path / "shared"
    shared.mkdir()
    keys.write_text(KEY)
    keys.chmod(0o600)
    ApiKeys(keys, remembered_in=shared)
    keys.write_text("y" * 20)
    first = ApiKeys(keys, look_seconds=0.0, remembered_in=shared)
    keys.write_text("z" * 20)
    first.check([(b"x-api-key", b"z" * 20)])
    keys.unlink()
    again = ApiKeys(keys, remembered_in=shared)
    again.check([(b"x-api-key", b"z" * 20)])
    for old in (KEY, "y" * 20):
        with pytest.raises(Exception, match="is not valid"):
            again.check([(b"x-api-key", old.encode())])
    with pytest.raises(InputError, match="cannot be read"):
        ApiKeys(keys)


def test_an_operators_own_haproxy_is_run_by_our_script_and_refused_where_others_may_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "bin" / "haproxy"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(binary))
    environment = dict(os.environ)
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    set_environment(serve_config({"ingress": "haproxy"}), folder, environment)
    script = Path(environment["RAY_SERVE_HAPROXY_BINARY_PATH"])
    assert script == folder / "ha" / "haproxy"
    assert str(binary) in script.read_text()
    (tmp_path / "config").write_text("")
    binary.parent.chmod(0o777)
    with pytest.raises(InputError, match=f"ingress: HAProxy: {binary.parent}: others may write there"):
        choose_ingress("haproxy")
    import subprocess

    ended = subprocess.run([script, "-f", tmp_path / "config"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"HAProxy: {binary.parent}: others may write there (mode 777); allowed: chmod go-w\n"


def test_haproxys_places_of_an_operator_are_checked(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    environment = {"RAY_SERVE_HAPROXY_SOCKET_PATH": str(place / "admin.sock")}
    if choose_ingress("auto") == "plain":
        pytest.skip("no HAProxy here")
    with pytest.raises(InputError, match=f"RAY_SERVE_HAPROXY_SOCKET_PATH: {place}: others may write there"):
        set_environment(serve_config({"ingress": "haproxy"}), tmp_path, environment)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and no token in the environment."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_rays_token_is_closed_with_a_line_and_refused_where_others_may_write_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_token()
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    check_token()
    assert token.stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().err
    assert said.startswith(f"Ray's token: {token}: was open to other users (mode 644), is now 600")
    assert said.count("\n") == 1
    check_token()
    assert capsys.readouterr().err == ""
    token.chmod(0o666)
    with pytest.raises(InputError, match=f"Ray's token: {token}: others may write there"):
        check_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with pytest.raises(InputError, match=f"RAY_AUTH_TOKEN_PATH: {token}: others may write there"):
        check_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "none"))
    with pytest.raises(InputError, match=r"RAY_AUTH_TOKEN_PATH: .*none: cannot be read"):
        check_token()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    check_token()


def test_a_cluster_of_our_own_has_a_token_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    make_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not (home / ".ray").exists()


def test_rays_files_go_into_a_folder_that_only_this_user_can_open(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(home))
    inner = ray_folder(home / "unused")
    assert inner == home / f"sp-{os.geteuid()}" / "r"
    assert inner.parent.stat().st_mode & 0o777 == 0o700
    inner.parent.chmod(0o777)
    with pytest.raises(InputError, match=f"RAY_TMPDIR: {inner.parent}: others may write there"):
        ray_folder()
    inner.parent.chmod(0o700)
    home.chmod(0o777)
    with pytest.raises(InputError, match=f"RAY_TMPDIR: {home}: others may write there"):
        ray_folder()
    monkeypatch.delenv("RAY_TMPDIR")
    assert ray_folder().parent.parent == Path("/tmp")


def test_a_module_of_a_users_own_environments_is_checked_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    module = folder / "envs_of_a_user.py"
    module.write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(folder))
    module.chmod(0o666)
    for env_id, listed, what in (
        ("Mine-v0", "envs_of_a_user", "SCALEPILOT_ENV_MODULES: envs_of_a_user"),
        ("envs_of_a_user:Mine-v0", "", "env: envs_of_a_user"),
    ):
        monkeypatch.setenv("SCALEPILOT_ENV_MODULES", listed)
        with pytest.raises(InputError, match=f"{what}: {module}: others may write there"):
            config_from_mapping({"env": {"id": env_id}})
    with pytest.raises(InputError, match=f"env: envs_of_a_user: {module}: others may write there"):
        config_from_mapping({"env": {"id": "CartPole-v1", "wrappers": ["envs_of_a_user:Wrapper"]}})
    monkeypatch.setenv("SCALEPILOT_ENV_MODULES", "envs_of_a_user")
    assert main(["env", "list"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"scalepilot env: SCALEPILOT_ENV_MODULES: envs_of_a_user: {module}: others may write there")


def test_auto_is_the_cluster_of_this_user_and_nobody_elses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(home))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_address("10.0.0.5:6379") == "10.0.0.5:6379"
    with pytest.raises(InputError, match=r"address: 'auto': .*ray_current_cluster cannot be read .*allowed: HOST:PORT"):
        cluster_address("auto")
    file = home / "ray_current_cluster"
    file.write_text("10.0.0.6:6379\n")
    assert cluster_address("auto") == "10.0.0.6:6379"
    file.chmod(0o666)
    with pytest.raises(InputError, match="is another user's, or open to others"):
        cluster_address("auto")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    assert cluster_address("auto") == "10.0.0.7:6379"


def test_what_is_changed_in_ray_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = pytest.importorskip("ray.serve._private.replica")
    from ray._private import ray_constants, services
    from ray.serve._private import constants

    assert 'add_port_to_grpc_server(self._server, "[::]:0")' in inspect.getsource(replica.Replica._on_initialized)
    monkeypatch.setattr(replica, "add_port_to_grpc_server", replica.add_port_to_grpc_server)
    monkeypatch.setattr(constants, "RAY_SERVE_USE_GRPC_BY_DEFAULT", True)
    before = replica.add_port_to_grpc_server
    close_replica_port()
    assert replica.add_port_to_grpc_server is before, "handles need it"
    monkeypatch.setattr(constants, "RAY_SERVE_USE_GRPC_BY_DEFAULT", False)
    close_replica_port()
    assert replica.add_port_to_grpc_server(None, "[::]:0") == 0
    with on_loopback():
        assert ray_constants.ENABLE_RAY_CLUSTER is False
        assert "ENABLE_RAY_CLUSTER" in inspect.getsource(services.get_node_ip_address)
    assert ray_constants.ENABLE_RAY_CLUSTER is True or sys.platform == "darwin"
