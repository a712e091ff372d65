# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What must hold before a version is published: `make release-check REAL=DIR`.

    python -m tests.helpers.release_check --real DIR

In a clean checkout with an assembled model it checks that the trained tensors are the committed ones and the model was
assembled from them, that the figures in hub_model/metrics.json were measured on this very model, that pyproject.toml,
CHANGELOG.md and CITATION.cff name one version, that no package which is imported at run time is under the GPL, and,
where pip-audit is installed, that no package has a known vulnerability. Then it builds the generated set, runs the
tests, and measures again what is published of answers and of pruning (tests/helpers/release_runs.py), for which it
needs the folder of real pictures. It writes versions, hashes, licences and figures as JSON, signed off where all of it
ran and there is no problem; else it ends with status 1. CHANGELOG.md's entry must name that file, and is dated last.

Licences are those that packages declare. What a binary wheel contains beside its own code is not declared; PyAV's copy
of FFmpeg, the largest such part, is asked for its licence itself.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data_engine.files import write_atomically
from tests.helpers import release_runs
from tests.helpers.paths import ROOT
from tests.helpers.requirements import extra, project
from train.checkpoints.assemble import is_up_to_date
from train.checkpoints.fingerprint import fingerprint
from train.checkpoints.language_model import sha256

TRAINED = Path("train/nano/trained.safetensors")
SIGNED = Path("benchmarks/results/release.json")
HEADING = re.compile(r"^## (?:Unreleased: )?(?P<version>\d+\.\d+\.\d+(?:[\w.+-]*\w)?)", re.MULTILINE)
COPYLEFT = re.compile(r"\bA?GPL|(?<!Lesser )General Public License", re.IGNORECASE)
LESSER = re.compile(r"\bLGPL|Lesser General Public License", re.IGNORECASE)
LONGEST_LICENCE = 100
"""Some packages give the whole text of their licence where its name belongs."""
AUDIT_SECONDS = 300


