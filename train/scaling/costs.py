# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the recipe's 1.5B and 7B would cost on the paper's 252,000 samples: GPU hours, memory and disk.

    python -m train.scaling.costs --data data/mini data/real --set-plan benchmarks/results/data_engine.json \\
        --json benchmarks/results/scaling_costs.json

Operations are counted on the real models (`train.scaling.flops`), for conversations whose media have the shapes of the
sources and whose words are as many as in the sets given. Memory is that of `train.memory.plan`; the set's size on disk
is what `benchmarks.data_engine` wrote. None of these runs was made; `ASSUMPTIONS` says what the figures rest on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from data_engine.files import write_atomically
from data_engine.records import DIMENSIONS
from data_engine.tables import markdown_table
from hub_model.processing_omniv_med import OmniVMedProcessor
from hub_model.visual_processing_omniv_med import token_grid
from train.checkpoints.assemble import HUB_MODEL
from train.config import StageConfig
from train.dataset.mixed_dataset import TEXT
from train.memory.plan import PlannedBatch, plan_stage, read_architecture
from train.scaling.flops import step_flops
from train.scaling.words import Words, read_words

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SIZES = ("1.5b", "7b")
STAGES = ("stage1", "stage2", "stage3")
DEVICES, DEVICE_MEMORY, STRATEGY = 8, 80 * 10**9, "fsdp2"

PEAKS = {"H100 SXM": 989.4e12, "A100 SXM": 312e12}
"""Operations a second in bfloat16, dense: NVIDIA's data sheets (the H100's 1,979 · 10¹² are with sparsity, twice)."""
UTILISATION = (0.5, 0.3)
"""Assumed: the best and the worst share of the peak, recomputation counted as work."""

GENERATED = "phantoms"
DIMENSION_OF = {
    "m3d-cap": "3d",
    "image-text-matching": "3d",
    "m3d-vqa-closed": "3d",
    "m3d-vqa-open": "3d",
    "m3d-positioning": "3d",
    "vqa-rad": "2d",
    "slake": "2d",
    "path-vqa": "2d",
    "pmc-vqa": "2d",
    "mimic-cxr": "2d",
    "video-folder": "video",
}
"""What each source of data_engine/configs/instruct.yaml holds; generated samples are of all three."""
GENERATED_SHARES = {"2d": 0.75, "3d": 0.143, "video": 0.107}
REPORTS_AMONG = {"m3d-cap": 1.0, "mimic-cxr": 1.0, "video-folder": 0.5, GENERATED: 0.16}
"""Share of reports and captions in a source; of generated ones as in data/mini, of videos assumed."""
FRAME_SIZES = {"2d": (1, 1024, 1024), "3d": (32, 256, 256), "video": (64, 480, 640)}
"""Frames, height and width in pixels: a picture with as many tokens as one may have, M3D's arrays, and a film of a
minute or more at one frame a second, as many frames as the stages take."""

BYTES_TRAINED = 4 + 8
"""Of a trained weight in a checkpoint: float32, and two moments of AdamW."""
CHECKPOINTS = 3
"""A stage keeps two, and a third for a moment while it is written."""

ASSUMPTIONS = (
    "The GPU's share of its dense bfloat16 peak is 30 to 50 %, recomputation counted as work; we have not measured it.",
    "Only products of matrices count. Reading media, validation, checkpoints, failed runs and idle GPUs do not.",
    "Each stage takes the `epochs` of its file: as many conversations as there are, drawn in the file's shares.",
    "Up to three records about one medium are one conversation, source by source, as in benchmarks.data_engine's plan.",
    "A picture has as many tokens as one may have, a volume M3D's 32 × 256 × 256, a film 64 frames of 480 × 640.",
    "Volumes and films keep the share of tokens that pruning keeps in the sets given, within the stage's budget.",
    "A conversation has the words of the sets given, in the Nano's tokens; text alone has a picture's words.",
    "Of the videos' records half are captions; the random dropping of visual tokens is left out.",
    "Memory is what train.memory.plan says of FSDP2 on eight devices for the longest batch, not for the mean one.",
    "Disk: checkpoints and models of all stages stay; a third checkpoint exists while it is written.",
)


@dataclass(frozen=True)
class Amounts:
    """How many conversations of one dimension the full set has.

    Attributes:
        conversations: media with up to three of their records.
        media: files, each once.
        images: media of a conversation.
    """

    conversations: float
    media: float
    images: float


