"""`scalepilot policy`, as a person types it."""

from __future__ import annotations

import json
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.commands import said

from scalepilot.cli import main
from scalepilot.policy import NetworkPolicy, load_policy, read_packed, read_spec, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot_envs.autoscale import AutoscaleParams

Capture = pytest.CaptureFixture[str]
J = {"mean": 22.5, "low": 18.0, "high": 27.25}
SUMMARY: dict[str, Any] = {
    "workloads": ["week"],
    "episodes": 39,
    "roles": {"tiny": "policy", "hpa": "baseline"},
    "policies": {"tiny": {"J": J, "late_share": {"mean": 0.01, "low": 0.0, "high": 0.02}}, "hpa": {"J": {"mean": 31.25}}},
    "gap_closed": {"tiny": {"hpa": {"mean": 0.6}}},
    "versus": {},
}


@pytest.fixture
def run(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> Path:
    """A run folder with its best policy, its last one, a baseline and an evaluation."""
    folder = tmp_path / "runs" / "demo" / "0"
    save_policy(tiny_network(), folder / "policy")
    save_policy(tiny_network(seed=1), folder / "policy-final")
    save_policy(make_rule("hpa", AutoscaleParams()), folder / "baselines" / "hpa")
    (folder / "config.yaml").write_text("name: demo\n")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "summary.json").write_text(json.dumps(SUMMARY))
    return folder


@pytest.fixture
def keys(tmp_path: Path, capsys: Capture) -> Path:
    said(capsys, "policy", "keygen", "--out", tmp_path / "keys")
    return tmp_path / "keys"


def test_every_policy_below_a_folder_is_listed_in_one_line(capsys: Capture, run: Path, tmp_path: Path) -> None:
    lines = said(capsys, "policy", "list", tmp_path).splitlines()
    assert lines[0].split() == ["policy", "kind", "environment", "algorithm", "result", "signed", "folder"]
    assert [line.split()[0] for line in lines[1:]] == ["hpa@1", "tiny@1", "tiny@1"]
    assert [line.split()[-1] for line in lines[1:]] == [str(run / p) for p in ("baselines/hpa", "policy", "policy-final")]
    baseline, best, last = lines[1:]
    assert "31.25 J/h" in baseline
    assert "22.50 J/h" in best
    # The evaluation is of the best policy, whatever the last one is called.
    assert "J/h" not in last
    listed = json.loads(said(capsys, "policy", "list", run, run / "policy", "--json"))
    assert [entry["result"] for entry in listed] == [{"metric": "J", "mean": 31.25}, {"metric": "J", "mean": 22.5}, None]
    assert {entry["signed"] for entry in listed} == {False}


