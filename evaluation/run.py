# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Asks a model a benchmark's questions and scores its answers.

    python -m evaluation.run --model hub_model --benchmark vqa-rad --data flaviagiammarino/vqa-rad --out runs/vqa-rad
    accelerate launch -m evaluation.run ...        # the questions are divided over processes

Answers are greedy and go into a ledger as they come: the same command goes on where it was stopped, with any number of
processes. `OUT/predictions.jsonl` holds all answers, `OUT/scores.json` the figures of `evaluation.score`, and where a
benchmark's answers are withheld, `OUT/submission.json` is what its owners score (`evaluation.submission`). `--blind`
asks about other samples' media instead (`evaluation.blind`); `evaluation.breakdown` sets both beside each other.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from accelerate import PartialState
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature

from data_engine.commands import resumable_command
from data_engine.files import write_atomically
from data_engine.ledger import Ledger, LedgerError, merge
from data_engine.records import REPORTS
from evaluation.benchmarks import (
    BENCHMARKS,
    GENERATED,
    PROMPTS,
    BenchmarkQuestion,
    find_data,
    read_benchmark,
)
from evaluation.blind import blinded
from evaluation.score import score_file, summarise
from evaluation.shared_media import can_share, generate_sharing
from evaluation.submission import SUBMISSIONS, write_submission
from hub_model.configuration_omniv_med import PRUNE_STAGES, PruneStage
from hub_model.token_pruning_omniv_med import check_rule

if TYPE_CHECKING:
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

LONGEST_REPORT = {"m3d-cap": 512, "medvidbench": 512, GENERATED: 64}
"""Benchmark -> new tokens of a report at most; 96 elsewhere. The longest true one of the generated set has 48."""
LONGEST_ANSWER = {GENERATED: 16, "medvidbench": 256}
"""Benchmark -> new tokens of any other answer at most; 32 elsewhere. The longest of the generated set has 9; a track in
MedVidBench is a list of boxes."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
PRUNE_STAGE = "prune_stage"
"""The one pruning option that `generate` takes; all others are the processor's."""


def parse_pruning(pairs: Sequence[str]) -> dict[str, Any]:
    """Options given as NAME=VALUE.

    Raises:
        ValueError: a pair without "=".
    """
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ValueError(
            f"--pruning takes NAME=VALUE, for example prune_rule=none or keep_ratio=0.2, not {wrong[0]!r}."
        )
    return {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def longest_answer(benchmark: str, question: BenchmarkQuestion) -> int:
    """New tokens that the answer to a question may have at most."""
    if question.task == REPORTS:
        return LONGEST_REPORT.get(benchmark, 96)
    return LONGEST_ANSWER.get(benchmark, 32)


def load(model: str, pruning: dict[str, Any], device: torch.device | str, dtype: str = "auto") -> tuple[Any, Any]:
    """Model and processor, from a folder or the Hub; "auto" takes the dtype of the weights.

    Args:
        pruning: options of the processor. `prune_stage` may be among them: it is checked here, and `generate` takes it.

    Raises:
        ValueError: an option that the model or the processor does not have.
    """
    of_processor = {name: value for name, value in pruning.items() if name != PRUNE_STAGE}
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=True, **of_processor)
    processor.tokenizer.padding_side = "left"  # many a checkpoint's own side is the right, for training
    loaded = AutoModelForImageTextToText.from_pretrained(model, trust_remote_code=True, dtype=dtype).eval().to(device)
    for name in pruning:
        if not hasattr(loaded.config.vision_config if name == PRUNE_STAGE else processor, name):
            raise ValueError(f"{model} has no pruning option {name!r}.")
    if "prune_rule" in pruning:
        check_rule(pruning["prune_rule"])
    if pruning.get(PRUNE_STAGE, PRUNE_STAGES[0]) not in PRUNE_STAGES:
        raise ValueError(f"{PRUNE_STAGE} is one of {', '.join(PRUNE_STAGES)}, not {pruning[PRUNE_STAGE]!r}.")
    return loaded, processor


@torch.inference_mode()
def generate(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    questions: Sequence[BenchmarkQuestion],
    prompts: str,
    max_new_tokens: int,
    prune_stage: PruneStage | None = None,
) -> list[tuple[str, int]]:
    """Greedy answers of one left-padded batch, and the tokens of each prompt.

    Args:
        prune_stage: of our own models alone; None takes the model's default.

    Raises:
        ValueError: media that cannot be read.
    """
    if can_share(processor, questions):
        return generate_sharing(model, processor, questions, prompts, max_new_tokens, prune_stage)
    chats = [question.messages(prompts) for question in questions]
    inputs: BatchFeature = processor.apply_chat_template(
        chats,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt", "padding": True},
    )
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    stage = {} if prune_stage is None else {PRUNE_STAGE: prune_stage}
    output = model.generate(**inputs.to(model.device), **stage, max_new_tokens=max_new_tokens, do_sample=False)
    texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [(text.strip(), length) for text, length in zip(texts, lengths, strict=True)]


def answer(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    questions: Sequence[BenchmarkQuestion],
    prompts: str,
    max_new_tokens: int,
    prune_stage: PruneStage | None = None,
) -> list[dict[str, Any]]:
    """Rows of predictions of a batch; a question whose media cannot be read says so and has an empty prediction."""
    try:
        answered = generate(model, processor, questions, prompts, max_new_tokens, prune_stage)
    except ValueError as error:
        if len(questions) == 1:
            return [questions[0].row() | {"prediction": "", "error": str(error)}]
        return [
            row for one in questions for row in answer(model, processor, [one], prompts, max_new_tokens, prune_stage)
        ]
    return [
        one.row() | {"prediction": text, "prompt_tokens": length}
        for one, (text, length) in zip(questions, answered, strict=True)
    ]