def amounts_of(rows: Sequence[Mapping[str, Any]], questions: int, reports_alone: bool) -> dict[str, Amounts]:
    """Conversations and media of each dimension.

    Args:
        rows: of `benchmarks.data_engine`: source, records, media, disk_gb.
        questions: records about one medium that a conversation joins at most.
        reports_alone: counts reports and captions alone, of which a medium has one.
    """
    conversations, media, shown = (dict.fromkeys(DIMENSIONS, 0.0) for _ in range(3))
    for row in rows:
        source = row["source"]
        shares = GENERATED_SHARES if source == GENERATED else {DIMENSION_OF[source]: 1.0}
        each = row["records"] / row["media"]
        joined = row["media"] * math.ceil(each / questions) if each > 1 else row["records"]
        if reports_alone:
            joined = row["records"] * REPORTS_AMONG.get(source, 0.0)
        for dimension, share in shares.items():
            conversations[dimension] += share * joined
            shown[dimension] += share * joined * max(1.0, 1 / each)
            if row["disk_gb"]:  # of the others the files are another source's
                media[dimension] += share * row["media"]
    return {
        one: Amounts(conversations[one], media[one], shown[one] / max(conversations[one], 1.0)) for one in DIMENSIONS
    }


def mean_batch(dimension: str, words: Words, stage: StageConfig, architecture: dict[str, Any]) -> PlannedBatch:
    """One conversation of a dimension with the media of the sources and the words of the sets."""
    options = {"min_frame_tokens": 16} | architecture["processor"] | stage.pruning
    frames, height, width = FRAME_SIZES[dimension]
    side = options["patch_size"] * options["merge_size"]
    rows, columns = token_grid(height, width, side, options["min_frame_tokens"], options["max_frame_tokens"])
    frames = min(frames, options["max_frames"])
    # PlannedBatch lays frames out as squares; what is lost of an oblong one is less than a row.
    frame_tokens = math.isqrt(rows * columns) * (rows * columns // math.isqrt(rows * columns))
    visual = min(round(words.kept * frames * frame_tokens), options["max_visual_tokens"] or sys.maxsize)
    text = round(words.text + frames * words.label)
    return PlannedBatch(
        conversations=1,
        length=min(visual + text, stage.data.longest),
        visual=visual,
        scored=max(round(words.scored), 1),
        frames=frames,
        frame_tokens=frame_tokens,
        merge=options["merge_size"],
        separate=stage.data.separate_questions,
    )


def text_batch(words: Words, stage: StageConfig) -> PlannedBatch:
    """One conversation without media."""
    length, scored = round(words.text), max(round(words.scored), 1)
    return PlannedBatch(1, length, 0, scored, 0, 1, 1, stage.data.separate_questions)


def gpu_hours(flops: float, peak: float, utilisation: float) -> float:
    """Hours of one GPU.

    Args:
        flops: operations.
        peak: operations a second.
        utilisation: share of the peak that is reached.
    """
    return flops / (peak * utilisation) / 3600


def stage_cost(size: str, name: str, words: Mapping[str, Words], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Conversations, operations, hours, memory and disk of one stage."""
    path = CONFIGS / size / f"{name}.yaml"
    stage, architecture = StageConfig.read(path), read_architecture(path)
    amounts = amounts_of(rows, stage.data.questions_per_conversation, stage.data.tasks is not None)
    drawn = stage.epochs * sum(one.conversations for one in amounts.values())
    batches, flops = {}, {}
    for kind, share in stage.data.shares.items():
        if not share:
            continue
        if kind == TEXT:
            batches[kind] = text_batch(words["2d"], stage)
            flops[kind] = float(step_flops(architecture, stage, batches[kind]))
            continue
        batches[kind] = mean_batch(kind, words[kind], stage, architecture)
        flops[kind] = float(step_flops(architecture, stage, batches[kind]))
        if (more := amounts[kind].images - 1) > 1e-6:
            batch = batches[kind]
            length = batch.length + batch.visual
            twice = replace(batch, frames=2 * batch.frames, visual=2 * batch.visual, length=length)
            flops[kind] += more * (step_flops(architecture, stage, twice) - flops[kind])
    total = drawn * sum(stage.data.shares[kind] * flops[kind] for kind in flops)
    (memory,) = plan_stage(path, (STRATEGY,), DEVICES, DEVICE_MEMORY, measure=False)
    counts = memory["parameters"]
    left = counts["all"] if stage.trains_language_model_in_full else counts["trained"]
    return {
        "model": size,
        "stage": name,
        "parameters": counts["all"],
        "trained": counts["trained"],
        "conversations": round(drawn),
        "tokens_of_a_conversation": {kind: batch.length for kind, batch in batches.items()},
        "visual_tokens_kept": {kind: batch.visual for kind, batch in batches.items()},
        "patches_encoded": {kind: batch.patches for kind, batch in batches.items()},
        "images_of_a_2d_conversation": amounts["2d"].images,
        "flops_of_a_conversation": flops,
        "flops": total,
        "gpu_hours": {gpu: [gpu_hours(total, peak, share) for share in UTILISATION] for gpu, peak in PEAKS.items()},
        "bytes_of_a_device": memory["with_reserve"],
        "checkpoint_bytes": CHECKPOINTS * BYTES_TRAINED * counts["trained"],
        "result_bytes": 4 * left,
    }


def cache_bytes(rows: Sequence[Mapping[str, Any]], stage: StageConfig, architecture: dict[str, Any]) -> float:
    """What prepared media take: a byte for each value of each patch, before pruning, within the stage's bound."""
    values = 3 * architecture["processor"]["patch_size"] ** 2
    nothing = Words(0.0, 0.0, 0.0, 1.0, 0)
    amounts = amounts_of(rows, stage.data.questions_per_conversation, reports_alone=False)
    needed = sum(
        amounts[kind].media * mean_batch(kind, nothing, stage, architecture).patches * values for kind in DIMENSIONS
    )
    return min(needed, stage.data.cache_gigabytes * 1e9)


def costs(folders: Sequence[Path], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All figures, for each size and stage."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HUB_MODEL)
    template = (HUB_MODEL / "chat_template.jinja").read_text(encoding="utf-8")
    stages: list[dict[str, Any]] = []
    models = []
    measured = {}
    for size in SIZES:
        path = CONFIGS / size / f"{STAGES[-1]}.yaml"
        stage, architecture = StageConfig.read(path), read_architecture(path)
        options = architecture["processor"] | stage.pruning
        words = read_words(folders, stage, OmniVMedProcessor(tokenizer, chat_template=template, **options))
        measured[size] = {kind: asdict(one) for kind, one in words.items()}
        of_size = [stage_cost(size, name, words, rows) for name in STAGES]
        stages += of_size
        assembled = 4 * of_size[0]["parameters"]
        models.append(
            {
                "model": size,
                "flops": sum(one["flops"] for one in of_size),
                "gpu_hours": {
                    gpu: [sum(one["gpu_hours"][gpu][place] for one in of_size) for place in range(len(UTILISATION))]
                    for gpu in PEAKS
                },
                "bytes_of_a_device": max(one["bytes_of_a_device"] for one in of_size),
                "set_bytes": 1e9 * sum(row["disk_gb"] for row in rows),
                "cache_bytes": cache_bytes(rows, stage, architecture),
                "checkpoint_bytes": sum(one["checkpoint_bytes"] for one in of_size),
                "model_bytes": assembled + sum(one["result_bytes"] for one in of_size),
            }
        )
    return {
        "samples": sum(row["records"] for row in rows),
        "peaks": PEAKS,
        "utilisation": UTILISATION,
        "strategy": STRATEGY,
        "devices": DEVICES,
        "words": measured,
        "stages": stages,
        "models": models,
        "assumptions": ASSUMPTIONS,
    }


def table_of_stages(report: Mapping[str, Any]) -> str:
    """The stages as Markdown."""
    header = ["model", "stage", "conversations", "10¹² operations each", "10¹⁸ in all"]
    header += [f"{gpu} hours" for gpu in report["peaks"]] + ["GB of a device"]
    rows = []
    for one in report["stages"]:
        rows.append(
            [
                one["model"],
                one["stage"].removeprefix("stage"),
                f"{one['conversations']:,}",
                f"{one['flops'] / one['conversations'] / 1e12:.1f}",
                f"{one['flops'] / 1e18:.2f}",
                *(_range(hours) for hours in one["gpu_hours"].values()),
                f"{one['bytes_of_a_device'] / 1e9:.1f}",
            ]
        )
    return markdown_table(header, rows)


def table_of_models(report: Mapping[str, Any]) -> str:
    """What each model takes in all, as Markdown."""
    header = ["model", *(f"{gpu} hours" for gpu in report["peaks"]), "GB of a device", "set", "prepared media"]
    header += ["checkpoints", "models", "disk in all"]
    rows = []
    for one in report["models"]:
        disk = [one[name] for name in ("set_bytes", "cache_bytes", "checkpoint_bytes", "model_bytes")]
        hours = [_range(found) for found in one["gpu_hours"].values()]
        gigabytes = [f"{size / 1e9:,.0f} GB" for size in (*disk, sum(disk))]
        rows.append([one["model"], *hours, f"{one['bytes_of_a_device'] / 1e9:.1f}", *gigabytes])
    return markdown_table(header, rows)


def _range(hours: Sequence[float]) -> str:
    low, high = (f"{one:,.0f}" if one >= 10 else f"{one:.1f}" for one in hours)
    return f"{low}–{high}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="built sets whose words are counted")
    parser.add_argument("--set-plan", type=Path, required=True, help="what benchmarks.data_engine wrote")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="file for the figures")
    arguments = parser.parse_args()
    try:
        rows = json.loads(arguments.set_plan.read_text(encoding="utf-8"))["results"]
        report = costs(arguments.data, rows)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    command = " ".join(["python -m train.scaling.costs", *sys.argv[1:]])
    with write_atomically(arguments.json) as part:
        text = json.dumps({"command": command, "torch": torch.__version__, **report}, indent=1, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")
    print(table_of_stages(report) + "\n\n" + table_of_models(report))
    print("\n" + "\n".join(f"- {one}" for one in report["assumptions"]))


if __name__ == "__main__":
    main()
