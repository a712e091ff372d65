# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Finds training records that a benchmark's test split holds too: by id, by picture, and by question and answer.

A picture that a benchmark shows leaks whatever is asked of it. Words leak only where they can hardly meet by chance,
because "Is this a CT?" is asked, and answered "yes", in every set. A question and its answer leak together if

- the questions have nearly the same words, in any order (`NEAR_SCORE`), and the answers the same;
- the answer is not yes, no, a letter or a digit, which chance gives; then only the picture can tell;
- the question has `LEAST_WORDS` words: shorter ones ask what every reader of scans asks;
- the question is no template, one that with a word or two changed (`TEMPLATE_SCORE`) is asked more than
  `TEMPLATE_TIMES` times in the training set and the benchmarks together.

Measured on made-up questions with four choices in eight wordings, 24,000 against 2,000 that share no picture: long
questions with near-equal words and equal answers alone would accuse 7,409 training records, with templates left out
none. The score compares all words of both questions; a ratio of word sets would take a question for any longer one
that holds all of its words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from rapidfuzz import fuzz, process

from data_engine.deduplication import normalised
from data_engine.fingerprints import Fingerprinted, near_pairs
from data_engine.records import DIMENSION_OF, Record

Kind = Literal["id", "exact image", "near image", "near question"]
KINDS: tuple[str, ...] = get_args(Kind)
"""Kinds of leaks, the surest first."""
NEAR_SCORE = 90.0
"""Of 100, as RapidFuzz's `token_sort_ratio` counts: from here on two questions are the same one."""
TEMPLATE_SCORE = 80.0
TEMPLATE_TIMES = 5
LEAST_WORDS = 12
SHOWN_IN_ERROR = 3
_CELLS_AT_ONCE = 1 << 24
_MEDIA_KINDS = tuple(DIMENSION_OF)
_CHOICE_LETTER = re.compile(r"^[a-e] (?=.)")
_CLOSED = ("yes", "no", "不 是", "没 有")
"""Answers of yes or no; "是" and "否" are closed as single characters."""


class LeakError(ValueError):
    """Training records that a benchmark's test split holds too."""


@dataclass(frozen=True)
class Hit:
    """A training record that a benchmark holds, with the surest sign of it.

    Attributes:
        kind: the sign. "id" means the same source and id, "exact image" a medium of the same bytes.
        train_id: of the training record.
        benchmark, benchmark_id: source and id of one test record that it meets; there can be more.
        distance: of a "near image", bits in which the perceptual hashes differ.
        score: of a "near question", how alike the questions are, up to 100.
    """

    kind: Kind
    train_id: str
    benchmark: str
    benchmark_id: str
    distance: int | None = None
    score: float | None = None

    @property
    def rank(self) -> tuple[int, float]:
        """Surest first when sorted."""
        return KINDS.index(self.kind), self.distance or -(self.score or 0.0)


def leaks(
    train: Iterable[Fingerprinted], benchmarks: Iterable[Fingerprinted], shared: Collection[str] = ()
) -> list[Hit]:
    """The training records that any benchmark holds, surest first.

    250,000 records against 20,000 take some 20 s on two cores; minutes, where thousands of long questions leak.

    Args:
        train: records to learn from.
        benchmarks: records of all test splits; `source` is the benchmark's name.
        shared: sources whose official training split shows pictures of their own test split, as VQA-RAD's does; a
            picture of these leaks into its own source only together with its question.

    Returns:
        One hit for each training record and benchmark that meet.
    """
    train, benchmarks = list(train), list(benchmarks)
    surest: dict[tuple[str, str], Hit] = {}
    finders = (_same_ids, _same_files, _near_images, _near_questions)
    asked = _asked(benchmarks) if shared else set()
    of = {item.record.id: item for item in train} if shared else {}
    for hit in chain.from_iterable(find(train, benchmarks) for find in finders):
        own = hit.benchmark in shared and of[hit.train_id].record.source == hit.benchmark
        if own and hit.kind.endswith("image") and asked.isdisjoint(_asked([of[hit.train_id]])):
            continue
        known = surest.get((hit.train_id, hit.benchmark))
        if known is None or hit.rank < known.rank:
            surest[hit.train_id, hit.benchmark] = hit
    return sorted(surest.values(), key=lambda hit: (hit.rank, hit.benchmark, hit.train_id))


def _asked(items: Iterable[Fingerprinted]) -> set[tuple[str, str, str]]:
    """Source, picture and normalised question of every turn."""
    return {
        (item.record.source, mark.sha256, question)
        for item in items
        for mark in item.fingerprints
        for question, _ in _turns(item.record)
    }


def write_hits(hits: Iterable[Hit], path: Path) -> None:
    """Writes hits as JSON Lines."""
    path.write_text("".join(json.dumps(asdict(hit), ensure_ascii=False) + "\n" for hit in hits), encoding="utf-8")


def stop_on_leaks(hits: list[Hit], path: Path) -> None:
    """Writes the list of hits to `path`, empty if there are none.

    Raises:
        LeakError: there are hits; says how many records leak, the first few, and where the list is.
    """
    write_hits(hits, path)
    if hits:
        first = "; ".join(
            f"{hit.train_id} ({hit.kind} of {hit.benchmark_id} in {hit.benchmark})" for hit in hits[:SHOWN_IN_ERROR]
        )
        more = "; …" if len(hits) > SHOWN_IN_ERROR else ""
        raise LeakError(
            f"{len({hit.train_id for hit in hits}):,} training records are in a benchmark's test split too: "
            f"{first}{more}. Take out all that {path} lists."
        )


