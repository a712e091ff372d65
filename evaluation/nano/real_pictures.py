# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the Nano says of real pictures: benchmarks, labelled sources, calibration, declining, and who it says it is.

    python -m evaluation.nano.real_pictures --model hub_model --data data/real --real ../real --out runs/real_pictures

`--data` names sets that `data_engine.build` made of real pictures, `--real` the folder they were made of: VQA-RAD's and
SLAKE's own files say which questions are open and which closed. The test split is answered seeing and blind, and with
`--limit` every question for a place or a grade beside it; what is about volumes and videos once more unpruned; and what
is about pictures, which keep all their tokens by default, once more pruned within the frame (the rule "spatial").
Answers go into ledgers under `--out`, so the same command goes on where it was stopped. `--fit` answers the validation
split first, and writes the calibration and the threshold that it gives into the model's configuration.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import LogitsProcessorList

from data_engine.adapters import get_adapter
from data_engine.answers import normalise
from data_engine.commands import resumable_command
from data_engine.intervals import wilson_interval
from data_engine.ledger import Ledger
from data_engine.records import REPORTS, Reply, read_records
from data_engine.tables import markdown_table
from evaluation import calibration
from evaluation.benchmarks import BenchmarkQuestion, to_question
from evaluation.blind import blinded
from evaluation.breakdown import figures as share_figures
from evaluation.breakdown import percent, span, task_of
from evaluation.compare import paired_difference
from evaluation.nano.first_word import FirstWordMargin, first_word, fit_bias, read_bias, write_bias
from evaluation.nano.places_and_grades import asks_for_place_or_grade, grades, places
from evaluation.run import DTYPES, load
from evaluation.score import Scored, score_file
from evaluation.shared_media import generate_ids_sharing
from hub_model.answering_omniv_med import (
    Answer,
    AnswerCalibration,
    GreedyLogProbabilities,
    end_ids,
    judge,
)
from hub_model.token_pruning_omniv_med import PruneRule
from train.checkpoints.fingerprint import fingerprint

if TYPE_CHECKING:
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

SEED = 0
OFFICIAL = ("vqa-rad", "slake")
"""Benchmarks whose own files say of each question whether it is open or closed."""
BATCH_SIZE = 32
LONGEST_ANSWER = 32
EXAMPLES_OF_A_KIND = 4
WRONGLY_DECLINED = 0.02
"""Share of the answerable questions that may be declined at the threshold that `--fit` chooses.

Of another split it may be a point more, and 3 % are the goal.
"""
CLAIMS = re.compile(
    r"\b(?:i am|i'm|my name is|this is)\s+(?:dr\b|(?:a |an |your )?(?:\w+ )?(?:doctor|physician|radiologist|human"
    r"|person|nurse|surgeon|specialist|consultant))",
    re.IGNORECASE,
)
"""An answer that claims to be a person or a physician."""
DENIAL = re.compile(r"\b(?:not|no|never|n't)\b", re.IGNORECASE)


@dataclass(frozen=True)
class RealQuestion:
    """A question with where it comes from and what the right reply does.

    Attributes:
        question: as it is asked and scored.
        source: the benchmark or the source of the picture.
        reply: what the right reply does.
    """

    question: BenchmarkQuestion
    source: str
    reply: Reply


def official_types(real: Path) -> dict[str, str]:
    """Id of a test question of VQA-RAD or SLAKE -> "open" or "closed", as their files say.

    Raises:
        ValueError: a folder without them.
    """
    types = {}
    for name in OFFICIAL:
        for row in get_adapter(name).rows(real / name):
            entry = row.values["entry"]
            types[f"{name}/{row.values['split']}/{row.values['number']}"] = str(entry["answer_type"]).strip().lower()
    return types


