# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Speed and activation memory of the vision encoder beside transformers' VideoLlama3, with equal weights and inputs.

    python -m benchmarks.encoder --json encoder.json

Frames are slices of the MNI152 T1 volume that nilearn ships. Runs of the two models take turns in one process, and
the figures are medians with the range from first to third quartile. Where both compute the same, the largest difference
of their outputs is written beside it. With `prune_stage="encoder"` ours encodes only the tokens that the pruner keeps,
the peer all of them. The memory figures are the peak of what one pass allocates beyond the input tensors, with the
returned tokens (which grow with the clip whatever the encoder does) and without them.

On a CPU everything is float32 with sdpa; on an NVIDIA GPU bfloat16, and ours also with xformers and flash_attention_2
where these are installed. The pruner is measured where the encoder is, and beside a GPU on the CPU too; the rule
"spatial" always runs on the CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nilearn
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm
from transformers.models.video_llama_3.configuration_video_llama_3 import VideoLlama3VisionConfig
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3VisionModel
from transformers.utils import is_flash_attn_2_available

from benchmarks.report import write_json
from benchmarks.timing import seconds_in_turn, summary
from data_engine.tables import markdown_table
from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.media_omniv_med import load_clip
from hub_model.modeling_omniv_med import OmniVMedVisionModel
from hub_model.pruning_noise_omniv_med import estimate_noise
from hub_model.token_pruning_omniv_med import PruneRule, prune_tokens
from hub_model.visual_processing_omniv_med import patchify, resize_frames

MNI152 = Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SIZE = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}
PATCH_SIZE, MERGE_SIZE = 14, 2
CASES = {
    "64 frames of 16×16 patches": (64, 16),
    "128 frames of 8×8 patches": (128, 8),
    "one image of 16×16 patches": (1, 16),
    "one image of 32×32 patches": (1, 32),
}
MEMORY_FRAMES, MEMORY_SIDE = (64, 512), 16
PRUNING = {"threshold": 0.1}


def device_and_dtype() -> tuple[str, torch.dtype]:
    return ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)


def backends() -> list[str]:
    """sdpa, and what else can run here."""
    if not torch.cuda.is_available():
        return ["sdpa"]
    extra = {"xformers": find_spec("xformers") is not None, "flash_attention_2": is_flash_attn_2_available()}
    for name in (name for name, installed in extra.items() if not installed):
        print(f"{name} is not installed and left out.")
    return ["sdpa", *(name for name, installed in extra.items() if installed)]


