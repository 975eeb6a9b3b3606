"""Every private name of Ray that we take is still there, and none is taken anywhere else than where it is listed."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scalepilot.cluster import ray_internals
from scalepilot.serve import serve_config
from scalepilot.serve.ingress.ingress import choose_ingress, set_environment

PLATFORM = Path(ray_internals.__file__).parents[1]
# What the subclasses of RLlib's classes inherit: attribute → the module of Ray that defines it.
INHERITED = {
    "_check_component": "rllib/utils/checkpoints.py",
    "_check_is_built": "rllib/core/learner/learner.py",
    "_device": "rllib/core/learner/torch/torch_learner.py",
    "_forward": "rllib/core/rl_module/rl_module.py",
    "_forward_train": "rllib/core/rl_module/rl_module.py",
    "_named_optimizers": "rllib/core/learner/learner.py",
    "_weights_seq_no": "rllib/env/single_agent_env_runner.py",
    "_increase_sampled_metrics": "rllib/env/single_agent_env_runner.py",
    "_log_episode_metrics": "rllib/env/single_agent_env_runner.py",
    "_needs_initial_reset": "rllib/env/single_agent_env_runner.py",
}


@pytest.fixture(scope="module")
def ray_folder() -> Path:
    found = importlib.util.find_spec("ray")
    if found is None or found.origin is None:
        pytest.skip("ray is not installed")
    return Path(found.origin).parent


def modules() -> Iterator[Path]:
    return PLATFORM.rglob("*.py")


def test_private_modules_of_ray_are_named_in_one_file() -> None:
    named = {file.name for file in modules() if re.search(r"\bray(\.\w+)*\._|\"ray\._", file.read_text(encoding="utf-8"))}
    assert named == {"ray_internals.py"}


def test_the_session_folder_and_the_temporary_one_are_still_rays(ray_folder: Path) -> None:
    worker = (ray_folder / "_private" / "worker.py").read_text()
    assert re.search(r"^global_worker\b", worker, re.MULTILINE)
    assert '"_temp_dir"' in worker or "_temp_dir:" in worker
    assert "def get_session_dir_path(self)" in (ray_folder / "_private" / "node.py").read_text()


def test_a_node_is_started_without_its_helpers_within_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    node = pytest.importorskip("ray._private.node").Node
    started: list[str] = []
    for name in ("gcs_server", "monitor", "log_monitor", "api_server"):
        monkeypatch.setattr(node, f"start_{name}", lambda _self, name=name, **_options: started.append(name))
    for name in ("get_gcs_client", "_write_cluster_info_to_kv"):
        monkeypatch.setattr(node, name, lambda _self: True)
    head = object.__new__(node)
    head._gcs_address = head._gcs_client = None
    head._logs_dir = ""
    head._ray_params = SimpleNamespace(no_monitor=False, ray_client_server_port=None, include_dashboard=False)
    with ray_internals.without_helpers():
        head.start_head_processes()
    assert started == ["gcs_server"]
    head.start_head_processes()
    # The log monitor is started with the processes of every node.
    assert started[1:] == ["gcs_server", "monitor", "api_server"]
    assert "self.start_log_monitor()" in inspect.getsource(node.start_ray_processes)


def test_a_token_is_read_again_by_the_call_that_we_make() -> None:
    raylet = pytest.importorskip("ray._raylet")
    assert callable(raylet.Config.initialize)
    assert "Config.initialize" in inspect.getsource(ray_internals.use_token)


@pytest.mark.parametrize("ingress", ["haproxy", "plain"])
def test_every_variable_that_serve_is_told_is_one_it_reads(ray_folder: Path, tmp_path: Path, ingress: str) -> None:
    if choose_ingress("auto") == "plain" and ingress == "haproxy":
        pytest.skip("no HAProxy here")
    environment: dict[str, str] = {}
    set_environment(serve_config({"ingress": ingress}), tmp_path, environment)
    texts = [
        file.read_text(encoding="utf-8")
        for folder in ("serve/_private", "_private")
        for file in (ray_folder / folder).rglob("*.py")
    ]
    own = {name for name in environment if name.startswith("SCALEPILOT_")}
    unknown = {name for name in environment.keys() - own if not any(f'"{name}"' in text for text in texts)}
    assert unknown == set(), "Ray Serve reads no variable of this name"


def test_what_subclasses_of_rllibs_classes_inherit_is_listed_and_still_there(ray_folder: Path) -> None:
    used, own = set(), set()
    for file in (PLATFORM / "learn" / "rllib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                (own if isinstance(node.ctx, ast.Store) else used).add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                own.add(node.target.id)
    taken = {name for name in used - own if re.fullmatch(r"_[a-z]\w+", name)}
    assert taken <= set(INHERITED), "a private name of RLlib's that is not listed here"
    for name, module in INHERITED.items():
        text = (ray_folder / module).read_text(encoding="utf-8")
        assert re.search(rf"def {name}\(|self\.{name}\b", text), f"{module} has no {name} any more"
