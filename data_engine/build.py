# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Builds OmniV-Med-Instruct from the sources that a configuration names, downloaded or generated.

    python -m data_engine.build --config data_engine/configs/mini.yaml --out data/mini

1. list: the rows of every source are cut into chunks;
2. convert: each chunk becomes records, media and their fingerprints, in parallel;
3. assemble: duplicates and leaks are taken out, shares are met, and the set is written with its card and figures.

Chunks that are done stay done: a build that was stopped goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field, ValidationError
from tqdm import tqdm

from data_engine import film_moments, generated
from data_engine.adapters import get_adapter
from data_engine.adapters.base import MediaStore, Row
from data_engine.commands import resumable_command
from data_engine.data_card import SourceFacts, data_card
from data_engine.deduplication import Duplicate, deduplicate
from data_engine.executors import ENGINES, run_tasks
from data_engine.files import YamlError, read_yaml, write_atomically
from data_engine.fingerprints import Fingerprint, Fingerprinted, fingerprint
from data_engine.leak_check import leaks, stop_on_leaks, write_hits
from data_engine.mixture import check_shares, mix
from data_engine.records import SPLITS, Medium, Record, Split, Strict, read_records, write_jsonl, write_parquet
from data_engine.statistics import draw_figures, summarise

logger = logging.getLogger(__name__)

CHUNK_ROWS = 32
WORK = ".build"
"""Folder in the built set's folder where chunks lie until the set is finished."""


@dataclass(frozen=True)
class Generated:
    """A source that is not downloaded: its title and terms, and what makes records of one row of it."""

    title: str
    license: str
    records: Callable[[Any, MediaStore], list[Record]]


GENERATED = {
    generated.NAME: Generated("Generated phantoms", generated.LICENSE, generated.records_of),
    film_moments.NAME: Generated("Generated films", film_moments.LICENSE, film_moments.records_of),
}


class BuildError(ValueError):
    """A build that cannot be done as it is asked for, in one sentence."""


class SourceConfig(Strict):
    """A downloaded source.

    Attributes:
        name: of its adapter.
        path: the folder.
        splits: those that become part of the set.
        limit: rows of the training split that are converted at most, drawn by the seed; None converts all.
        held_out_languages: validation and test records in other languages are left out; None keeps all.
        shares_pictures: its official training split shows pictures of its own test split, with other questions, and
            so it stays; only a question that both ask about one picture is a leak.
        optional: left out, and the build says so, where its folder is missing.
    """

    name: str
    path: Path
    splits: tuple[Split, ...] = ("train", "validation")
    limit: int | None = Field(default=None, gt=0)
    held_out_languages: tuple[str, ...] | None = None
    shares_pictures: bool = False
    optional: bool = False


class BenchmarkConfig(Strict):
    """A downloaded source whose test split the set must not hold."""

    name: str
    path: Path


Configured = TypeVar("Configured", SourceConfig, BenchmarkConfig)