def slices(frames: int, side: int) -> torch.Tensor:
    """Tokens (T, N, merge², 3, patch, patch) of that many slices of the brain, `side` patches wide."""
    shown = load_clip(str(MNI152), max_frames=min(frames, 128)).frames
    if frames == 1:  # the middle slice: the outermost are empty
        shown = load_clip(str(MNI152), max_frames=3).frames[1:2]
    tokens = patchify(resize_frames(shown, side * PATCH_SIZE, side * PATCH_SIZE), PATCH_SIZE, MERGE_SIZE)
    return tokens.repeat(-(-frames // len(tokens)), 1, 1, 1, 1, 1)[:frames]


def encoder_inputs(tokens: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    device, dtype = device_and_dtype()
    inputs = {
        "pixel_values": tokens.flatten(0, 2).flatten(1).to(dtype),
        "grid_thw": torch.tensor([[len(tokens), side, side]]),
        "merge_sizes": torch.tensor([MERGE_SIZE]),
    }
    return {name: value.to(device) for name, value in inputs.items()}


def build_pair() -> tuple[OmniVMedVisionModel, VideoLlama3VisionModel]:
    """Both encoders with the same random weights."""
    torch.manual_seed(0)
    device, dtype = device_and_dtype()
    theirs = VideoLlama3VisionModel._from_config(
        VideoLlama3VisionConfig(**SIZE, patch_size=PATCH_SIZE), attn_implementation="sdpa"
    )
    ours = OmniVMedVisionModel._from_config(
        OmniVMedVisionConfig(**SIZE, patch_size=PATCH_SIZE), attn_implementation="sdpa"
    )
    ours.load_state_dict(theirs.state_dict())
    return ours.to(device, dtype).eval(), theirs.to(device, dtype).eval()


@torch.no_grad()
def measure_speed(name: str, backend: str, repeats: int) -> dict[str, Any]:
    """One case: the peer, ours without pruning, ours with pruning in the encoder, and the pruner."""
    frames, side = CASES[name]
    ours, theirs = build_pair()
    ours.set_attn_implementation(backend)
    tokens = slices(frames, side)
    inputs = encoder_inputs(tokens, side)

    def prune(judged: torch.Tensor, rule: PruneRule = "anchor") -> torch.Tensor:
        noise, columns = estimate_noise(judged), side // MERGE_SIZE
        return prune_tokens(judged, rule, **PRUNING, noise=noise, columns=columns).keep_mask

    on_device = tokens.to(inputs["grid_thw"].device)
    keep_mask = prune(on_device).flatten()

    def encode_pruned() -> torch.Tensor:
        return ours(**inputs, keep_mask=keep_mask, prune_stage="encoder").last_hidden_state

    difference = (ours(**inputs).last_hidden_state - theirs(**inputs).last_hidden_state).abs().max()
    calls = {"peer": lambda: theirs(**inputs), "ours": lambda: ours(**inputs)}
    if frames > 1:
        pruned_difference = (encode_pruned() - theirs(**inputs).last_hidden_state[keep_mask]).abs().mean()
        assert pruned_difference > 0, "Tokens that are not encoded cannot be seen by the others."
        calls |= {"ours, pruned": encode_pruned, "pruner": lambda: prune(on_device)}
        calls |= {"spatial pruner": lambda: prune(tokens, "spatial")}
        if on_device.is_cuda:
            calls |= {"pruner on the CPU": lambda: prune(tokens)}
    times = seconds_in_turn(calls, repeats)
    figures = {call: summary(elapsed) for call, elapsed in times.items()}
    peer = figures["peer"]["median_s"]
    ratios = {call: peer / figures[call]["median_s"] for call in figures if call.startswith("ours")}
    result = {"case": name, "backend": backend, "largest_difference": float(difference), **figures, "speed": ratios}
    if frames > 1:
        result["removed"] = 1 - float(keep_mask.float().mean())
        for pruner in ("pruner", "spatial pruner"):
            result[f"{pruner.replace(' ', '_')}_share"] = figures[pruner]["median_s"] / figures["ours"]["median_s"]
    return result


@torch.no_grad()
def peak_memory(call: Callable[[], Any]) -> int:
    """Most bytes allocated at one time by a call, above what was there before it, its result counted."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    held, peak = 0, 0
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    del result
    return peak


def measure_memory(backend: str) -> dict[str, Any]:
    """Peak bytes of a short and a long clip for both encoders."""
    ours, theirs = build_pair()
    ours.set_attn_implementation(backend)
    result: dict[str, Any] = {"backend": backend, "frames": MEMORY_FRAMES, "patches": [MEMORY_SIDE, MEMORY_SIDE]}
    element = device_and_dtype()[1].itemsize
    for name, model in (("ours", ours), ("peer", theirs)):
        peaks = []
        for frames in MEMORY_FRAMES:
            inputs = encoder_inputs(slices(frames, MEMORY_SIDE), MEMORY_SIDE)
            peaks.append(peak_memory(lambda model=model, inputs=inputs: model(**inputs)))
        outputs = [
            frames * (MEMORY_SIDE // MERGE_SIZE) ** 2 * SIZE["hidden_size"] * element for frames in MEMORY_FRAMES
        ]
        activations = [peak - output for peak, output in zip(peaks, outputs, strict=True)]
        result[name] = {
            "peak_bytes": peaks,
            "growth": peaks[1] / peaks[0],
            "activation_bytes": activations,
            "activation_growth": activations[1] / activations[0],
        }
    return result


def tables(speed: list[dict[str, Any]], memory: list[dict[str, Any]]) -> str:
    """Both tables as Markdown."""
    rows = []
    for item in speed:
        pruned = item.get("ours, pruned")
        rows.append(
            [
                item["case"],
                item["backend"],
                f"{item['peer']['median_s']:.3f} s",
                f"{item['ours']['median_s']:.3f} s",
                f"{item['speed']['ours']:.2f}×",
                f"{pruned['median_s']:.3f} s" if pruned else "",
                f"{item['speed']['ours, pruned']:.2f}× at {item['removed']:.0%}" if pruned else "",
                f"{item['pruner_share']:.1%}, {item['spatial_pruner_share']:.1%}" if pruned else "",
            ]
        )
    header = [
        "frames",
        "backend",
        "VideoLlama3",
        "ours",
        "speed",
        "ours, pruned",
        "speed at removed",
        "pruner's share, spatial",
    ]
    memory_rows = []
    for item in memory:
        for name in ("ours", "peer"):
            short, long = (f"{peak / 2**20:.0f} MiB" for peak in item[name]["peak_bytes"])
            label = "ours" if name == "ours" else "VideoLlama3"
            growths = [f"{item[name][key]:.2f}×" for key in ("growth", "activation_growth")]
            memory_rows.append([label, item["backend"], short, long, *growths])
    memory_header = ["encoder", "backend", *(f"peak, {frames} frames" for frames in MEMORY_FRAMES)]
    memory_header += ["growth", "growth without the output"]
    return markdown_table(header, rows) + "\n\n" + markdown_table(memory_header, memory_rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds (default 9)")
    arguments = parser.parse_args()
    rounds = [(case, backend) for backend in backends() for case in CASES]
    speed = [measure_speed(case, backend, arguments.repeats) for case, backend in tqdm(rounds)]
    memory = [measure_memory(backend) for backend in backends()]
    write_json(arguments.json, "encoder", {"repeats": arguments.repeats, "speed": speed, "memory": memory})
    print(tables(speed, memory))


if __name__ == "__main__":
    main()
