"""What is shipped: two packages, one wheel, no shadowed module, no import where none belongs."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
ROOTS = (REPO / "platform", REPO / "envs")
SITE_PACKAGES = Path(sysconfig.get_paths()["purelib"])
# With `--dist loadgroup` the wheel is built in one worker only.
STANDARD_PLATFORM = Path(sysconfig.get_paths()["stdlib"]) / "platform.py"


def python(code, cwd, path=None):
    """What a new interpreter prints."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path:
        env["PYTHONPATH"] = os.pathsep.join(str(p) for p in path)
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@pytest.mark.parametrize(
    ("cwd", "path"),
    [(REPO, None), (REPO, ROOTS), (REPO, (REPO,)), (REPO / "platform", None), (REPO / "envs", ROOTS)],
    ids=["root", "root with both source roots", "root on the path", "in platform/", "in envs/"],
)
def test_import_platform_is_the_standard_librarys(cwd, path):
    assert Path(python("import platform; platform.system(); print(platform.__file__)", cwd, path)) == STANDARD_PLATFORM


@pytest.mark.parametrize("root", ROOTS, ids=lambda p: p.name)
def test_a_source_root_holds_its_package_and_no_module_of_its_own(root):
    assert not (root / "__init__.py").exists()
    assert [p.name for p in root.glob("*.py")] == []


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import scalepilot_envs", ["ray", "torch", "onnxruntime", "pyarrow", "pydantic", "yaml", "scalepilot"]),
        ("import scalepilot_envs.testing", ["ray", "torch", "onnxruntime", "scalepilot"]),
        ("import scalepilot.policy, scalepilot.policy.rules", ["ray", "torch", "onnxruntime", "onnx"]),
        ("import scalepilot.simulate, scalepilot.evaluate.rule_search", ["ray", "torch", "onnxruntime", "onnx"]),
        ("import scalepilot.config", ["ray", "torch", "onnxruntime"]),
        ("import scalepilot.evaluate", ["ray", "torch"]),
        (
            "import scalepilot.cli; scalepilot.cli.build_parser()",
            ["ray", "torch", "numpy", "gymnasium", "rich", "yaml", "pydantic"],
        ),
    ],
)
def test_importing_loads_nothing_heavy(code, forbidden, tmp_path):
    loaded = python(f"{code}\nimport sys; print(sorted(set({forbidden!r}) & set(sys.modules)))", tmp_path)
    assert loaded == "[]"


def test_flying_a_network_loads_neither_ray_nor_torch(tiny_artifact, tmp_path):
    code = f"""
import sys
from scalepilot.policy import load_policy
from scalepilot.simulate import poisson_episodes, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload, part_of
series = part_of(DiurnalWorkload(days=1), "test", 15.0)
episodes = poisson_episodes("d", series, series.window_starts(50)[:1], 50, (0,))
run_episodes(load_policy({str(tiny_artifact)!r}), episodes, AutoscaleParams())
print(sorted({{"ray", "torch", "onnx"}} & set(sys.modules)))
"""
    assert python(code, tmp_path) == "[]"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(REPO)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=out)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's packages and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
def test_the_wheel_holds_both_packages_their_types_templates_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info/" not in n} == {"scalepilot", "scalepilot_envs"}
    for package, root in (("scalepilot", REPO / "platform"), ("scalepilot_envs", REPO / "envs")):
        assert f"{package}/py.typed" in names
        tracked = subprocess.run(["git", "ls-files", "."], cwd=root, capture_output=True, text=True, check=True).stdout.split()
        assert set(tracked) <= set(names)
    assert any(n.endswith(".j2") for n in names)
    assert not [n for n in names if n.endswith((".pyc", ".pkl")) or "/tests/" in n]
    assert any(n.endswith("licenses/LICENSE") for n in names)


@pytest.mark.slow
def test_the_installed_wheel_works_from_another_folder(installed, tmp_path):
    code = """
import gymnasium, scalepilot, scalepilot_envs, platform
from importlib.resources import files
env = gymnasium.make("scalepilot_envs:scalepilot/Autoscale-v0")
env.reset(seed=0)
env.step(env.action_space.sample())
print(scalepilot.__file__, scalepilot_envs.__file__, platform.__file__, sep="\\n")
print((files("scalepilot") / "py.typed").is_file())
"""
    places = python(code, tmp_path, (installed, SITE_PACKAGES)).splitlines()
    assert places == [
        str(installed / "scalepilot" / "__init__.py"),
        str(installed / "scalepilot_envs" / "__init__.py"),
        str(STANDARD_PLATFORM),
        "True",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--version"], "scalepilot 0."),
        (["--help"], "COMMAND"),
        (["env", "list"], "scalepilot/Autoscale-v0"),
        (["workload", "show", str(REPO / "tune_configs" / "demo.yaml")], "diurnal, 69,120 points"),
    ],
)
def test_the_installed_command_line_works_from_another_folder(installed, tmp_path, arguments, words):
    code = f"import sys, scalepilot.cli as c; assert c.__file__.startswith({str(installed)!r}); sys.exit(c.main({arguments!r}))"
    assert words in python(code, tmp_path, (installed, SITE_PACKAGES))


@pytest.mark.slow
def test_the_layers_point_one_way(tmp_path):
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    answer = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "0 broken" in answer.stdout


def public_modules():
    """Every module of both packages that states its `__all__` and loads without Ray or torch."""
    names = []
    for package in ("scalepilot_envs", "scalepilot"):
        root = importlib.import_module(package)
        names.append(package)
        names += [m.name for m in pkgutil.walk_packages(root.__path__, f"{package}.") if ".learn" not in m.name]
    return [n for n in names if not n.endswith("__main__") and n not in ("scalepilot.serve.app", "scalepilot.cluster.connection")]


def test_every_public_name_exists():
    for name in public_modules():
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", [])
        assert len(exported) == len(set(exported)), name
        assert [n for n in exported if not hasattr(module, n)] == [], name


@pytest.mark.parametrize(
    "name", ["scalepilot", "scalepilot.policy", "scalepilot.policy.rules", "scalepilot.simulate", "scalepilot_envs"]
)
def test_a_public_package_states_what_it_exports(name):
    assert importlib.import_module(name).__all__


def test_every_command_is_one_module_with_help_arguments_and_run():
    from scalepilot.cli import COMMANDS

    for command, module_name in COMMANDS.items():
        module = importlib.import_module(module_name)
        assert module_name == f"scalepilot.cli.{command}"
        assert module.HELP
        assert callable(module.add_arguments)
        assert callable(module.run)


@pytest.mark.slow
def test_a_benchmark_writes_its_figures_with_what_they_depend_on(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "cli_start", "--out", str(tmp_path)]
    answer = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 0, answer.stderr
    result = json.loads((tmp_path / "cli_start.json").read_text())
    assert set(result) == {"name", "git_sha", "hardware", "versions", "figures", "ratios"}
    assert result["name"] == "cli_start"
    assert result["versions"]["scalepilot"]
    assert result["ratios"]["vs_bare_python"] > 1
    assert json.dumps(result, indent=1) in answer.stdout


def test_an_unknown_benchmark_is_refused_with_the_known_ones():
    command = [sys.executable, "-m", "benchmarks", "env_stepp"]
    answer = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 2
    assert "env_stepp is not allowed; allowed: env_step" in answer.stderr
