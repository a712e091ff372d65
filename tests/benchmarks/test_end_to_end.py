# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark from a file to a token: both sides get the same, count the same, and what is derived from that."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models import video_llama_3
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import smart_resize
from transformers.models.video_llama_3.processing_video_llama_3 import VideoLlama3Processor

from benchmarks.end_to_end.cases import (
    CASES,
    CLIP_TOKENS,
    FRAME_TOKENS,
    NEW_TOKENS,
    PEER,
    SIDES,
    TOKEN_SIDE,
    Case,
    Run,
    Widths,
)
from benchmarks.end_to_end.figures import draw_stages, medians, ratios, table
from benchmarks.end_to_end.files import write_files
from benchmarks.end_to_end.floor import encoder_operations, floor, prompt_operations, step_bytes, text_weights
from benchmarks.end_to_end.measuring import STAGES, EncoderClock, ask
from benchmarks.end_to_end.models import write_models
from benchmarks.end_to_end.ours import Ours
from benchmarks.end_to_end.peer import Peer, compression_mask, placeholders, read_frames
from hub_model.media_omniv_med import load_clip
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from hub_model.visual_processing_omniv_med import token_grid
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Widths(
    layers=1,
    vision={"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2},
    text={"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2},
)


def shorter(case: Case) -> Case:
    """As a case, with so few and small frames that it takes no time."""
    return replace(case, frames=9, height=case.height // 2, width=case.width // 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The file of each case, shortened, and the models."""
    path = tmp_path_factory.mktemp("end_to_end")
    for case in CASES:
        write_files(shorter(case), path)
    write_models(path, SMALL, ["float32"])
    return path


def side_of(name: str, case: Case, folder: Path) -> Peer | Ours:
    return (Peer if name == PEER else Ours)(Run(case, "float32", name, 1), folder)


# The same on both sides.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_both_read_the_same_frames(case, folder):
    short = shorter(case)
    window = {"windows": [case.window]} if case.window else {}
    clip = load_clip(folder / case.file, kind=case.kind, max_frames=short.frames, **window)
    assert clip.frames.shape == (9, short.height, short.width, 3)
    np.testing.assert_array_equal(np.stack(read_frames(folder / case.file, short)), clip.frames)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_both_make_frames_of_the_same_size(case):
    tokens = CLIP_TOKENS // case.frames
    theirs = smart_resize(case.height, case.width, TOKEN_SIDE, max_pixels=tokens * TOKEN_SIDE**2)
    ours = token_grid(case.height, case.width, TOKEN_SIDE, FRAME_TOKENS[0], tokens)
    assert theirs == (ours[0] * TOKEN_SIDE, ours[1] * TOKEN_SIDE)
    assert FRAME_TOKENS[0] <= ours[0] * ours[1] <= tokens <= FRAME_TOKENS[1]


def test_both_models_compute_the_same(folder):
    case = shorter(CASES[0])
    peer, ours = side_of(PEER, case, folder), side_of("none", case, folder)
    inputs, keep, _ = peer.prepare(peer.read(folder / case.file, case))
    everything = torch.ones_like(keep)
    ids = torch.tensor([peer._tokenizer(placeholders(everything, "volume")).input_ids])
    videos = {name: inputs[name] for name in ("pixel_values_videos", "video_grid_thw", "video_merge_sizes")}
    with torch.no_grad():
        theirs = peer.model(input_ids=ids, **videos, video_compression_mask=everything.flatten()).logits
        same = ours.model(
            input_ids=ids,
            pixel_values=videos["pixel_values_videos"],
            grid_thw=videos["video_grid_thw"],
            merge_sizes=videos["video_merge_sizes"],
        ).logits
    torch.testing.assert_close(same, theirs, atol=1e-4, rtol=1e-4)


# The peer is transformers' own.


def test_the_compression_is_that_of_transformers():
    """Its class cannot be imported without torchvision, so its method is taken out of the source."""
    source = Path(video_llama_3.__file__).parent / "video_processing_video_llama_3.py"
    (method,) = (
        node
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "_get_compression_mask"
    )
    names: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module([method], []), str(source), "exec"), names)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(5, 4 * 6, 3 * 14 * 14, generator=generator)
    pixels[2] = pixels[1]  # a frame that repeats keeps one token
    pixels[4, 8:] = pixels[3, 8:] + 1e-4
    pixels = pixels.flatten(0, 1)
    theirs = names["_get_compression_mask"](None, pixels, torch.tensor([[5, 4, 6]]), torch.tensor([2]))
    mask = compression_mask(pixels, frames=5)
    assert mask.sum(dim=1).tolist() == [6, 6, 1, 6, 2]
    assert torch.equal(mask.flatten(), theirs)


def test_the_words_before_frames_are_those_of_transformers():
    keep = torch.tensor([[True, True], [True, False], [False, True]])
    given = {
        "video_grid_thw": torch.tensor([[3, 2, 4]]),
        "video_merge_sizes": torch.tensor([2]),
        "video_compression_mask": keep.flatten(),
        "video_metadata": [SimpleNamespace(fps=1, timestamps=[0.0, 1.0, 2.0])],
    }
    theirs = VideoLlama3Processor.replace_video_token(SimpleNamespace(video_token=MEDIA_TOKEN), given, 0)
    assert placeholders(keep, "video") == theirs
    assert placeholders(keep, "volume").count(MEDIA_TOKEN) == 4


# One run.


@pytest.mark.parametrize("name", SIDES)
def test_a_run_says_where_its_time_goes(name, folder):
    case = shorter(CASES[3])
    side = side_of(name, case, folder)
    found = ask(side, EncoderClock(side.model.model), case, folder / case.file)
    stages = found["seconds"]
    assert list(stages) == list(STAGES) and min(stages.values()) > 0
    assert sum(stages.values()) == pytest.approx(found["last_token_s"])
    assert found["first_token_s"] == pytest.approx(found["last_token_s"] - stages["decode"])
    assert found["frames"] == 9
    rows, columns = found["tokens_of_a_frame"]
    tokens = 9 * rows * columns
    assert found["visual_tokens"] == round(tokens * (1 - found["removed"])) < found["prompt_tokens"]
    assert (found["removed"] == 0) == (name == "none")
    encoded = found["visual_tokens"] if name == "encoder" else tokens
    assert found["encoded_patches"] == 4 * encoded
    if name != "encoder":
        assert found["encoded_pairs"] == 9 * (4 * rows * columns) ** 2


# What is derived from runs.


def run_of(side: str, seconds: float, peak: float, **changes: Any) -> dict[str, Any]:
    run = {
        "case": "a file",
        "dtype": "float32",
        "side": side,
        "round": 0,
        "seconds": dict.fromkeys(STAGES, seconds / 5),
        "first_token_s": seconds * 4 / 5,
        "last_token_s": seconds,
        "frames": 4,
        "tokens_of_a_frame": [2, 3],
        "removed": 0.0 if side in (PEER, "none") else 0.75,
        "visual_tokens": 24,
        "prompt_tokens": 30,
        "encoded_patches": 96,
        "encoded_pairs": 2304,
        "peak_bytes": peak,
        "before_bytes": 2e8,
    }
    return run | changes


RUNS = [run_of(PEER, 10, 1e9), run_of("none", 8, 9e8), run_of("language", 5, 7e8), run_of("encoder", 2, 4e8)]


def test_ratios_are_of_medians():
    slow = [run_of("encoder", seconds, 4e8, round=number) for number, seconds in ((1, 2.0), (2, 90.0))]
    ((key, found),) = ratios(medians([*RUNS, *slow])).items()
    assert key == "a file, float32"
    expected = {
        "first_token": 5,
        "last_token": 5,
        "memory": 0.4,
        "memory_beyond_model": 0.25,
        "removed": 0.75,
        "removed_by_peer": 0,
        "first_token_none": 10 / 8,
        "memory_none": 0.9,
        "first_token_language": 2,
        "memory_language": 0.7,
    }
    assert found == pytest.approx(expected)


def test_without_the_peer_there_is_no_ratio():
    assert ratios(medians(RUNS[1:])) == {}


def test_sides_must_have_the_same_frames_and_runs_the_same_counts():
    with pytest.raises(ValueError, match="another side"):
        medians([RUNS[0], run_of("none", 8, 9e8, frames=5)])
    with pytest.raises(ValueError, match="differ"):
        medians([RUNS[0], run_of(PEER, 10, 1e9, round=1, visual_tokens=23)])


def test_table_and_chart_show_every_case(tmp_path):
    entries = medians(RUNS)
    for entry in entries:
        entry["floor"] = {"first_token_s": 0.5}
    line = table(entries).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "a file, float32",
        "0% / 75%",
        "8.00 s",
        "6.40 s",
        "4.00 s",
        "1.60 s",
        "5.0×",
        "0.50 s",
        "10.00 s / 2.00 s",
        "1.00 GB / 0.40 GB",
        "0.40×",
    ]
    draw_stages(entries, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000


# The floor.


def counted(call) -> int:
    """Operations of matrix products that torch counts; with gradients, as it does not know the fused product."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_the_floor_counts_what_torch_counts(folder):
    case = shorter(CASES[0])
    side = side_of("none", case, folder)
    model = side.model
    model.set_attn_implementation("eager")
    inputs, _, (rows, columns) = side.prepare(side.read(folder / case.file, case))
    patches = 9 * rows * columns * 4
    run = {
        "encoded_patches": patches,
        "encoded_pairs": patches**2 / 9,
        "visual_tokens": 9 * rows * columns,
        "prompt_tokens": inputs["input_ids"].shape[1],
    }
    names = ("pixel_values", "grid_thw", "merge_sizes", "frame_positions", "patch_spacing")
    visual = {name: inputs[name] for name in names}
    assert encoder_operations(run, SMALL) == counted(lambda: model.get_image_features(**visual))
    length, width = run["prompt_tokens"], SMALL.text["hidden_size"]
    vocabulary = model.config.text_config.vocab_size
    ids = inputs["input_ids"].new_zeros(1, length)
    unseen = 2 * width * length**2  # eager attention computes what a token may not see, too
    floor_of_prompt = prompt_operations(length, SMALL, vocabulary)
    assert counted(lambda: model(input_ids=ids, logits_to_keep=1)) == floor_of_prompt + unseen
    layers = model.model.language_model.layers
    assert text_weights(SMALL) == sum(weight.numel() for weight in layers.parameters() if weight.ndim == 2)


def test_the_floor_is_arithmetic_and_then_bytes():
    run = {"encoded_patches": 1000, "encoded_pairs": 10**6, "visual_tokens": 100, "prompt_tokens": 120}
    rate = {"operations_per_s": 1e9, "bytes_per_s": 1e8}
    low = floor(run, SMALL, 1000, "bfloat16", rate)
    assert low["first_token_s"] == low["operations"] / 1e9
    step = low["last_token_s"] - low["first_token_s"]
    assert step == pytest.approx((NEW_TOKENS - 1) * step_bytes(120, SMALL, 1000, 2) / 1e8)
    cached = 2 * 120 * 16  # keys and values, of two of four heads
    assert step_bytes(120, SMALL, 1000, 2) == 2 * (text_weights(SMALL) + 1000 * 32 + cached)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's counters")
def test_the_command_measures_the_smallest_case(tmp_path):
    out, chart = tmp_path / "out.json", tmp_path / "chart.png"
    options = ["--cases", "ct64", "--layers", "1", "--rounds", "1", "--json", out, "--figure", chart]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.end_to_end", *options], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert list(found["ratios"]) == ["64 CT slices, NIfTI, float32", "64 CT slices, NIfTI, bfloat16"]
    for ratio in found["ratios"].values():
        assert ratio["removed"] >= 0.6
        assert ratio["first_token"] > 1 > ratio["memory"]
    assert [(run["dtype"], run["side"]) for run in found["runs"][:5]] == [
        *(("float32", side) for side in SIDES),
        ("bfloat16", PEER),
    ]
    assert all(run["peak_bytes"] > run["before_bytes"] for run in found["runs"])
    assert all(case["floor"]["first_token_s"] < case["first_token_s"] for case in found["cases"])
    assert chart.is_file()