class BuildConfig(Strict):
    """What is built.

    Attributes:
        title: of the data card.
        seed: of the generated samples and films, and of the mixture.
        generated: samples to generate, by split; a sample gives up to three records.
        films: films to generate, by split; a film gives one record.
        sources, benchmarks: downloaded sets; paths are relative to the configuration.
        records: how many records a split has at most; a split that is not named keeps all of its records.
        shares: of the training split, by source, modality and task.
        on_leak: "stop" ends the build with a list, "drop" leaves the training records out.
        check_validation: training is compared with validation too, as with a benchmark.
        format: of the files of records.
    """

    title: str
    seed: int
    generated: dict[Split, int] = Field(default_factory=dict)
    films: dict[Split, int] = Field(default_factory=dict)
    sources: tuple[SourceConfig, ...] = ()
    benchmarks: tuple[BenchmarkConfig, ...] = ()
    records: dict[Split, int] = Field(default_factory=dict)
    shares: dict[str, dict[str, float]] = Field(default_factory=dict)
    on_leak: Literal["stop", "drop"] = "stop"
    check_validation: bool = False
    format: Literal["jsonl", "parquet"] = "jsonl"

    @classmethod
    def read(cls, path: Path, sources: Path | None = None) -> BuildConfig:
        """Reads YAML.

        Args:
            sources: folder that the paths of sources and benchmarks are relative to; None takes the configuration's.

        Raises:
            BuildError: a file that is not there, or holds something else.
        """
        try:
            config = cls.model_validate(read_yaml(path))
        except YamlError as error:
            raise BuildError(str(error)) from None
        except ValidationError as error:
            first = error.errors()[0]
            raise BuildError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
        check_shares(config.shares)
        folder = path.parent if sources is None else sources

        def placed(one: Configured) -> Configured:
            return one.model_copy(update={"path": folder / one.path})

        for one in config.sources:
            if one.optional and not (folder / one.path).is_dir():
                logger.warning("Left out %s, which is optional: there is no folder %s.", one.name, folder / one.path)
        present = [one for one in config.sources if not one.optional or (folder / one.path).is_dir()]
        return config.model_copy(
            update={
                "sources": tuple(placed(one) for one in present),
                "benchmarks": tuple(placed(one) for one in config.benchmarks),
            }
        )


@dataclass(frozen=True)
class ChunkTask:
    """One chunk: rows in, records out.

    Attributes:
        source: name of an adapter, or of a generated source.
        folder: what the user downloaded; None for a generated source.
        splits: records of other splits are left out.
        rows, done: files of the chunk's rows and of its result.
        media: folder of the built set, which media are written below.
    """

    source: str
    folder: Path | None
    splits: tuple[str, ...]
    rows: Path
    done: Path
    media: Path


def convert_chunk(task: ChunkTask) -> int:
    """Converts the rows of one chunk and writes their records, fingerprints and broken rows; returns their number."""
    store, lines = MediaStore(task.media), []
    known: dict[Medium, dict[str, Any]] = {}
    rows = pickle.loads(task.rows.read_bytes())
    for row in rows:
        if task.folder is None:
            lines += _with_fingerprints(GENERATED[task.source].records(row, store), task, known)
            continue
        try:
            lines += _with_fingerprints(get_adapter(task.source).records(row, task.folder, store), task, known)
        # MediaError, which an unreadable file raises, is a ValueError as all errors of data are.
        except ValueError as error:
            lines.append({"broken": {"source": task.source, "where": row.where, "reason": str(error)}})
    with write_atomically(task.done) as part:
        part.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return len(rows)


