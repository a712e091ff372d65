# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes the Nano's figures into the documents, so that none of them is older than the weights.

    python -m evaluation.nano.documents            # writes them
    python -m evaluation.nano.documents --check    # says which documents are out of step

A document holds `<!-- figures: NAME -->` and `<!-- end of figures -->`, each on a line of its own; what stands between
them comes from `hub_model/metrics.json`. Rows about the Nano in tables of other things are found by their first cell.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_engine.files import write_atomically
from data_engine.tables import markdown_table
from demo.service.measured import TEST_SPLITS
from evaluation import breakdown
from evaluation.breakdown import percent, points, span
from evaluation.nano import goals

ROOT = Path(__file__).resolve().parents[2]
METRICS = ROOT / "hub_model" / "metrics.json"
DOCUMENTS = ("README.md", "docs/leaderboard.md", "docs/nano.md", "hub_model/README.md")
SOURCES = {
    "arcade": "coronary angiography",
    "busi": "breast ultrasound",
    "kvasir-seg": "colonoscopy",
    "idrid": "fundus photographs",
    "oral-cancer": "oral histopathology",
    "pap-smear": "cervical cytology",
    "bccd": "blood smears",
    "ddsm-part": "mammograms",
    "covid-chestxray": "chest X-rays",
    "pocus-lung": "clips of lung ultrasound",
    "labelled-pictures": "CT, MRI and PET volumes",
}
"""What each source shows."""
README_ROW = "| What the Nano knows |"
ALL_ROW = "| **OmniV-Med-Nano**, all questions |"
CLOSED_ROW = "| **OmniV-Med-Nano**, closed questions |"
BLOCK = re.compile(r"(<!-- figures: ([a-z ]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
WIDTH = 140
Figures = Mapping[str, Any]


FIGURES = ["right", "95 % interval", "blind", "most frequent answer", "n"]


def _figures(one: Figures) -> list[str]:
    """The cells under `FIGURES`."""
    shares = [percent(one["accuracy"]), span(one["interval"]), percent(one["blind"])]
    return [*shares, percent(one["most_frequent_answer"]), str(one["count"])]


def benchmarks(metrics: Figures) -> str:
    """VQA-RAD and SLAKE, all questions and by kind."""
    rows = []
    for source in goals.BENCHMARK_GOALS:
        found = metrics["real_pictures"]["sources"][source]
        kinds = {"all": found["all"], **found["type"]}
        rows += [[f"{TEST_SPLITS[source]}, {kind}", *_figures(kinds[kind])] for kind in ("all", "closed", "open")]
    return markdown_table(["asked", *FIGURES], rows)


def sources(metrics: Figures) -> str:
    """Labelled pictures by source."""
    found = metrics["real_pictures"]["sources"]
    rows = [[source, shown, *_figures(found[source]["all"])] for source, shown in SOURCES.items() if source in found]
    return markdown_table(["source", "what it shows", *FIGURES], rows)


def real_pictures(metrics: Figures) -> str:
    """Places, grades, declined questions, confidence and small talk, in sentences."""
    found = metrics["real_pictures"]
    grades = "; ".join(
        f"weighted kappa of {thing} {one['value']:.2f} ({one['interval'][0]:.2f}–{one['interval'][1]:.2f}, "
        f"{one['count']} pictures)".replace("-", "−")
        for thing, one in found["grades"].items()
    )
    places = "; ".join(
        f"{thing} {percent(one['accuracy'])} ({span(one['interval'])}; blind {percent(one['blind'])}) of {one['count']}"
        for source, thing in goals.PLACED.items()
        if (one := found["places"].get(source))
    )
    cannot_tell, other, wrongly = (found["declined"][name] for name in ("cannot tell", "not medical", "wrongly"))
    talk = found["conversation"]["claims_to_be_a_person"]
    calibration = found["calibration"]
    error, ranking, surest = (
        calibration[name] for name in ("expected_error", "area_under_curve", "gain_of_surest_half")
    )
    claims = "never claims" if not talk["share"] else f"claims {percent(talk['share'])} of the time"
    return _wrapped(
        f"Every question of these sources for a half or quadrant of the picture, right: {places}.",
        f"Every question for a grade: {grades}.",
        f"Of {cannot_tell['count']} questions that the picture cannot answer it declines "
        f"{percent(cannot_tell['share'])} ({span(cannot_tell['interval'])}), of {other['count']} about pictures that "
        f"are not medical {percent(other['share'])} ({span(other['interval'])}), and of {wrongly['count']:,} "
        f"answerable ones {percent(wrongly['share'])} ({span(wrongly['interval'])}) wrongly. In {talk['count']} small "
        f"talks it {claims} to be a person or a physician. Its confidence has an expected error of "
        f"{error['value']:.3f} ({error['interval'][0]:.3f}–{error['interval'][1]:.3f}), ranks a right answer above a "
        f"wrong one with an AUROC of {ranking['value']:.3f} ({ranking['interval'][0]:.3f}–"
        f"{ranking['interval'][1]:.3f}), and the surest half of the answers is right {100 * surest['value']:.1f} "
        f"points oftener than all.",
        *_pruned(found),
    )


def _pruned(found: Figures) -> Iterator[str]:
    """What pruning changes, where that was measured."""
    for what, name in (
        ("Pruning volumes and videos, as by default, changes", "unpruned_to_pruned"),
        ("Pruning pictures too, within the frame (`spatial`), changes", "whole_to_pruned_within_frames"),
    ):
        if one := found.get(name):
            low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in one["interval"])
            change = f"{100 * one['difference']:+.1f}".replace("-", "−")
            yield f"{what} right answers by {change} points (95 % interval {low} to {high}) of {one['n']:,} questions."


