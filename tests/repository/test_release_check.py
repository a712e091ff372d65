# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What `make release-check` looks at, and when it signs a release off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers import release_check, release_runs
from tests.helpers.paths import ROOT
from tests.helpers.release_check import (
    SIGNED,
    TRAINED,
    audit,
    checkout_problems,
    is_gpl,
    licences,
    model_problems,
    runtime_distributions,
    sha256,
    version_problems,
    versions,
)
from train.checkpoints import assemble
from train.checkpoints.fingerprint import fingerprint


def test_one_version_is_named_everywhere():
    assert len(set(versions(ROOT).values())) == 1, versions(ROOT)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository in which everything holds."""
    root = tmp_path / "checkout"
    (root / TRAINED).parent.mkdir(parents=True)
    (root / TRAINED).write_bytes(b"tensors")
    (root / "pyproject.toml").write_text('[project]\nname = "omniv-med"\nversion = "1.2.0"\n')
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\n## 1.2.0, 1 June 2026\n\n- {SIGNED}\n\n## 1.1.0\n")
    (root / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\n")
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
    for words in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "All of it"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_a_release_that_holds_has_no_problem(checkout):
    assert [*version_problems(checkout), *checkout_problems(checkout)] == []


def test_another_version_and_an_entry_without_the_signed_file_are_problems(checkout):
    (checkout / "CHANGELOG.md").write_text(f"# Changelog\n\n## Unreleased: 1.3.0\n\n## 1.2.0\n\n- {SIGNED}\n")
    differs, unnamed = version_problems(checkout)
    assert "pyproject.toml says 1.2.0, CHANGELOG.md says 1.3.0, CITATION.cff says 1.2.0" in differs
    assert "does not name benchmarks/results/release.json" in unnamed


def test_tensors_that_are_not_the_committed_ones_are_a_problem(checkout):
    (checkout / TRAINED).write_bytes(b"other tensors")
    unclean, changed = checkout_problems(checkout)
    assert "not clean" in unclean and "trained.safetensors" in unclean
    assert "is not the committed file" in changed
    (checkout / TRAINED).unlink()
    assert "is missing" in list(checkout_problems(checkout))[1]


def test_figures_of_another_model_are_a_problem(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    assert "holds no weights" in next(model_problems(tmp_path, {}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(assemble, "_inputs_digest", lambda folder: "inputs")
    stale, foreign = model_problems(tmp_path, {"weights_and_configuration_sha256": "of another"})
    assert "assembled from other tensors" in stale
    assert "of another model" in foreign
    (tmp_path / assemble.STAMP).write_text(json.dumps({"inputs": "inputs", "bytes": 7}))
    assert list(model_problems(tmp_path, {"weights_and_configuration_sha256": fingerprint(tmp_path)})) == []


@pytest.mark.parametrize(
    "said",
    ["GPL-3.0-or-later", "AGPL-3.0", "GNU General Public License v3 (GPLv3)", "GPL-2.0-only AND MIT", "gpl v2"],
)
def test_the_gpl_is_told(said):
    assert is_gpl(said)


@pytest.mark.parametrize(
    "said",
    [
        "MIT",
        "LGPL-2.1-or-later",
        "GNU Lesser General Public License v3 (LGPLv3)",
        "GPL-2.0 OR Apache-2.0",
        "not declared",
    ],
)
def test_what_is_not_the_gpl_alone_is_no_problem(said):
    assert not is_gpl(said)


def test_nothing_that_is_imported_at_run_time_is_under_the_gpl():
    found = licences()
    assert len(found) > 40
    assert any(name.startswith("torch ") for name in found)
    assert any(name.startswith("starlette ") for name in found), "what gradio brings with it"
    assert not any(name.startswith(("pytest ", "hypothesis ")) for name in found)
    assert {name: said for name, said in found.items() if is_gpl(said)} == {}


def test_requirements_are_followed_through_extras_and_conditions():
    names = {
        one.metadata["Name"] for one in runtime_distributions(["tqdm", "absent-package", "numpy; extra == 'never'"])
    }
    assert names == {"tqdm"}


def test_a_hash_is_that_of_the_files_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_an_audit_says_what_it_found_or_why_it_found_nothing():
    found = audit()
    assert found.keys() in ({"vulnerabilities"}, {"not_run"})


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The command, with what it runs for an hour replaced by `found`, and with nothing wrong beside it."""
    found = {name: {"problems": []} for name in ("generated_set", "tests", "answers", "pruning")}
    asked: list[str] = []
    for name in found:
        monkeypatch.setattr(release_runs, name, lambda *_, name=name: asked.append(name) or found[name])
    monkeypatch.setattr(release_check, "audit", lambda: {"vulnerabilities": {}})
    for check in ("checkout_problems", "version_problems", "model_problems"):
        monkeypatch.setattr(release_check, check, lambda *_: iter(()))

    def command(*options: str) -> dict[str, Any]:
        words = ["release_check", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "release.json"), *options]
        monkeypatch.setattr(sys, "argv", words)
        try:
            release_check.main()
        finally:
            written = json.loads((tmp_path / "release.json").read_text(encoding="utf-8"))
        return written

    return SimpleNamespace(command=command, found=found, asked=asked)