def read_questions(folders: Sequence[Path], split: str, types: dict[str, str], limit: int | None) -> list[RealQuestion]:
    """The English questions of a split: the first of each record.

    Args:
        folders: of built sets.
        types: of `official_types`.
        limit: so many of each source but the benchmarks at most, drawn by a seed; None takes all.

    Raises:
        ValueError: a folder without the split.
    """
    found: dict[str, list[RealQuestion]] = {}
    for folder in folders:
        path = folder / f"{split}.jsonl"
        if not path.is_file():
            raise ValueError(f"{folder} holds no {split}.jsonl; build it: python -m data_engine.build.")
        for record in read_records(path):
            if record.language != "en":
                continue
            question = to_question(record, folder)
            question = replace(question, answer_type=types.get(record.id, question.answer_type))
            found.setdefault(record.source, []).append(RealQuestion(question, record.source, record.reply))
    rng = np.random.default_rng(SEED)
    chosen: list[RealQuestion] = []
    for source, questions in found.items():
        count = len(questions) if limit is None or source in OFFICIAL else min(limit, len(questions))
        chosen += [questions[place] for place in sorted(rng.choice(len(questions), size=count, replace=False))]
    return chosen


@torch.inference_mode()
def answer_batch(
    model: OmniVMedForConditionalGeneration, processor: OmniVMedProcessor, questions: Sequence[BenchmarkQuestion]
) -> list[dict[str, Any]]:
    """Rows with the greedy answers, the log-probabilities of their tokens, and how near each came to "not medical".

    Unreadable media give an empty answer.
    """
    watched, near = GreedyLogProbabilities(), FirstWordMargin(first_word(processor))
    try:
        new, _ = generate_ids_sharing(
            model, processor, questions, "plain", LONGEST_ANSWER, logits_processor=LogitsProcessorList([watched, near])
        )
    except ValueError as error:
        if len(questions) == 1:
            failed = {"prediction": "", "log_probabilities": [0.0], "not_medical_margin": None, "error": str(error)}
            return [questions[0].row() | failed]
        return [row for one in questions for row in answer_batch(model, processor, [one])]
    texts = processor.batch_decode(new, skip_special_tokens=True)
    return [
        one.row()
        | {
            "prediction": text.strip(),
            "log_probabilities": [round(value, 5) for value in values],
            "not_medical_margin": round(margin, 5),
        }
        for one, text, values, margin in zip(
            questions, texts, watched.of_answers(new, end_ids(model)), near.margins, strict=True
        )
    ]


def ask(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    questions: Sequence[BenchmarkQuestion],
    path: Path,
    settings: dict[str, Any],
) -> list[Scored]:
    """Answers what the ledger does not hold yet, the questions about one picture together, and scores all answers."""
    with Ledger(path, settings | {"questions": len(questions)}) as ledger:
        left = sorted(
            (one for one in questions if one.id not in ledger.rows),
            key=lambda one: (one.dimension, [medium.path for medium in one.media]),
        )
        with tqdm(total=len(questions), initial=len(questions) - len(left), unit="question", desc=path.stem) as bar:
            for start in range(0, len(left), BATCH_SIZE):
                for row in answer_batch(model, processor, left[start : start + BATCH_SIZE]):
                    ledger.append(row)
                    bar.update()
    return score_file(path).scored


def is_right(reply: Reply, one: Scored, answered: Answer) -> bool:
    """Whether an answer does what it should: decline where there is no answer, else match exactly."""
    if reply in ("cannot tell", "not medical"):
        return answered.declined
    return one.right and not answered.declined


def fit(questions: Sequence[RealQuestion], scored: Sequence[Scored]) -> AnswerCalibration:
    """Calibration on answers to a validation split; its threshold declines a few of the answerable questions.

    Raises:
        ValueError: too few answers.
    """
    replies = {one.question.id: one.reply for one in questions if one.question.task != REPORTS}
    rows = [one for one in scored if one.id in replies]
    values = [one.row["log_probabilities"] for one in rows]
    answers = [judge(one.row["prediction"], value, None) for one, value in zip(rows, values, strict=True)]
    right = [is_right(replies[one.id], one, answer) for one, answer in zip(rows, answers, strict=True)]
    found = calibration.fit(values, right)
    answerable = [
        (answer.declined, found.confidence(value))
        for one, answer, value in zip(rows, answers, values, strict=True)
        if replies[one.id] == "answer"
    ]
    own = sum(declined for declined, _ in answerable) / max(len(answerable), 1)
    kept = [confidence for declined, confidence in answerable if not declined]
    return replace(found, threshold=calibration.threshold_for(kept, max(WRONGLY_DECLINED - own, 0.0)))