def other_sources(metrics: Figures) -> str:
    """Real files of sources that were never trained on, and plain text."""
    files, text = metrics["real_files"], metrics["text_perplexity"]["ratio"]
    low, high = text["interval"]
    return _wrapped(
        f"**Files of sources that it was never trained on** (`evaluation/nano/real_files.yaml`): it names the modality "
        f"of {files['right']} of {files['count']}, {percent(files['accuracy'])} ({span(files['interval'])}).",
        f"**Plain text**: the perplexity is {text['value']:.3f} times that of SmolLM2 ({low:.3f}–{high:.3f}).",
    )


def examples(metrics: Figures) -> str:
    """Answers to the benchmarks, drawn by a seed."""
    rows = [
        [
            one["kind"],
            f"`{one['id']}`",
            one["question"],
            one["answer"],
            one["prediction"],
            percent(one["confidence"]),
        ]
        for one in metrics["real_pictures"]["examples"]
    ]
    return markdown_table(["", "record", "question", "right answer", "said", "confidence"], rows)


def generated(metrics: Figures) -> str:
    """Generated samples, by kind of question."""
    return breakdown.markdown(metrics["test"]).split("\n\n")[0]


def reached(metrics: Figures) -> str:
    """Goals, and what came out."""
    return goals.markdown(metrics["goals"]).strip()


SECTIONS: dict[str, Callable[[Figures], str]] = {
    "benchmarks": benchmarks,
    "sources": sources,
    "real pictures": real_pictures,
    "other sources": other_sources,
    "examples": examples,
    "generated": generated,
    "goals": reached,
}


def readme_row(metrics: Figures) -> str:
    """README's row: the headline figures, and the command."""
    real = metrics["real_pictures"]
    slake, vqa_rad = (real["sources"][name]["all"] for name in ("slake", "vqa-rad"))
    declined = real["declined"]
    return (
        f"{README_ROW} of real pictures, by exact match: SLAKE {percent(slake['accuracy'])} (95 % interval "
        f"{span(slake['interval'])}; blind {percent(slake['blind'])}), VQA-RAD {percent(vqa_rad['accuracy'])} "
        f"({span(vqa_rad['interval'])}; blind {percent(vqa_rad['blind'])}; its training split shows the same "
        f"pictures); it declines {percent(declined['cannot tell']['share'])} of the questions without an answer and "
        f"{percent(declined['not medical']['share'])} of those about pictures that are not medical; generated test "
        f"samples {percent(metrics['test']['all']['accuracy'])} | `python -m evaluation.nano_report` |"
    )


def all_row(metrics: Figures) -> str:
    """The row of docs/leaderboard.md by exact match to all questions."""
    return _leaderboard_row(ALL_ROW, "exact", *(one["all"] for one in _benchmarks(metrics)))


def closed_row(metrics: Figures) -> str:
    """The one by closed questions only."""
    return _leaderboard_row(CLOSED_ROW, "closed", *(one["type"]["closed"] for one in _benchmarks(metrics)))


def _benchmarks(metrics: Figures) -> list[Figures]:
    """VQA-RAD and SLAKE, in the order of the columns."""
    return [metrics["real_pictures"]["sources"][name] for name in ("vqa-rad", "slake")]


def _leaderboard_row(first: str, scored: str, *found: Figures) -> str:
    shares = " | ".join(points(one["accuracy"]) for one in found)
    return f"{first} {scored} | {shares} | – | – | [measured here](nano.md#what-it-answers) |"


ROWS: dict[str, Callable[[Figures], str]] = {README_ROW: readme_row, ALL_ROW: all_row, CLOSED_ROW: closed_row}
"""First cell of a row -> what writes the row."""


def _wrapped(*paragraphs: str) -> str:
    """Paragraphs in lines of at most `WIDTH` characters; a number is not parted from its percent sign."""
    found = []
    for paragraph in paragraphs:
        lines = [""]
        for word in paragraph.replace(" %", "\u00a0%").split(" "):
            if len(lines[-1]) + 1 + len(word) > WIDTH:
                lines.append(word)
            else:
                lines[-1] = f"{lines[-1]} {word}".strip()
        found.append("\n".join(lines).replace("\u00a0", " "))
    return "\n\n".join(found)


def filled(document: str, metrics: Figures) -> str:
    """A document with today's figures.

    Raises:
        ValueError: for a block whose name is not one of `SECTIONS`.
    """

    def block(found: re.Match[str]) -> str:
        if found[2] not in SECTIONS:
            raise ValueError(f"There are no figures {found[2]!r}; there are {', '.join(SECTIONS)}.")
        return f"{found[1]}\n{SECTIONS[found[2]](metrics)}\n\n{found[3]}"

    def row(line: str) -> str:
        return next((write(metrics) for first, write in ROWS.items() if line.startswith(first)), line)

    return "\n".join(row(line) for line in BLOCK.sub(block, document).split("\n"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a document is out of step")
    arguments = parser.parse_args()
    metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = filled(before, metrics)
        if after != before:
            stale.append(name)
            if not arguments.check:
                with write_atomically(path) as part:
                    part.write_text(after, encoding="utf-8")
    if stale and arguments.check:
        sys.exit(f"Out of step with {METRICS.name}: {', '.join(stale)}. Run python -m evaluation.nano.documents.")
    print("\n".join(f"Written: {name}" for name in stale) or "All documents are in step.")


if __name__ == "__main__":
    main()