def test_a_release_is_signed_off_where_all_of_it_ran_and_holds(release, tmp_path, capsys):
    written = release.command("--real", str(tmp_path))
    assert release.asked == ["generated_set", "tests", "answers", "pruning"]
    assert written["signed_off"].endswith("+00:00")
    assert written["hashes"][TRAINED.as_posix()] == sha256(ROOT / TRAINED)
    assert written["versions"]["pyproject.toml"] == versions(ROOT)["pyproject.toml"]
    assert written["figures"] and written["licences"]
    assert "LGPL" in capsys.readouterr().out


def test_without_real_pictures_a_release_is_not_signed_off(release, tmp_path):
    with pytest.raises(SystemExit, match="reports on answers and pruning were not run: make release-check REAL=DIR"):
        release.command()
    assert release.asked == ["generated_set", "tests"]
    assert json.loads((tmp_path / "release.json").read_text(encoding="utf-8"))["signed_off"] is None


def test_the_command_ends_with_the_problems(release, monkeypatch, tmp_path):
    monkeypatch.setattr(release_check, "audit", lambda: {"vulnerabilities": {"left-pad 1.0": ["CVE-1"]}})
    release.found["tests"]["problems"] = ["2 tests failed; see tests.log."]
    with pytest.raises(SystemExit, match=r"left-pad 1\.0 has known vulnerabilities: CVE-1\.\n- 2 tests failed"):
        release.command("--real", str(tmp_path))


def test_a_second_check_runs_only_what_failed_before(release, tmp_path):
    release.found["answers"]["problems"] = ["Published for all: 50.0 % right; measured again: 40.0 %."]
    with pytest.raises(SystemExit, match="measured again"):
        release.command("--real", str(tmp_path))
    release.found["answers"] = {"problems": []}
    release.asked.clear()
    assert release.command("--real", str(tmp_path))["signed_off"]
    assert release.asked == ["answers"]


def test_records_are_compared_with_their_checksums(tmp_path):
    (tmp_path / "test.jsonl").write_bytes(b"abc")
    checksums = tmp_path / "mini.sha256"
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    checksums.write_text(f"{digest}  test.jsonl\n")
    assert release_runs.compare_checksums(tmp_path, checksums) == {"files": {"test.jsonl": digest}, "problems": []}
    checksums.write_text(f"{digest}  test.jsonl\n{digest}  train.jsonl\n")
    (tmp_path / "test.jsonl").write_bytes(b"other")
    changed, missing = release_runs.compare_checksums(tmp_path, checksums)["problems"]
    assert "test.jsonl is not the one of mini.sha256" in changed and "train.jsonl" in missing


def test_the_committed_checksums_name_every_split():
    named = {line.split()[1] for line in (ROOT / release_runs.CHECKSUMS).read_text(encoding="utf-8").splitlines()}
    assert named == {"train.jsonl", "validation.jsonl", "test.jsonl"}


def test_tests_are_counted_as_pytest_reports_them(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('absent')\n"
        "@pytest.fixture\ndef broken(): raise ValueError\ndef test_d(broken): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=results.xml", "test_some.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    counted = release_runs.count_tests(tmp_path / "results.xml")
    assert counted == {"tests": 4, "failures": 1, "errors": 1, "skipped": 1}


def test_a_published_command_is_run_again_with_other_folders():
    command = "python -m evaluation.nano_report --model hub_model --real DIR --limit 1000"
    words = release_runs.again(command, {"--real": Path("/pictures"), "--model": Path("copy"), "--clips": Path("no")})
    assert words == [
        sys.executable,
        *["-m", "evaluation.nano_report", "--model", "copy", "--real", "/pictures", "--limit", "1000"],
    ]


def test_every_published_accuracy_is_compared():
    published = json.loads((ROOT / "hub_model" / "metrics.json").read_text(encoding="utf-8"))
    assert list(release_runs.differing_shares(published, published)) == []
    worse = json.loads(json.dumps(published))
    worse["test"]["all"]["accuracy"] -= 0.02
    del worse["real_pictures"]["sources"]["slake"]
    found = list(release_runs.differing_shares(published, worse))
    assert any(line.startswith("Published for test, all: ") for line in found)
    assert any("sources, slake" in line and "not measured" in line for line in found)


def test_survival_of_our_own_rules_is_compared():
    published = json.loads((ROOT / release_runs.PRUNING).read_text(encoding="utf-8"))
    assert len(release_runs.survival(published)) > 10
    assert list(release_runs.differing_survival(published, published)) == []
    changed = json.loads(json.dumps(published))
    for row in changed["results"]:
        row["survival"]["share"] /= 2
    found = list(release_runs.differing_survival(published, changed))
    assert len(found) == sum(share > 0.02 for share in release_runs.survival(published).values())


def test_a_report_on_a_copy_leaves_the_published_figures_alone(tmp_path):
    model, copy = tmp_path / "model", tmp_path / "copy"
    model.mkdir()
    for name in ("config.json", "metrics.json", "model.safetensors", "modeling.py"):
        (model / name).write_text(name)
    release_runs.copy_model(model, copy)
    release_runs.copy_model(model, copy)
    assert sorted(path.name for path in copy.iterdir()) == ["config.json", "model.safetensors", "modeling.py"]
    assert (copy / "config.json").read_text() == "config.json"