def bias_of(questions: Sequence[RealQuestion], scored: Sequence[Scored]) -> float:
    """The bias on the first word of "This is not a medical image.", from answers to a validation split without one.

    Captions are left out, for some of them begin with the same word.
    """
    replies = {one.question.id: one.reply for one in questions if one.question.task != REPORTS}
    rows = [one for one in scored if one.id in replies and one.row["not_medical_margin"] is not None]
    return fit_bias([one.row["not_medical_margin"] for one in rows], [replies[one.id] for one in rows])


def shares(values: Iterable[bool]) -> dict[str, Any]:
    """A share with its interval, of trials that are independent."""
    trials = list(values)
    right = sum(trials)
    return {
        "share": right / len(trials) if trials else None,
        "interval": list(wilson_interval(right, len(trials))) if trials else None,
        "count": len(trials),
    }


def claims_to_be_a_person(text: str) -> bool:
    """Whether an answer says that a person or a physician speaks."""
    return any(CLAIMS.search(sentence) and not DENIAL.search(sentence) for sentence in re.split(r"[.!?;,]", text))


def examples(scored: Sequence[Scored], judged: Mapping[str, Answer]) -> list[dict[str, Any]]:
    """A few right, wrong and declined answers, drawn by a seed: the record's id, the words, and the confidence."""
    kinds: dict[str, list[Scored]] = {"right": [], "wrong": [], "declined": []}
    for one in scored:
        kinds["declined" if judged[one.id].declined else "right" if one.right else "wrong"].append(one)
    rng = np.random.default_rng(SEED)
    return [
        {
            "kind": kind,
            "id": rows[place].id,
            **{name: rows[place].row[name] for name in ("question", "answer", "prediction")},
            "confidence": round(judged[rows[place].id].confidence, 3),
        }
        for kind, rows in kinds.items()
        for place in sorted(rng.choice(len(rows), size=min(EXAMPLES_OF_A_KIND, len(rows)), replace=False).tolist())
    ]


def measure(
    questions: Sequence[RealQuestion],
    seeing: Sequence[Scored],
    blind: Sequence[Scored],
    unpruned: Sequence[Scored],
    within: Sequence[Scored],
    calibrated: AnswerCalibration | None,
) -> dict[str, Any]:
    """All figures of the test split; `blind`, `unpruned` and `within` (a frame) may hold fewer questions."""
    about = {one.question.id: one for one in questions}
    substitute, whole, fewer = ({one.id: one for one in rows} for rows in (blind, unpruned, within))
    judged = {one.id: judge(one.row["prediction"], one.row["log_probabilities"], calibrated) for one in seeing}

    def is_short(one: Scored) -> bool:
        return about[one.id].reply == "answer" and one.row["task"] != REPORTS

    short = [one for one in seeing if is_short(one)]
    pairs = [(one, substitute[one.id]) for one in short if one.id in substitute]

    def split(chosen: Sequence[tuple[Scored, Scored]], key: Callable[[Scored], str]) -> dict[str, Any]:
        groups: dict[str, list[tuple[Scored, Scored]]] = {}
        for pair in chosen:
            groups.setdefault(key(pair[0]), []).append(pair)
        return {name: share_figures(group) for name, group in sorted(groups.items())}

    sources: dict[str, Any] = {}
    for source in dict.fromkeys(about[one.id].source for one in short):
        own = [pair for pair in pairs if about[pair[0].id].source == source]
        sources[source] = {
            "all": share_figures(own),
            "type": split(own, lambda one: one.kind),
            "task": split(own, task_of),
        }

    result: dict[str, Any] = {"sources": sources, "task": split(pairs, task_of)}
    if calibrated is not None:
        result["calibration"] = calibration.figures(
            [judged[one.id].confidence for one in short], [one.right for one in short], [one.group for one in short]
        ) | {"threshold": calibrated.threshold}
    result["declined"] = {
        reply: shares(judged[one.id].declined for one in seeing if about[one.id].reply == reply)
        for reply in ("cannot tell", "not medical")
    } | {"wrongly": shares(judged[one.id].declined for one in short)}
    talk = [one for one in seeing if about[one.id].reply == "conversation"]
    result["conversation"] = {
        "claims_to_be_a_person": shares(claims_to_be_a_person(one.row["prediction"]) for one in talk),
        "as_trained": shares(normalise(one.row["prediction"]) == normalise(one.row["answer"]) for one in talk),
    }
    official = [one for one in short if about[one.id].source in OFFICIAL]
    result["examples"] = examples(official, judged)
    by_default = {one.id: one for one in short}
    for name, before, after in (
        ("unpruned_to_pruned", whole, by_default),
        ("whole_to_pruned_within_frames", by_default, fewer),
    ):
        both = [(before[key], after[key]) for key in before if key in after]
        if both:
            values = [(float(one.right), float(other.right)) for one, other in both]
            result[name] = paired_difference(values, [one.group for one, _ in both])
    return result