def versions(root: Path) -> dict[str, str]:
    """File -> the version that it names."""
    heading = HEADING.search((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    found = re.search(r'^version = "(.+)"$', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        "pyproject.toml": found[1] if found else "none",
        "CHANGELOG.md": heading["version"] if heading else "none",
        "CITATION.cff": str(yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8")).get("version", "none")),
    }


def version_problems(root: Path) -> Iterator[str]:
    """What is wrong with the version."""
    named = versions(root)
    if len(set(named.values())) > 1:
        yield f"The version differs: {', '.join(f'{file} says {version}' for file, version in named.items())}."
    entry = (root / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n## ")[2].partition("\n## ")[0]
    if SIGNED.as_posix() not in entry:
        yield f"CHANGELOG.md's first entry does not name {SIGNED}."


def git(root: Path, *arguments: str) -> str:
    """What a git command prints; raises `subprocess.CalledProcessError`."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def checkout_problems(root: Path) -> Iterator[str]:
    """What differs from the commit, and whether the trained tensors are among it."""
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        yield f"The checkout is not clean: {'; '.join(line.strip() for line in changed[:5])}."
    if not (root / TRAINED).is_file():
        yield f"{TRAINED} is missing."
    elif git(root, "hash-object", TRAINED.as_posix()) != git(root, "rev-parse", f"HEAD:{TRAINED.as_posix()}"):
        yield f"{TRAINED} is not the committed file."


def model_problems(model: Path, metrics: dict[str, Any]) -> Iterator[str]:
    """Whether the model is assembled, up to date, and the one that was measured."""
    if not (model / "model.safetensors").is_file():
        yield f"{model} holds no weights; assemble the model: make model."
        return
    if not is_up_to_date(model):
        yield f"{model} was assembled from other tensors or settings; assemble it again: make model."
    if fingerprint(model) != metrics.get("weights_and_configuration_sha256"):
        yield f"The figures in {model / 'metrics.json'} are of another model; measure them: evaluation.nano_report."


def runtime_distributions(requirements: Iterable[str]) -> list[Distribution]:
    """The installed packages that some requirements bring with them, by name; one that is absent is left out."""
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, by_extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": by_extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            found.setdefault(name, distribution(name))
        except PackageNotFoundError:
            continue
        for chosen in ("", *requirement.extras):
            if (name, chosen) not in asked:
                asked.add((name, chosen))
                waiting += [(Requirement(line), chosen) for line in found[name].requires or []]
    return [found[name] for name in sorted(found)]


def licence(package: Distribution) -> str:
    """The licence that a package declares: its SPDX expression, else its classifiers, else its own words."""
    about = package.metadata
    classifiers = [
        line.rpartition("::")[2].strip() for line in about.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    own_words = " ".join((about.get("License") or "not declared").split())[:LONGEST_LICENCE]
    return about.get("License-Expression") or "; ".join(classifiers) or own_words


def is_gpl(said: str) -> bool:
    """Whether a licence is the GPL or AGPL, without another one to choose instead and without being the LGPL."""
    choices = re.split(r"\bOR\b|;", said)
    return all(COPYLEFT.search(LESSER.sub("", choice)) for choice in choices)


def licences() -> dict[str, str]:
    """Package and version -> declared licence, of all that the model and the page need at run time."""
    packages = runtime_distributions([*project()["dependencies"], *extra("demo")])
    found = {f"{one.metadata['Name']} {one.version}": licence(one) for one in packages}
    libraries = getattr(importlib.import_module("av._core"), "library_meta", {})
    return found | {f"av's {name}": str(about.get("license")) for name, about in libraries.items()}


def audit() -> dict[str, Any]:
    """Known vulnerabilities of the installed packages by pip-audit, or why they were not looked up."""
    if find_spec("pip_audit") is None:
        return {"not_run": "pip-audit is not installed"}
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False)
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        return {"not_run": f"pip-audit gave no result ({type(error).__name__})"}
    found = {f"{one['name']} {one['version']}": [v["id"] for v in one["vulns"]] for one in packages if one.get("vulns")}
    return {"vulnerabilities": found}


def checks(root: Path, model: Path) -> dict[str, Any]:
    """What is known without running anything, and `problems`, a sentence each."""
    path = model / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    declared, audited = licences(), audit()
    gpl = [name for name, said in declared.items() if is_gpl(said)]
    problems = [*checkout_problems(root), *version_problems(root), *model_problems(model, metrics)]
    problems += [f"{name} is under {declared[name]}, which this project's licence does not go with." for name in gpl]
    problems += [
        f"{name} has known vulnerabilities: {', '.join(ids)}."
        for name, ids in audited.get("vulnerabilities", {}).items()
    ]
    return {
        "versions": versions(root) | {"python": platform.python_version(), "torch": version("torch")},
        "commit": git(root, "rev-parse", "HEAD"),
        "hashes": {
            "weights_and_configuration": fingerprint(model),
            **{
                path.relative_to(root).as_posix(): sha256(path)
                for path in (root / TRAINED, model / "model.safetensors", model / "config.json")
                if path.is_file() and path.is_relative_to(root)
            },
        },
        "figures": metrics.get("goals", []),
        "licences": declared,
        "lesser_gpl": [name for name, said in declared.items() if LESSER.search(said)],
        "audit": audited,
        "problems": problems,
    }


def runs(root: Path, model: Path, real: Path | None, work: Path) -> dict[str, dict[str, Any]]:
    """What takes long, each with `problems`; what is known of this commit and model from a run before is not run again.

    A run that found a problem is not kept: what was in its way can be mended outside the checkout, too.
    """
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "generated set": lambda: release_runs.generated_set(root, work),
        "tests": lambda: release_runs.tests(root, work),
    }
    if real is not None:
        steps["answers"] = lambda: release_runs.answers(root, model, real, work)
        steps["pruning"] = lambda: release_runs.pruning(root, real, work)
    about = {"commit": git(root, "rev-parse", "HEAD"), "model": fingerprint(model)}
    found: dict[str, dict[str, Any]] = {}
    for name, step in steps.items():
        known = work / f"{name.replace(' ', '_')}_result.json"
        before = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
        print(f"== {name}", file=sys.stderr)
        found[name] = before["found"] if before.get("about") == about else step()
        if not found[name]["problems"]:
            write_json(known, {"about": about, "found": found[name]})
    return found


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "hub_model", help="the assembled model (hub_model)")
    parser.add_argument("--real", type=Path, help="folder of real pictures; without it the two reports are not run")
    parser.add_argument("--work", type=Path, default=Path("runs/release"), help="folder for what runs leave")
    parser.add_argument("--out", type=Path, default=SIGNED, help=f"file for what was found (default {SIGNED})")
    arguments = parser.parse_args()
    found = checks(ROOT, arguments.model)
    print(f"{len(found['licences'])} licences; under the LGPL: {', '.join(found['lesser_gpl']) or 'none'}.")
    print(f"Vulnerabilities: {found['audit'].get('not_run') or len(found['audit']['vulnerabilities'])}.")
    real = None if arguments.real is None else arguments.real.resolve()
    found["runs"] = runs(ROOT, arguments.model, real, arguments.work.resolve())
    problems = found["problems"]
    problems += [problem for one in found["runs"].values() for problem in one.pop("problems")]
    if real is None:
        problems.append("The reports on answers and pruning were not run: make release-check REAL=DIR.")
    found["signed_off"] = None if problems else datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_json(arguments.out, found)
    print(f"Written: {arguments.out}.")
    if problems:
        sys.exit("\n".join(["Not ready:", *(f"- {one}" for one in problems)]))
    print(f"Signed off: {found['versions']['pyproject.toml']}.")


if __name__ == "__main__":
    main()
