# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What a release check runs: the build of the generated set, the tests, and the two reports.

Each run leaves what it found in a file of its own, with the commit and the model that it is of, so that a check which
was stopped goes on where it was. A report is a problem where it gives other figures than those that are published: for
what the Nano answers those in hub_model/metrics.json, for what the pruner keeps those in
benchmarks/results/pruning.json. Both are run on a copy, so that the checkout stays as it was.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from evaluation.breakdown import percent
from train.checkpoints.language_model import sha256

GENERATED = Path("data/mini")
CHECKSUMS = Path("data_engine/configs/mini.sha256")
"""In the format of `sha256sum`: the records of the generated set."""
BUILD = (sys.executable, "-m", "data_engine.build", "--config")
PRUNING = Path("benchmarks/results/pruning.json")
OURS = "ours, "
"""How the names of our pruning rules begin; others look at the weights' embeddings, or at chance."""
DIFFERENCE = 0.01
"""Shares may differ by as much: another processor rounds otherwise, and a few of a thousand answers change."""
MODEL_FILES = ("*.py", "*.json", "*.jinja", "*.safetensors", "*.md")


def run(root: Path, command: list[str], log: Path, **environment: str) -> int:
    """Runs a command in the checkout, everything that it says into a file, and gives its exit status."""
    print(f"  {shlex.join(command)} > {log}", file=sys.stderr)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        done = subprocess.run(
            command, cwd=root, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment, check=False
        )
    return done.returncode


def generated_set(root: Path, work: Path) -> dict[str, Any]:
    """Builds the generated set, or completes it, and compares its records with the committed checksums."""
    command = [*BUILD, "data_engine/configs/mini.yaml", "--out", GENERATED.as_posix()]
    if run(root, command, work / "generated_set.log"):
        return {"problems": [f"The generated set could not be built; see {work / 'generated_set.log'}."]}
    return compare_checksums(root / GENERATED, root / CHECKSUMS)


def compare_checksums(folder: Path, checksums: Path) -> dict[str, Any]:
    """`files` (name -> SHA-256) and a problem for each that is not the one of a file in sha256sum's format."""
    lines = (line.split() for line in checksums.read_text(encoding="utf-8").splitlines())
    wanted = {name: digest for digest, name in lines}
    found = {name: sha256(folder / name) if (folder / name).is_file() else "missing" for name in wanted}
    problems = [
        f"{folder.name}/{name} is not the one of {checksums.name}." for name in wanted if found[name] != wanted[name]
    ]
    return {"files": found, "problems": problems}


def tests(root: Path, work: Path) -> dict[str, Any]:
    """Runs `make test`, and counts what pytest says."""
    results = work / "tests.xml"
    results.unlink(missing_ok=True)
    status = run(root, ["make", "test"], work / "tests.log", PYTEST_ADDOPTS=f"--junitxml={shlex.quote(str(results))}")
    if not results.is_file():
        return {"problems": [f"The tests did not run (make test ended with {status}); see {work / 'tests.log'}."]}
    counted = count_tests(results)
    failed = counted["failures"] + counted["errors"]
    problems = [f"{failed} tests failed; see {work / 'tests.log'}."] if failed else []
    if status and not failed:
        problems.append(f"make test ended with {status}; see {work / 'tests.log'}.")
    return counted | {"problems": problems}


def count_tests(results: Path) -> dict[str, int]:
    """How many tests ran, failed, broke and were skipped, by a file of pytest's `--junitxml`."""
    suites = ElementTree.parse(results).getroot().iter("testsuite")
    counted = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for name in counted:
            counted[name] += int(suite.get(name, "0"))
    return counted


def answers(root: Path, model: Path, real: Path, work: Path) -> dict[str, Any]:
    """Runs the report on what the Nano answers once more, by the command that its published figures name."""
    published = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    copy = work / "model"
    copy_model(model, copy)
    commands = [
        [*BUILD, "data_engine/configs/real.yaml", "--real", str(real), "--out", "data/real"],
        [sys.executable, "-m", "evaluation.nano.real_files", "--fetch"],
        again(published["command"], {"--model": copy, "--out": work / "answers", "--real": real}),
    ]
    if any(run(root, command, work / "answers.log") for command in commands):
        return {"problems": [f"The report on answers failed; see {work / 'answers.log'}."]}
    measured = json.loads((copy / "metrics.json").read_text(encoding="utf-8"))
    return {"goals": measured["goals"], "problems": list(differing_shares(published, measured))}


def copy_model(model: Path, copy: Path) -> None:
    """Links a model's files into another folder, where a report may write figures of its own."""
    copy.mkdir(parents=True, exist_ok=True)
    for path in (path for pattern in MODEL_FILES for path in model.glob(pattern)):
        link = copy / path.name
        link.unlink(missing_ok=True)
        if path.name != "metrics.json":
            link.symlink_to(path.resolve())


def again(command: str, options: dict[str, Path]) -> list[str]:
    """A recorded `python -m …` command with other values for some of its options, to be run by this Python."""
    words = [sys.executable, *shlex.split(command)[1:]]
    for option, value in options.items():
        if option in words:
            words[words.index(option) + 1] = str(value)
    return words


def differing_shares(published: Any, measured: Any, place: str = "") -> Iterator[str]:
    """Every accuracy of the published figures that is another one in what was measured, or is not there.

    Args:
        published, measured: figures as in metrics.json; what lies under the same keys is compared.
        place: the keys above, for the sentence.
    """
    if not isinstance(published, dict) or "not_measured" in published:
        return
    for key, value in published.items():
        there = measured.get(key) if isinstance(measured, dict) else None
        if key == "accuracy":
            if there is None or abs(there - value) > DIFFERENCE:
                again_is = "not measured" if there is None else percent(there)
                yield f"Published for {place or 'all'}: {percent(value)} right; measured again: {again_is}."
        else:
            yield from differing_shares(value, there, f"{place}, {key}" if place else key)


def pruning(root: Path, real: Path, work: Path) -> dict[str, Any]:
    """Runs the report on what pruning keeps once more, and compares the findings that survive our own rules."""
    published = json.loads((root / PRUNING).read_text(encoding="utf-8"))
    out = work / "pruning.json"
    options = {"--json": out, "--clips": real, "--figures": work / "pruning_figures"}
    if run(root, again(published["command"], options), work / "pruning.log"):
        return {"problems": [f"The report on pruning failed; see {work / 'pruning.log'}."]}
    measured = json.loads(out.read_text(encoding="utf-8"))
    return {"survival": survival(measured), "problems": list(differing_survival(published, measured))}


def survival(figures: dict[str, Any]) -> dict[str, float]:
    """Kind, rule and setting -> share of findings that survive, of our own rules."""
    return {
        f"{row['kind']}, {row['rule']}, {row['setting']}": row["survival"]["share"]
        for row in figures["results"]
        if row["rule"].startswith(OURS)
    }


def differing_survival(published: dict[str, Any], measured: dict[str, Any]) -> Iterator[str]:
    """Every published share that is another one in what was measured, or is not there."""
    now = survival(measured)
    for name, share in survival(published).items():
        if name not in now or abs(now[name] - share) > DIFFERENCE:
            again_is = percent(now[name]) if name in now else "not measured"
            yield f"Published for {name}: {percent(share)} survive; measured again: {again_is}."