def test_a_damaged_policy_is_listed_with_what_is_wrong(capsys: Capture, run: Path) -> None:
    (run / "policy" / "policy.json").write_text("{")
    assert main(["policy", "list", str(run)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"scalepilot policy: {run / 'policy' / 'policy.json'}: is not JSON")
    lines = out.splitlines()
    assert len(lines) == 4
    (damaged,) = [line for line in lines if line.startswith("unreadable")]
    assert "is not JSON" in damaged
    assert main(["policy", "list", str(run), "--json"]) == 2
    (entry,) = [entry for entry in json.loads(capsys.readouterr().out) if "problem" in entry]
    assert entry["path"] == str(run / "policy")


def test_folders_without_policies_are_refused(capsys: Capture, tmp_path: Path) -> None:
    assert "holds no policy" in said(capsys, "policy", "list", tmp_path, code=2)
    assert "is not a directory" in said(capsys, "policy", "list", tmp_path / "absent", code=2)
    assert "no such folder" in said(capsys, "policy", "show", tmp_path / "absent", code=2)
    assert "holds no policy.json" in said(capsys, "policy", "show", tmp_path, code=2)


def test_a_policy_is_shown_with_fields_actions_origin_evaluation_and_hashes(capsys: Capture, run: Path) -> None:
    text = said(capsys, "policy", "show", run)
    spec = read_spec(run / "policy")
    for field in spec.observation_fields:
        assert field.name in text
    for words in ("tiny@1", "network for scalepilot/Autoscale-v0", "3 hold", "requests/s", "0 to 1,000,000", "signature"):
        assert words in text
    assert spec.files["model.onnx"] in text
    assert "39 episodes of week" in text
    assert "18" in text
    assert "27.25" in text
    assert "J of others: hpa 31.25" in text
    shown = json.loads(said(capsys, "policy", "show", run, "--json"))
    assert shown["files"]["model.onnx"]["bytes"] == (run / "policy" / "model.onnx").stat().st_size
    assert shown["evaluation"]["policies"]["tiny"]["J"] == J
    assert len(shown["observation_fields"]) == len(spec.observation_fields)


def test_a_rule_is_shown_with_its_parameters(capsys: Capture, run: Path) -> None:
    text = said(capsys, "policy", "show", run / "baselines" / "hpa")
    assert "stabilisation_down_seconds" in text
    assert "rule for scalepilot/Autoscale-v0" in text


def test_a_policy_that_nobody_judged_says_so(capsys: Capture, run: Path, tmp_path: Path) -> None:
    assert "not evaluated" in said(capsys, "policy", "show", run / "policy-final")
    (run / "evaluation" / "summary.json").write_text("[1")
    assert "summary.json: is not JSON, or is cut off" in said(capsys, "policy", "show", run, code=2)


def test_a_stored_string_commands_no_terminal(
    capsys: Capture, tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]
) -> None:
    escape = "\x1b[2J\x1b]0;title\x07[bold]"
    evaluation = {"workloads": [escape], "episodes": escape, "policies": {"tiny": {escape: {"mean": 1.0}}, escape: {}}}
    policy = tiny_network(provenance={"algorithm": escape, escape: {escape: escape}}, evaluation=evaluation)
    save_policy(policy, tmp_path / "p")
    for command in ("show", "list"):
        text = said(capsys, "policy", command, tmp_path / "p")
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "[bold]" in text


def test_a_changed_model_is_neither_shown_nor_exported_nor_signed(capsys: Capture, run: Path, keys: Path, tmp_path: Path) -> None:
    model = run / "policy" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    assert "sha256" in said(capsys, "policy", "show", run, code=2)
    assert "sha256" in said(capsys, "policy", "export", run, tmp_path / "new", code=2)
    assert "sha256" in said(capsys, "policy", "sign", run, "--key", keys / "private.pem", code=2)
    assert not (tmp_path / "new").exists()


def test_an_export_is_the_same_policy_with_its_evaluation_inside(capsys: Capture, run: Path, tmp_path: Path) -> None:
    said(capsys, "policy", "export", run, tmp_path / "a" / "new")
    old, new = read_packed(run / "policy"), read_packed(tmp_path / "a" / "new")
    assert new.files == old.files
    assert new.spec.evaluation == {key: value for key, value in SUMMARY.items() if key != "versus"}
    assert (new.spec.name, new.spec.version, new.spec.provenance) == (old.spec.name, old.spec.version, old.spec.provenance)
    assert load_policy(tmp_path / "a" / "new").spec == new.spec


def test_an_export_may_have_another_name_and_version_and_says_where_it_comes_from(
    capsys: Capture, run: Path, tmp_path: Path
) -> None:
    said(capsys, "policy", "export", run, tmp_path / "new", "--name", "shop", "--version", "2026.11")
    spec = load_policy(tmp_path / "new").spec
    assert (spec.name, spec.version) == ("shop", "2026.11")
    assert spec.provenance["exported_from"] == "tiny@1"
    # Its figures go with it under its new name.
    (entry,) = json.loads(said(capsys, "policy", "list", tmp_path / "new", "--json"))
    assert entry["result"] == {"metric": "J", "mean": 22.5}
    assert spec.evaluation["roles"] == {"shop": "policy", "hpa": "baseline"}


@pytest.mark.parametrize("option", ["--name", "--version"])
@pytest.mark.parametrize("value", ["a b", "../x", "-", "x" * 65, "é"])
def test_unfit_names_and_versions_are_refused(capsys: Capture, run: Path, tmp_path: Path, option: str, value: str) -> None:
    message = said(capsys, "policy", "export", run, tmp_path / "new", f"{option}={value}", code=2)
    assert f"{option}: " in message
    assert "allowed: 1–64" in message
    assert not (tmp_path / "new").exists()


