# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Decoding on a CPU by torch in float32 and by llama.cpp in float16: speed, and whether the answers stay the same.

    pip install -e '.[llama-cpp]'
    python -m train.checkpoints.language_model_gguf --model hub_model --out nano-f16.gguf
    python -m benchmarks.decoding data/mini data/real --gguf nano-f16.gguf --json benchmarks/results/decoding.json

Both are the same model: torch encodes, and the language model reads the same embeddings. For the speed both write the
same number of tokens about the same picture, volume and video and take turns; the clock runs from the first token to
the last, so the prompt is not in it. For the answers both are asked questions of the test splits of folders that
`data_engine.build` made, as many about volumes and videos as about pictures.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import LogitsProcessorList

from benchmarks.report import share_with_interval, write_json
from benchmarks.timing import Clock, take_turns
from data_engine.records import DIMENSIONS, Record, read_records
from data_engine.tables import markdown_table
from hub_model.answering_omniv_med import answer
from hub_model.llama_cpp_omniv_med import OmniVMedWithLlamaCpp
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import OmniVMedProcessor

ROOT = Path(__file__).resolve().parents[1]
MEDIA = {"image": "xray.png", "volume": "ct_volume.nii.gz", "video": "ultrasound.mp4"}
QUESTION = "Describe what is shown."
TORCH, LLAMA_CPP = "torch, float32", "llama.cpp, float16"
LONGEST_ANSWER = 64


def messages(kind: str, file: Path, question: str) -> list[dict[str, Any]]:
    """A conversation of one question about one file."""
    return [{"role": "user", "content": [{"type": kind, kind: str(file)}, {"type": "text", "text": question}]}]


def load(model: str, gguf: Path) -> dict[str, OmniVMedForConditionalGeneration]:
    """Both engines; each computes with as many threads as torch does now."""
    return {
        TORCH: OmniVMedForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval(),
        LLAMA_CPP: OmniVMedWithLlamaCpp.from_pretrained(model, gguf=gguf, dtype=torch.float32).eval(),
    }


def paces(
    engine: OmniVMedForConditionalGeneration, inputs: Mapping[str, torch.Tensor], tokens: int
) -> dict[str, float]:
    """Seconds to the first token, and tokens a second after it, of an answer that has exactly so many tokens."""
    clock = Clock()
    engine.generate(
        **inputs,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        logits_processor=LogitsProcessorList([clock]),
    )
    return {"first": clock.times[0], "rate": (tokens - 1) / (clock.times[-1] - clock.times[0])}


def speeds(model: str, gguf: Path, threads: int, tokens: int, rounds: int) -> list[dict[str, Any]]:
    """For each kind of medium the medians of each engine."""
    torch.set_num_threads(threads)
    processor, engines = OmniVMedProcessor.from_pretrained(model, trust_remote_code=True), load(model, gguf)
    rows = []
    for kind, name in MEDIA.items():
        inputs: Any = processor.apply_chat_template(
            messages(kind, ROOT / "examples" / "media" / name, QUESTION),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        calls: dict[str, Callable[[], dict[str, float]]] = {
            engine: partial(paces, one, inputs, tokens) for engine, one in engines.items()
        }
        found = take_turns(calls, rounds)
        row: dict[str, Any] = {"threads": threads, "kind": kind, "prompt_tokens": inputs["input_ids"].shape[1]}
        for engine, runs in found.items():
            row[engine] = {
                "tokens_a_second": median(run["rate"] for run in runs),
                "seconds_to_first_token": median(run["first"] for run in runs),
            }
        pairs = zip(found[LLAMA_CPP], found[TORCH], strict=True)
        row["speed"] = median(ours["rate"] / theirs["rate"] for ours, theirs in pairs)
        rows.append(row)
    return rows


def questions(folder: Path, each: int) -> Iterator[Record]:
    """Questions about one medium out of a folder's test split, evenly: so many of each kind, or all there are."""
    records = [record for record in read_records(folder / "test.jsonl") if len(record.media) == 1]
    for dimension in DIMENSIONS:
        of_kind = [record for record in records if record.dimension == dimension]
        count = min(each, len(of_kind))
        yield from (of_kind[number * len(of_kind) // count] for number in range(count))


def compare(model: str, gguf: Path, folders: Sequence[Path], each: int) -> dict[str, Any]:
    """What both engines answer: how many answers are word for word the same, and how far confidences differ."""
    processor, engines = OmniVMedProcessor.from_pretrained(model, trust_remote_code=True), load(model, gguf)
    rows: list[dict[str, Any]] = []
    for folder in folders:
        for record in questions(folder, each):
            (medium,) = record.media
            asked = messages(medium.type, folder / medium.path, record.question)
            answers = [answer(one, processor, asked, max_new_tokens=LONGEST_ANSWER) for one in engines.values()]
            theirs, ours = (found.likeliest or found.text for found in answers)
            difference = abs(answers[0].confidence - answers[1].confidence)
            rows.append({"id": record.id, "kind": medium.type, TORCH: theirs, LLAMA_CPP: ours, "differ_by": difference})
    same = [row for row in rows if row[TORCH] == row[LLAMA_CPP]]
    return {
        "same_answers": share_with_interval(len(same), len(rows)),
        "kinds": {kind: sum(row["kind"] == kind for row in rows) for kind in MEDIA},
        "largest_difference_of_confidence": max((row["differ_by"] for row in same), default=0.0),
        "different": [row for row in rows if row not in same],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The speeds as Markdown."""
    lines = [
        [
            str(row["threads"]),
            f"{row['kind']}, {row['prompt_tokens']} tokens",
            *(f"{row[engine]['tokens_a_second']:.1f}" for engine in (TORCH, LLAMA_CPP)),
            f"{row['speed']:.2f}×",
            *(f"{row[engine]['seconds_to_first_token']:.2f} s" for engine in (TORCH, LLAMA_CPP)),
        ]
        for row in rows
    ]
    header = ["threads", "prompt", f"{TORCH}: tokens/s", f"{LLAMA_CPP}: tokens/s", "speed", "torch: first", "llama.cpp"]
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders with a test.jsonl, as data_engine.build makes")
    parser.add_argument("--gguf", type=Path, required=True, help="the language model, written from --model")
    parser.add_argument("--json", type=Path, required=True, help="file to write the figures to")
    parser.add_argument("--model", default=str(ROOT / "hub_model"), help="folder or Hub id (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--tokens", type=int, default=64, help="that are timed (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="runs that count (default: %(default)s)")
    parser.add_argument("--each", type=int, default=20, help="questions of each kind and folder (default: %(default)s)")
    arguments = parser.parse_args()
    if importlib.util.find_spec("llama_cpp") is None:
        parser.error("llama-cpp-python is not installed; pip install -e '.[llama-cpp]' brings it.")
    rows = [
        row
        for threads in arguments.threads
        for row in speeds(arguments.model, arguments.gguf, threads, arguments.tokens, arguments.rounds)
    ]
    print(table(rows))
    compared = compare(arguments.model, arguments.gguf, arguments.folders, arguments.each)
    write_json(arguments.json, "decoding", {"tokens": arguments.tokens, "speeds": rows, "answers": compared})
    same = compared["same_answers"]
    print(
        f"\n{same['share']:.1%} of {same['n']} answers are the same ({same['low']:.1%} to {same['high']:.1%}); their "
        f"confidences differ by {compared['largest_difference_of_confidence']:.4f} at most."
    )


if __name__ == "__main__":
    main()