def _same_ids(train: list[Fingerprinted], benchmarks: list[Fingerprinted]) -> Iterator[Hit]:
    """Ids count within their source only: many sets number their records from 0."""
    tested = {(item.record.source, item.record.id) for item in benchmarks}
    for item in train:
        if (item.record.source, item.record.id) in tested:
            yield Hit("id", item.record.id, item.record.source, item.record.id)


def _same_files(train: list[Fingerprinted], benchmarks: list[Fingerprinted]) -> Iterator[Hit]:
    tested: dict[str, dict[str, str]] = {}
    for item in benchmarks:
        for mark in item.fingerprints:
            tested.setdefault(mark.sha256, {}).setdefault(item.record.source, item.record.id)
    for item in train:
        for mark in item.fingerprints:
            for benchmark, identifier in tested.get(mark.sha256, {}).items():
                yield Hit("exact image", item.record.id, benchmark, identifier)


def _near_images(train: list[Fingerprinted], benchmarks: list[Fingerprinted]) -> Iterator[Hit]:
    # Many records show one picture, so hashes are compared once each.
    learned: dict[tuple[int, str], list[str]] = {}
    for record, look in _looks(train):
        learned.setdefault(look, []).append(record.id)
    tested: dict[tuple[int, str], dict[str, str]] = {}
    for record, look in _looks(benchmarks):
        tested.setdefault(look, {}).setdefault(record.source, record.id)
    learned_looks, tested_looks = list(learned), list(tested)
    learned_kinds, learned_hashes = [kind for kind, _ in learned_looks], [hash for _, hash in learned_looks]
    tested_kinds, tested_hashes = [kind for kind, _ in tested_looks], [hash for _, hash in tested_looks]
    for i, j, bits in near_pairs(learned_hashes, tested_hashes, learned_kinds, tested_kinds):
        for benchmark, identifier in tested[tested_looks[j]].items():
            for train_id in learned[learned_looks[i]]:
                yield Hit("near image", train_id, benchmark, identifier, distance=bits)


def _looks(items: list[Fingerprinted]) -> Iterator[tuple[Record, tuple[int, str]]]:
    """Records and the kind and hash of each of their media; the mean of a volume is never near to an image."""
    for item in items:
        for medium, mark in zip(item.record.media, item.fingerprints, strict=True):
            if mark.perceptual is not None:
                yield item.record, (_MEDIA_KINDS.index(medium.type), mark.perceptual)


def _near_questions(train: list[Fingerprinted], benchmarks: list[Fingerprinted]) -> Iterator[Hit]:
    learned, tested = _specific(train), _specific(benchmarks)
    met = []
    for answer in sorted(learned.keys() & tested.keys()):
        asked, learnable = list(tested[answer]), list(learned[answer])
        for start, scores in _scores(asked, learnable, NEAR_SCORE):
            for i, j in np.argwhere(scores):
                met.append((answer, asked[start + i], learnable[j], float(scores[i, j])))
    templates = _templates({question for _, question, _, _ in met}, chain(train, benchmarks))
    for answer, question, other, score in met:
        if question not in templates:
            firsts: dict[str, str] = {}
            for record in tested[answer][question]:
                firsts.setdefault(record.source, record.id)
            for benchmark, identifier in firsts.items():
                for record in learned[answer][other]:
                    yield Hit("near question", record.id, benchmark, identifier, score=round(score, 1))


def _turns(record: Record) -> Iterator[tuple[str, str]]:
    """Questions and answers, fit to be compared.

    A question's words are sorted, which makes `fuzz.ratio` the same as `token_sort_ratio`, but faster. An answer loses
    the letter of its choice, so that a question with its choices in another order still meets itself.
    """
    turns = [normalised(turn.content) for turn in record.conversations]
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        yield " ".join(sorted(question.split())), _CHOICE_LETTER.sub("", answer)


def _specific(items: list[Fingerprinted]) -> dict[str, dict[str, list[Record]]]:
    """Answer -> question -> records, of questions and answers that do not meet by chance but for templates."""
    specific: dict[str, dict[str, list[Record]]] = {}
    for item in items:
        for question, answer in _turns(item.record):
            if len(answer) > 1 and answer not in _CLOSED and _word_count(question) >= LEAST_WORDS:
                specific.setdefault(answer, {}).setdefault(question, []).append(item.record)
    return specific


def _word_count(normal: str) -> float:
    """Words of a normalised text; a Chinese one has about two characters."""
    return sum(0.5 if "\u3400" <= word <= "\u9fff" else 1.0 for word in normal.split())


def _templates(questions: set[str], items: Iterable[Fingerprinted]) -> set[str]:
    """Those of the questions that are asked too often, give or take a word, to tell one picture from another."""
    times = Counter(question for item in items for question, _ in _turns(item.record))
    ordered, weights = sorted(questions), np.array(list(times.values()))
    counts = [(scores > 0) @ weights for _, scores in _scores(ordered, list(times), TEMPLATE_SCORE)]
    return {ordered[i] for i in np.flatnonzero(np.concatenate([np.zeros(0), *counts]) > TEMPLATE_TIMES)}


def _scores(left: list[str], right: list[str], least: float) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of the table of scores: first row, and float32 (rows, len(right)), 0 for those below `least`."""
    rows = max(_CELLS_AT_ONCE // max(len(right), 1), 1)
    for start in range(0, len(left), rows):
        piece = left[start : start + rows]
        yield start, process.cdist(piece, right, scorer=fuzz.ratio, score_cutoff=least, dtype=np.float32, workers=-1)