def ask_all(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    questions: Sequence[BenchmarkQuestion],
    ledger: Ledger,
    *,
    benchmark: str,
    prompts: str,
    batch_size: int,
    prune_stage: PruneStage | None = None,
    show_progress: bool = True,
) -> None:
    """Answers the questions that the ledger does not hold yet, with a progress bar.

    Questions whose prompts and answers are about as long share a batch, as all of it waits for the longest.
    """

    def length(one: BenchmarkQuestion) -> tuple[int, str]:
        return longest_answer(benchmark, one), one.dimension

    left = sorted((one for one in questions if one.id not in ledger.rows), key=length)
    with tqdm(
        total=len(questions), initial=len(questions) - len(left), unit="question", disable=not show_progress
    ) as bar:
        for _, alike in itertools.groupby(left, key=length):
            alike = list(alike)
            for start in range(0, len(alike), batch_size):
                batch = alike[start : start + batch_size]
                longest = longest_answer(benchmark, batch[0])
                for row in answer(model, processor, batch, prompts, longest, prune_stage):
                    ledger.append(row)
                    bar.update()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="folder or Hub id (default hub_model)")
    parser.add_argument("--benchmark", required=True, choices=BENCHMARKS)
    parser.add_argument("--data", required=True, help="folder that was downloaded, or id of a data set on the Hub")
    parser.add_argument("--out", type=Path, required=True, help="folder for answers and scores")
    parser.add_argument("--limit", type=int, help="ask the first so many questions only")
    parser.add_argument("--pruning", nargs="*", default=[], metavar="NAME=VALUE", help="for example keep_ratio=0.2")
    parser.add_argument("--prompts", choices=PROMPTS, default="plain", help="words after the question (default none)")
    parser.add_argument("--blind", action="store_true", help="replace each medium by another sample's")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the computation (default: of the weights)")
    arguments = parser.parse_args()
    with resumable_command():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """The whole command; raises `ValueError` for what a user can mend."""
    # Without an accelerator Accelerate must be told so, or it takes each of several processes for the only one.
    state = PartialState(cpu=not torch.accelerator.is_available())
    pruning = parse_pruning(arguments.pruning)
    questions, broken = read_benchmark(
        arguments.benchmark, find_data(arguments.data), arguments.out / "media", arguments.limit
    )
    if not questions:
        raise ValueError(f"{arguments.data} holds no test question of {arguments.benchmark} that can be asked.")
    settings = {
        "model": arguments.model,
        "benchmark": arguments.benchmark,
        "questions": len(questions),
        "pruning": pruning,
        "prompts": arguments.prompts,
        "dtype": arguments.dtype,
        "blind": arguments.blind,
    }
    if arguments.blind:
        questions = blinded(questions)
    # Answers of an earlier start, whatever the number of its processes, stay in their files and are not asked again.
    parts = sorted(arguments.out.glob("part-*.jsonl"))
    known = {row["id"] for row in merge(parts, [one.id for one in questions]).rows} if parts else set()
    state.wait_for_everyone()
    mine = [one for one in questions if one.id not in known][state.process_index :: state.num_processes]
    model, processor = load(arguments.model, pruning, state.device, arguments.dtype)
    with Ledger(arguments.out / f"part-{state.process_index:03d}.jsonl", settings) as ledger:
        ask_all(
            model,
            processor,
            mine,
            ledger,
            benchmark=arguments.benchmark,
            prompts=arguments.prompts,
            batch_size=arguments.batch_size,
            prune_stage=pruning.get(PRUNE_STAGE),
            show_progress=state.is_main_process,
        )
    state.wait_for_everyone()
    if state.is_main_process:
        finish(arguments.out, questions, broken)
        if arguments.benchmark in SUBMISSIONS and arguments.limit is None:
            submission = write_submission(
                arguments.benchmark, find_data(arguments.data), arguments.out / "predictions.jsonl", arguments.out
            )
            print(f"For the benchmark's owners: {submission}.")


def finish(out: Path, questions: Sequence[BenchmarkQuestion], broken: list[dict[str, str]]) -> None:
    """Joins the processes' answers, scores them and says where the figures are."""
    merged = merge(sorted(out.glob("part-*.jsonl")), [one.id for one in questions])
    if merged.missing:
        raise LedgerError(f"{len(merged.missing)} questions have no answer; run the same command again.")
    merged.write(out / "predictions.jsonl")
    figures = summarise(score_file(out / "predictions.jsonl"))
    unreadable = [{"id": row["id"], "reason": row["error"]} for row in merged.rows if "error" in row]
    figures |= {"settings": merged.settings, "broken_source_rows": broken, "unreadable_media": unreadable}
    with write_atomically(out / "scores.json") as part:
        part.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shown = {name: value for name, value in figures.items() if isinstance(value, (int, float))}
    print("\n".join(f"{name:20s} {value:.4g}" for name, value in shown.items()))
    print(f"{len(broken)} rows of the source are broken, {len(unreadable)} media could not be read (counted as wrong).")
    print(f"Answers: {out / 'predictions.jsonl'}. Figures with intervals: {out / 'scores.json'}.")


if __name__ == "__main__":
    main()