def test_an_export_replaces_a_policy_with_force_only_and_never_anything_else(capsys: Capture, run: Path, tmp_path: Path) -> None:
    said(capsys, "policy", "export", run, tmp_path / "new")
    assert "--force" in said(capsys, "policy", "export", run, tmp_path / "new", "--version", "2", code=2)
    assert read_spec(tmp_path / "new").version == "1"
    said(capsys, "policy", "export", run, tmp_path / "new", "--version", "2", "--force")
    assert read_spec(tmp_path / "new").version == "2"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "letter").write_text("dear")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for other in ("precious", "link"):
        assert "is not a policy folder" in said(capsys, "policy", "export", run, tmp_path / other, "--force", code=2)
    assert (tmp_path / "precious" / "letter").read_text() == "dear"
    assert (tmp_path / "link").is_symlink()
    assert not list(tmp_path.glob(".*"))


def test_an_export_to_where_nothing_can_be_written_is_one_line(capsys: Capture, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in said(capsys, "policy", "export", run, tmp_path / "file" / "new", code=2)


def test_keys_are_made_secret_and_never_replaced(capsys: Capture, keys: Path) -> None:
    private = keys / "private.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PUBLIC KEY" in (keys / "public.pem").read_bytes()
    before = private.read_bytes()
    assert "exists already" in said(capsys, "policy", "keygen", "--out", keys, code=2)
    private.rename(keys / "elsewhere")
    assert "exists already" in said(capsys, "policy", "keygen", "--out", keys, code=2)
    assert not private.exists()
    assert (keys / "elsewhere").read_bytes() == before


def test_a_signed_policy_is_verified_with_its_key_and_no_other(capsys: Capture, run: Path, keys: Path, tmp_path: Path) -> None:
    verify = ("policy", "verify-signature", run, "--keys")
    assert "is not signed" in said(capsys, *verify, keys / "public.pem", code=2)
    assert "replacing" not in said(capsys, "policy", "sign", run, "--key", keys / "private.pem")
    assert said(capsys, *verify, keys / "public.pem").startswith("ok: tiny@1")
    said(capsys, "policy", "keygen", "--out", tmp_path / "others")
    others = tmp_path / "others"
    assert "none of the 1 keys" in said(capsys, *verify, others / "public.pem", code=2)
    assert "replacing its previous signature" in said(capsys, "policy", "sign", run, "--key", others / "private.pem")
    said(capsys, *verify, others / "public.pem")
    assert "none of the 1 keys" in said(capsys, *verify, keys / "public.pem", code=2)
    assert [entry["signed"] for entry in json.loads(said(capsys, "policy", "list", run, "--json"))] == [False, True, False]


def test_a_signature_goes_with_an_exact_copy_and_not_with_a_changed_one(
    capsys: Capture, run: Path, keys: Path, tmp_path: Path
) -> None:
    said(capsys, "policy", "export", run, tmp_path / "a")
    said(capsys, "policy", "sign", tmp_path / "a", "--key", keys / "private.pem")
    assert "sign it again" not in said(capsys, "policy", "export", tmp_path / "a", tmp_path / "b")
    said(capsys, "policy", "verify-signature", tmp_path / "b", "--keys", keys / "public.pem")
    assert "sign it again" in said(capsys, "policy", "export", tmp_path / "a", tmp_path / "c", "--version", "2")
    assert read_spec(tmp_path / "c").signature is None


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused(capsys: Capture, run: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    assert "Ed25519" in said(capsys, "policy", "sign", run, "--key", tmp_path / "key", code=2)
    assert "Ed25519" in said(capsys, "policy", "verify-signature", run, "--keys", tmp_path / "key", code=2)
    assert "cannot be read" in said(capsys, "policy", "sign", run, "--key", tmp_path / "absent", code=2)
    assert read_spec(run / "policy").signature is None


def test_every_command_of_the_page_works_as_written(
    capsys: Capture, run: Path, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (repo / "docs" / "policies.md").read_text(encoding="utf-8")
    commands = [shlex.split(line, comments=True)[1:] for line in page.splitlines() if line.startswith("    scalepilot policy ")]
    assert {command[1] for command in commands} == {"list", "show", "export", "keygen", "sign", "verify-signature"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo" / "0").rename(tmp_path / "runs" / "demo" / "20261120-120000-0")
    for command in commands:
        assert said(capsys, *(word.replace("RUN_OR_POLICY", "runs/demo/20261120-120000-0") for word in command))
    assert load_policy(tmp_path / "policies" / "shop" / "2").spec.signature is not None