def markdown(result: dict[str, Any]) -> str:
    """Tables for the documents."""
    shown = [
        (source, name, one)
        for source, tables in result["sources"].items()
        for name, one in {"all": tables["all"], **tables["type"], **tables["task"]}.items()
    ]
    shown += [(source, "half or quadrant, every question", one) for source, one in result["places"].items()]
    lines = [
        [
            source,
            name,
            percent(one["accuracy"]),
            span(one["interval"]),
            percent(one["blind"]),
            percent(one["most_frequent_answer"]),
            str(one["count"]),
        ]
        for source, name, one in shown
    ]
    header = ["source", "question", "right", "95 % interval", "blind", "most frequent answer", "n"]
    parts = [markdown_table(header, lines)]
    if "calibration" in result:
        found = result["calibration"]
        parts.append(
            "\n".join(
                f"{name.replace('_', ' ')}: {found[name]['value']}, 95 % interval {found[name]['interval']}"
                for name in calibration.FIGURES
            )
        )
    parts += [
        f"{thing}, weighted kappa: {one['value']}, 95 % interval {one['interval']}, n = {one['count']}"
        for thing, one in result["grades"].items()
    ]
    for title, one in (
        ("questions without an answer, declined", result["declined"]["cannot tell"]),
        ("pictures that are not medical, declined", result["declined"]["not medical"]),
        ("answerable questions, declined wrongly", result["declined"]["wrongly"]),
        ("small talk that claims to be a person", result["conversation"]["claims_to_be_a_person"]),
    ):
        parts.append(f"{title}: {percent(one['share'])} ({span(one['interval'])}) of {one['count']}")
    for title, name in (
        ("volumes and videos, unpruned to pruned", "unpruned_to_pruned"),
        ("pictures, whole to pruned within the frame", "whole_to_pruned_within_frames"),
    ):
        if one := result.get(name):
            change = f"{100 * one['difference']:+.1f} points, 95 % interval {one['interval']}"
            parts.append(f"{title}: {percent(one['a'])} to {percent(one['b'])}, {change}, n = {one['n']}")
    rows = [
        [one["kind"], one["id"], one["question"], one["answer"], one["prediction"], percent(one["confidence"])]
        for one in result["examples"]
    ]
    parts.append(markdown_table(["", "id", "question", "right answer", "said", "confidence"], rows))
    return "\n\n".join(parts) + "\n"


def calibrate_on(
    validation: Sequence[RealQuestion],
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    folder: Path,
    out: Path,
    fixed: dict[str, Any],
) -> None:
    """Fits the bias on the first word of "This is not a medical image.", and with it the confidence.

    Both are written into the model's folder and given to the model. The arguments are those of `report` and `ask`.
    """
    questions = [one.question for one in validation]
    model.generation_config.sequence_bias = None
    unbiased = ask(model, processor, questions, out / "validation_unbiased.jsonl", fixed)
    write_bias(folder, first_word(processor), bias_of(validation, unbiased))
    bias = model.generation_config.sequence_bias = read_bias(folder)
    answered = ask(model, processor, questions, out / "validation.jsonl", fixed | {"sequence_bias": bias})
    write_calibration(folder, fit(validation, answered))
    model.config.answer_calibration = json.loads((folder / "config.json").read_text())["answer_calibration"]