def _with_fingerprints(
    records: list[Record], task: ChunkTask, known: dict[Medium, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The records of the task's splits with the fingerprints of their media, as lines of the chunk's result.

    `known` keeps the fingerprints from row to row: up to twenty questions in turn show one picture.
    """
    kept = [record for record in records if record.split in task.splits]
    for medium in (medium for record in kept for medium in record.media):
        if medium not in known:
            known[medium] = asdict(fingerprint(task.media / medium.path, medium.type))
    return [{"record": r.model_dump(mode="json"), "fingerprints": [known[medium] for medium in r.media]} for r in kept]


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, CHUNK_ROWS)):
        yield chunk


@dataclass(frozen=True)
class _Listing:
    """One source, or one benchmark, of a configuration."""

    role: Literal["source", "benchmark"]
    name: str
    path: Path | None
    splits: tuple[str, ...]
    rows: Callable[[], Iterator[Any]]
    held_out_languages: tuple[str, ...] | None = None

    def keeps(self, record: Record) -> bool:
        """Whether a record is in a language that its split may have."""
        languages = self.held_out_languages
        return languages is None or record.split == "train" or record.language in languages


def limited_rows(one: SourceConfig | BenchmarkConfig, seed: int) -> Iterator[Row]:
    """The rows of the wanted splits in the source's order; where there is a limit, a seeded choice of training rows.

    A row too broken to say its split is among them, so that the build reports it.
    """
    splits = one.splits if isinstance(one, SourceConfig) else ("test",)
    rows = (row for row in get_adapter(one.name).rows(one.path) if row.values.get("split", splits[0]) in splits)
    if not isinstance(one, SourceConfig) or one.limit is None:
        yield from rows
        return
    listed = list(rows)
    training = [index for index, row in enumerate(listed) if row.values.get("split") == "train"]
    drawn = np.random.default_rng(seed).permutation(len(training))[: one.limit]
    left_out = set(training) - {training[index] for index in drawn}
    yield from (row for index, row in enumerate(listed) if index not in left_out)


def _listings(config: BuildConfig) -> list[_Listing]:
    listings = []
    if config.generated:
        samples = partial(generated.plan_samples, config.seed, config.generated)
        listings.append(_Listing("source", generated.NAME, None, SPLITS, samples))
    if config.films:
        films = partial(film_moments.plan_films, config.seed, config.films)
        listings.append(_Listing("source", film_moments.NAME, None, SPLITS, films))
    downloaded: list[SourceConfig | BenchmarkConfig] = [*config.sources, *config.benchmarks]
    for one in downloaded:
        get_adapter(one.name)  # a name that does not exist is said before any work
        role: Literal["source", "benchmark"] = "source" if isinstance(one, SourceConfig) else "benchmark"
        splits = one.splits if isinstance(one, SourceConfig) else ("test",)
        languages = one.held_out_languages if isinstance(one, SourceConfig) else None
        rows = partial(limited_rows, one, config.seed)
        listings.append(_Listing(role, one.name, one.path, splits, rows, languages))
    return listings


def list_rows(config: BuildConfig, out: Path) -> list[ChunkTask]:
    """Cuts the rows of all sources into files of chunks; a listing that is complete is not made again."""
    tasks = []
    for number, listing in enumerate(_listings(config)):
        folder = out / WORK / f"{number:02d}-{listing.role}-{listing.name}"
        listed = folder / "listed.json"
        if not listed.exists():
            folder.mkdir(parents=True, exist_ok=True)
            count, rows = 0, 0
            chunks = tqdm(_chunks(listing.rows()), desc=f"Listing {listing.name}", unit="chunk", leave=False)
            for chunk in chunks:
                (folder / f"{count:06d}.rows").write_bytes(pickle.dumps(chunk))
                count, rows = count + 1, rows + len(chunk)
            listed.write_text(json.dumps({"chunks": count, "rows": rows}), encoding="utf-8")
        for place in range(json.loads(listed.read_text(encoding="utf-8"))["chunks"]):
            name = folder / f"{place:06d}"
            tasks.append(
                ChunkTask(
                    listing.name,
                    listing.path,
                    listing.splits,
                    name.with_suffix(".rows"),
                    name.with_suffix(".jsonl"),
                    out,
                )
            )
    return tasks


def convert(tasks: list[ChunkTask], engine: str, processes: int) -> None:
    """Converts the chunks that are not done yet, with a progress bar."""
    left = [task for task in tasks if not task.done.exists()]
    with tqdm(total=len(tasks), initial=len(tasks) - len(left), desc="Converting", unit="chunk") as bar:
        for _ in run_tasks(engine, convert_chunk, left, processes):
            bar.update()


@dataclass(frozen=True)
class Converted:
    """All that came out of one source or benchmark."""

    listing: _Listing
    rows: int
    items: list[Fingerprinted]
    broken: list[dict[str, str]]


def read_converted(config: BuildConfig, out: Path) -> list[Converted]:
    """The results of all chunks, in the order of the configuration."""
    results = []
    for number, listing in enumerate(_listings(config)):
        folder = out / WORK / f"{number:02d}-{listing.role}-{listing.name}"
        items, broken = [], []
        for path in sorted(folder.glob("*.jsonl")):
            with path.open(encoding="utf-8") as lines:
                for row in map(json.loads, lines):
                    if "broken" in row:
                        broken.append(row["broken"])
                    else:
                        marks = tuple(Fingerprint(**mark) for mark in row["fingerprints"])
                        record = Record.model_validate(row["record"])
                        if listing.keeps(record):
                            items.append(Fingerprinted(record, marks))
        rows = json.loads((folder / "listed.json").read_text(encoding="utf-8"))["rows"]
        results.append(Converted(listing, rows, items, broken))
    return results


def assemble(config: BuildConfig, out: Path) -> dict[str, Any]:
    """Takes duplicates and leaks out, meets the shares, and writes the set; returns its statistics.

    Raises:
        LeakError: training or validation records that a benchmark holds, where the configuration says "stop".
    """
    converted = read_converted(config, out)
    by_split: dict[str, list[Fingerprinted]] = {split: [] for split in SPLITS}
    benchmark: list[Fingerprinted] = []
    for one in converted:
        for item in one.items:
            (by_split[item.record.split] if one.listing.role == "source" else benchmark).append(item)
    write_lines((row for one in converted for row in one.broken), out / "broken.jsonl")

    # Validation goes first, so that what is in both is left out of training.
    learned, duplicates = deduplicate([*by_split["validation"], *by_split["train"]])
    tests, test_duplicates = deduplicate(by_split["test"])
    write_lines((asdict(one) for one in [*duplicates, *test_duplicates]), out / "duplicates.jsonl")
    shared = {one.name for one in config.sources if one.shares_pictures}
    hits = leaks(learned, [*tests, *benchmark], shared)
    if config.check_validation:
        held_out = [item for item in learned if item.record.split == "validation"]
        hits += leaks([item for item in learned if item.record.split == "train"], held_out)
    (stop_on_leaks if config.on_leak == "stop" else write_hits)(hits, out / "leaks.jsonl")
    leaked = {hit.train_id for hit in hits}
    clean = [item.record for item in learned if item.record.id not in leaked]
    chosen = {
        "train": mix([r for r in clean if r.split == "train"], config.records.get("train"), config.shares, config.seed),
        "validation": [r for r in clean if r.split == "validation"],
        "test": [item.record for item in tests],
    }
    for split in ("validation", "test"):
        if split in config.records:
            chosen[split] = mix(chosen[split], config.records[split], {}, config.seed)
    files = write_splits(chosen, config.format, out)
    records = [record for split in SPLITS for record in chosen[split]]
    summary = summarise(records)
    (out / "statistics.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw_figures(summary, out / "figures")
    facts = source_facts(converted, [*duplicates, *test_duplicates], leaked, records)
    names = sorted({one.listing.name for one in converted if one.listing.role == "benchmark"})
    card = data_card(config.title, summary, facts, files, names + ["this set"] * bool(tests), config.seed)
    (out / "README.md").write_text(card, encoding="utf-8")
    return summary


def remove_unused_media(out: Path) -> None:
    """Removes media that no record of the finished set names: of benchmarks, duplicates, and what the mixture left."""
    files = [*out.glob("*.jsonl"), *out.glob("*.parquet")]
    used = {
        medium.path
        for path in files
        if path.stem.split("-")[0] in SPLITS
        for record in read_records(path)
        for medium in record.media
    }
    for path in sorted((out / "media").rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(out).as_posix() not in used:
            path.unlink()


def write_lines(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes plain rows as JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_splits(chosen: dict[str, list[Record]], format: str, out: Path) -> dict[str, str]:
    """Writes the splits that hold anything; returns split -> pattern of its files."""
    files = {}
    for split, records in chosen.items():
        if records and format == "jsonl":
            write_jsonl(records, out / f"{split}.jsonl")
            files[split] = f"{split}.jsonl"
        elif records:
            write_parquet(records, out, split)
            files[split] = f"{split}-*.parquet"
    return files


def source_facts(
    converted: list[Converted], duplicates: list[Duplicate], leaked: set[str], used: list[Record]
) -> list[SourceFacts]:
    """The lines of the data card's table of sources."""
    dropped, used_ids = {one.dropped_id for one in duplicates}, {record.id for record in used}
    facts = []
    for one in converted:
        if one.listing.role == "source":
            if one.listing.path is None:
                made = GENERATED[one.listing.name]
                title, homepage, license = made.title, "", made.license
            else:
                adapter = get_adapter(one.listing.name)
                title, homepage, license = adapter.title, adapter.homepage, adapter.license
            ids = {item.record.id for item in one.items}
            facts.append(
                SourceFacts(
                    one.listing.name,
                    title,
                    homepage,
                    license,
                    one.rows,
                    len(one.broken),
                    len(ids & dropped),
                    len(ids & leaked),
                    len(ids & used_ids),
                )
            )
    return facts


def leaks_in_words(path: Path) -> str:
    """How many records of each source the leak check left out, as one sentence; empty where there are none."""
    leaked: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        hit = json.loads(line)
        leaked.setdefault(hit["train_id"], hit["train_id"].split("/")[0])
    if not leaked:
        return ""
    counts = ", ".join(f"{count:,} of {source}" for source, count in sorted(Counter(leaked.values()).items()))
    return f"The leak check left out {counts}; {path} lists them."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def build(config: BuildConfig, out: Path, engine: str, processes: int) -> dict[str, Any]:
    """Builds the set into `out`, which is empty, or holds a build of the same sources that was stopped.

    What only the last step depends on (shares, counts, leaks, format) may have been changed since.

    Returns:
        The statistics of the set.

    Raises:
        BuildError, LeakError, ValueError: what is wrong with the configuration, the sources or the folder.
    """
    # A configuration without films has the digest that it had before there were any: sets built then stay finished.
    absent = set() if config.films else {"films"}
    plan = _digest(config.model_dump_json(exclude=absent))
    rows_from = {"seed", "generated", "films", "sources", "benchmarks"} - absent
    converted_from = _digest(config.model_dump_json(include=rows_from))
    started, finished = out / WORK / "plan", out / "build.json"
    if finished.exists() and json.loads(finished.read_text(encoding="utf-8"))["configuration"] == plan:
        return json.loads((out / "statistics.json").read_text(encoding="utf-8"))
    if (
        out.exists()
        and any(out.iterdir())
        and not (started.exists() and started.read_text(encoding="utf-8") == converted_from)
    ):
        raise BuildError(f"{out} holds something else than a build of these sources; choose an empty folder.")
    started.parent.mkdir(parents=True, exist_ok=True)
    started.write_text(converted_from, encoding="utf-8")
    convert(list_rows(config, out), engine, processes)
    summary = assemble(config, out)
    remove_unused_media(out)
    finished.write_text(json.dumps({"configuration": plan}) + "\n", encoding="utf-8")
    shutil.rmtree(out / WORK)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see data_engine/configs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the built set")
    parser.add_argument(
        "--real",
        type=Path,
        metavar="DIR",
        help="folder of the downloaded sources, which the configuration's paths start from (default: its own folder)",
    )
    parser.add_argument("--engine", choices=ENGINES, default="local", help="what converts the chunks (default local)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one a core")
    arguments = parser.parse_args()
    with resumable_command():
        config = BuildConfig.read(arguments.config, arguments.real)
        summary = build(config, arguments.out, arguments.engine, arguments.processes)
    splits = ", ".join(f"{count:,} {split}" for split, count in summary["split"].items())
    if leaks := leaks_in_words(arguments.out / "leaks.jsonl"):
        print(leaks)
    print(f"{summary['records']:,} records ({splits}) in {arguments.out}; its card is {arguments.out / 'README.md'}.")


if __name__ == "__main__":
    main()
