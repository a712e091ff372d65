# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What `make release-check` looks at: one version, committed tensors, a measured model, licences that fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import release_check
from tests.helpers.paths import ROOT
from tests.helpers.release_check import (
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
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0, 1 June 2026\n\n## 1.1.0\n")
    (root / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\n")
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
    for words in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "All of it"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_a_release_that_holds_has_no_problem(checkout):
    assert [*version_problems(checkout), *checkout_problems(checkout)] == []


def test_another_version_or_an_unreleased_one_is_a_problem(checkout):
    (checkout / "CHANGELOG.md").write_text("## Unreleased: 1.3.0\n")
    differs, unreleased = version_problems(checkout)
    assert "pyproject.toml says 1.2.0, CHANGELOG.md says 1.3.0, CITATION.cff says 1.2.0" in differs
    assert "still calls 1.3.0 unreleased" in unreleased


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


def test_the_command_writes_what_it_found_and_ends_with_the_problems(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(release_check, "audit", lambda: {"vulnerabilities": {"left-pad 1.0": ["CVE-1"]}})
    monkeypatch.setattr(release_check, "model_problems", lambda model, metrics: iter(()))
    out = tmp_path / "release.json"
    monkeypatch.setattr(sys, "argv", ["release_check", "--out", str(out)])
    with pytest.raises(SystemExit, match=r"left-pad 1\.0 has known vulnerabilities: CVE-1"):
        release_check.main()
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["hashes"][TRAINED.as_posix()] == sha256(ROOT / TRAINED)
    assert found["versions"]["pyproject.toml"] == versions(ROOT)["pyproject.toml"]
    assert found["figures"] and found["licences"]
    assert "LGPL" in capsys.readouterr().out