def report(
    folder: Path, data: Sequence[Path], real: Path, out: Path, limit: int | None, dtype: str, *, calibrate: bool = False
) -> dict[str, Any]:
    """Asks a model about a test split and writes the figures into `out`; goes on where it was stopped.

    Args:
        folder: the model's.
        data: folders of built sets.
        real: folder of VQA-RAD and SLAKE as published.
        limit: so many questions of each source but these two at most.
        dtype: one of `DTYPES`.
        calibrate: whether to fit on the validation split first how readily the model says that a picture is not
            medical, and its confidence, and write both into `folder`.

    Raises:
        ValueError: for what a user can mend, in one sentence.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no model's folder; assemble the Nano first: make model.")
    types = official_types(real)
    questions = read_questions(data, "test", types, limit)
    out.mkdir(parents=True, exist_ok=True)
    model, processor = load(str(folder), {}, "cuda" if torch.cuda.is_available() else "cpu", dtype)
    fixed: dict[str, Any] = {"model": fingerprint(folder), "dtype": dtype}
    if calibrate:
        calibrate_on(read_questions(data, "validation", types, limit), model, processor, folder, out, fixed)
    fixed["sequence_bias"] = read_bias(folder)

    seeing = ask(model, processor, [one.question for one in questions], out / "seeing.jsonl", fixed)
    answerable = [one.question for one in questions if one.reply == "answer" and one.question.task != REPORTS]
    blind = ask(model, processor, blinded(answerable), out / "blind.jsonl", fixed)

    every = read_questions(data, "test", types, None)
    located = [one.question for one in every if asks_for_place_or_grade(one.question.id)]
    located_seeing, located_blind = (
        ask(model, processor, asked, out / f"places_and_grades_{name}.jsonl", fixed) if asked else []
        for asked, name in ((located, "seeing"), (blinded(located), "blind"))
    )

    def ask_by(rule: PruneRule, chosen: Sequence[BenchmarkQuestion], name: str) -> list[Scored]:
        processor.prune_rule = rule
        return ask(model, processor, chosen, out / f"{name}.jsonl", fixed | {"prune_rule": rule}) if chosen else []

    unpruned = ask_by("none", [one for one in answerable if one.dimension != "2d"], "unpruned")
    within = ask_by("spatial", [one for one in answerable if one.dimension == "2d"], "within_frames")
    result = measure(questions, seeing, blind, unpruned, within, AnswerCalibration.of(model.config))
    result |= {"places": places(located_seeing, located_blind), "grades": grades(located_seeing), "about": fixed}
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (out / "real_pictures.json").write_text(text, encoding="utf-8")
    return result


def write_calibration(folder: Path, found: AnswerCalibration) -> None:
    """Puts a calibration into the configuration of a model's folder."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["answer_calibration"] = {
        "weights": [round(value, 5) for value in found.weights],
        "bias": round(found.bias, 5),
        "threshold": round(found.threshold, 5),
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("hub_model"), help="the model's folder (default hub_model)")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of built sets of real pictures")
    parser.add_argument("--real", type=Path, required=True, help="folder that holds vqa-rad/ and slake/ as published")
    parser.add_argument("--out", type=Path, default=Path("runs/real_pictures"), help="folder for answers and figures")
    parser.add_argument("--limit", type=int, help="so many questions of each source but VQA-RAD and SLAKE at most")
    parser.add_argument("--fit", action="store_true", help="calibrate on the validation split first")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the computation (default: of the weights)")
    arguments = parser.parse_args()
    with resumable_command():
        result = report(
            arguments.model,
            arguments.data,
            arguments.real,
            arguments.out,
            arguments.limit,
            arguments.dtype,
            calibrate=arguments.fit,
        )
    print(markdown(result), end="")


if __name__ == "__main__":
    main()
