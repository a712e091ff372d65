# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What pruning removes from real clips, how far stand-ins are from the truth, and whether small lesions survive.

    python -m benchmarks.pruning --json pruning.json [--picture mni152.png]

The clips come with packages that the tests need: the MNI152 T1 average (nilearn), one person's MR scan (nibabel's
example4d) and an echocardiogram (pydicom). The rules are ours (the processor's defaults), the published one
("previous", threshold 0.1) and random removal that keeps exactly as many tokens as each of the two.

Lesions are spheres, 4–20 mm wide, that change the display by 10–40 % of its range, at seeded places inside the body.
In the film the sphere passes through the picture as a probe is moved at 20 mm/s. A lesion survives when at least half
of its contrast (lesion minus no lesion, summed over its pixels) is in the reconstruction, that is, in what the language
model gets: kept tokens, and for each removed one the token that stands for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import nilearn
import numpy as np
import torch
from pydicom.data import get_testdata_file
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from benchmarks.report import markdown_table, share_with_interval, write_json
from hub_model.processing_omniv_med import OmniVMedProcessor, ProcessedClip
from hub_model.pruning_heatmap_omniv_med import draw_heatmap
from hub_model.token_pruning_omniv_med import PrunedTokens, estimate_noise, prune_tokens, reconstruct
from hub_model.visual_processing_omniv_med import patchify, unpatchify

HUB_MODEL = Path(__file__).resolve().parents[1] / "hub_model"
FRAME_TOKENS = (64, 16)
"""Tokens of a frame: about 224×224 pixels, and 112×112 as the embedded Nano has them."""
MAX_FRAMES = 256
RULES = {
    "ours": {},
    "previous frame": {"prune_rule": "previous", "prune_threshold": 0.1},
}
DIAMETERS = (4.0, 20.0)  # mm
CONTRASTS = (0.1, 0.4)  # of the display range
DISPLAY_RANGE = 2.0  # pixel values lie in [-1, 1]
BODY_LEVEL = -0.6  # darker pixels are background
SWEEP_SPEED = 20.0  # mm/s
SURVIVING_CONTRAST = 0.5


def real_clips() -> dict[str, str]:
    """Names and paths of the real clips."""
    mni152 = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    return {
        "MNI152 T1 average (nilearn)": str(Path(nilearn.__file__).parent / mni152),
        "MR head, one person (nibabel)": str(Path(nibabel.__file__).parent / "tests/data/example4d.nii.gz"),
        "echocardiogram (pydicom)": get_testdata_file("examples_ybr_color.dcm", download=False),
    }


@dataclass(frozen=True)
class Sphere:
    """A lesion to put into frames (T, 3, H, W).

    Attributes:
        weights: float (T, H, W), the share of each pixel that it fills.
        change: what it adds to the pixel values it fills; negative where the body is bright.
    """

    weights: torch.Tensor
    change: float


def pixel_axes(processed: ProcessedClip, frames: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where slices, rows and columns lie, in millimetres; seconds of a film become millimetres of a probe's sweep."""
    clip = processed.clip
    depth = clip.positions * (SWEEP_SPEED if clip.kind == "video" else 1.0)
    rows = np.arange(frames.shape[2]) * clip.pixel_spacing[0] * clip.frames.shape[1] / frames.shape[2]
    columns = np.arange(frames.shape[3]) * clip.pixel_spacing[1] * clip.frames.shape[2] / frames.shape[3]
    return depth, rows, columns


def lesions(processed: ProcessedClip, frames: torch.Tensor, count: int, seed: int) -> Iterator[Sphere]:
    """Draws lesions at seeded places inside the body that show over their whole contrast."""
    rng = np.random.default_rng(seed)
    axes = pixel_axes(processed, frames)
    brightness = frames.mean(dim=1)
    body = (brightness > BODY_LEVEL).nonzero().numpy()
    while count:
        centre = body[rng.integers(len(body))]
        radius, contrast = rng.uniform(*DIAMETERS) / 2, rng.uniform(*CONTRASTS) * DISPLAY_RANGE
        z, y, x = (axis - axis[index] for axis, index in zip(axes, centre, strict=True))
        distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
        pixel = axes[2][1] - axes[2][0]
        weights = torch.from_numpy(np.clip((radius - distance) / pixel + 0.5, 0, 1)).float()
        around = float((brightness * weights).sum() / weights.sum())
        yield Sphere(weights, contrast if around < 0 else -contrast)
        count -= 1


def surviving_contrast(difference: torch.Tensor, pruned: PrunedTokens) -> float:
    """The share of a lesion's contrast, tokens (T, N, …) of with minus without, that is in the reconstruction."""
    shown = reconstruct(difference, pruned)[difference != 0]
    return float(shown.sum() / difference.sum())


def random_pruning(keep_mask: torch.Tensor, kept: int, generator: torch.Generator) -> PrunedTokens:
    """Keeps the first frame and, of the rest of (T, N), tokens drawn at random, `kept` in all."""
    frames, places = keep_mask.shape
    mask = torch.zeros(frames * places, dtype=torch.bool)
    mask[:places] = True
    mask[places + torch.randperm((frames - 1) * places, generator=generator)[: kept - places]] = True
    mask = mask.view(frames, places)
    stand_in = torch.where(mask, torch.arange(frames)[:, None], 0).cummax(dim=0).values
    nothing = torch.zeros(frames, places)
    return PrunedTokens(mask, stand_in, nothing, nothing, 0.0)


def stand_in_errors(tokens: torch.Tensor, pruned: PrunedTokens) -> tuple[float, float]:
    """Mean over the removed tokens, and worst, mean absolute difference to the stand-in."""
    errors = (tokens - reconstruct(tokens, pruned)).abs().flatten(2).mean(dim=-1)[~pruned.keep_mask]
    return (float(errors.mean()), float(errors.max())) if len(errors) else (0.0, 0.0)


def measure_clip(
    processor: OmniVMedProcessor, path: str, rule: dict[str, Any], count: int, seed: int
) -> dict[str, Any]:
    """Removal, errors and lesion survival of one rule on one clip, and of random removal of as many tokens."""
    processed = processor.process_clip(processor.load(path), **rule)
    tokens, base = processed.tokens, processed.pruned
    settings = {
        "rule": rule.get("prune_rule", processor.prune_rule),
        "threshold": rule.get("prune_threshold", processor.prune_threshold),
        "peak_threshold": processor.peak_threshold,
        "noise": estimate_noise(tokens),
    }
    frames = unpatchify(tokens, *processed.grid)
    side = processor.patch_size * processor.merge_size
    columns = processed.grid[1]
    generator = torch.Generator().manual_seed(seed)
    survived, survived_at_random = 0, 0
    for sphere in tqdm(lesions(processed, frames, count, seed), total=count, leave=False):
        touched = sphere.weights.amax(dim=0) > 0
        top, bottom, left, right = _token_box(touched, side)
        window = frames[:, :, top * side : bottom * side, left * side : right * side]
        weights = sphere.weights[:, None, top * side : bottom * side, left * side : right * side]
        lesioned = (window + weights * sphere.change).clamp(-1, 1)
        difference = patchify(lesioned - window, processor.patch_size, processor.merge_size)
        # A token is judged by its own place alone, so the places that the lesion does not touch stay as they are.
        here = prune_tokens(patchify(lesioned, processor.patch_size, processor.merge_size), **settings)
        survived += surviving_contrast(difference, here) >= SURVIVING_CONTRAST
        places = (torch.arange(top, bottom)[:, None] * columns + torch.arange(left, right)).flatten()
        kept = int(base.keep_mask.sum() - base.keep_mask[:, places].sum() + here.keep_mask.sum())
        drawn = random_pruning(base.keep_mask, kept, generator)
        drawn_here = PrunedTokens(
            drawn.keep_mask[:, places], drawn.stand_in[:, places], drawn.errors, drawn.scores, drawn.threshold
        )
        survived_at_random += surviving_contrast(difference, drawn_here) >= SURVIVING_CONTRAST
    mean_error, worst_error = stand_in_errors(tokens, base)
    drawn = random_pruning(base.keep_mask, int(base.keep_mask.sum()), generator)
    random_mean, random_worst = stand_in_errors(tokens, drawn)
    return {
        "frames": len(tokens),
        "tokens_before": processed.tokens_before,
        "tokens_after": processed.tokens_after,
        "label_tokens": processed.label_tokens,
        "removed": processed.reduction,
        "noise": settings["noise"],
        "threshold": base.threshold,
        "mean_error": mean_error,
        "worst_error": worst_error,
        "survival": share_with_interval(survived, count),
        "random": {
            "mean_error": random_mean,
            "worst_error": random_worst,
            "survival": share_with_interval(survived_at_random, count),
        },
    }


def _token_box(touched: torch.Tensor, side: int) -> tuple[int, int, int, int]:
    """First and one past the last row and column of tokens, `side` pixels wide, that a mask (H, W) touches."""
    rows, columns = (touched.any(dim=dim).nonzero().squeeze(1) // side for dim in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def build_processor(frame_tokens: int) -> OmniVMedProcessor:
    """A processor that gives every frame about `frame_tokens` tokens and reads every frame of the real clips."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HUB_MODEL)
    return OmniVMedProcessor(
        tokenizer, min_frame_tokens=frame_tokens, max_frame_tokens=frame_tokens, max_frames=MAX_FRAMES, fps=100.0
    )


def measure(count: int, seed: int) -> list[dict[str, Any]]:
    """All clips at both frame sizes under all rules."""
    results = []
    for frame_tokens in FRAME_TOKENS:
        processor = build_processor(frame_tokens)
        for name, path in real_clips().items():
            for rule, options in RULES.items():
                figures = measure_clip(processor, path, options, count, seed)
                results.append({"clip": name, "frame_tokens": frame_tokens, "rule": rule, **figures})
    return results


def table(results: list[dict[str, Any]]) -> str:
    """The figures as Markdown; random removal of as many tokens stands behind each rule."""

    def percent(survival: dict[str, float]) -> str:
        return f"{survival['share']:.1%} ({survival['low']:.1%}–{survival['high']:.1%})"

    header = [
        "clip",
        "tokens a frame",
        "rule",
        "removed",
        "mean error",
        "worst error",
        "lesions that survive",
        "at random",
    ]
    rows = [
        [
            item["clip"],
            str(item["frame_tokens"]),
            item["rule"],
            f"{item['removed']:.1%}",
            f"{item['mean_error']:.3f}",
            f"{item['worst_error']:.3f}",
            percent(item["survival"]),
            percent(item["random"]["survival"]),
        ]
        for item in results
    ]
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--lesions", type=int, default=500, help="lesions for each clip and rule (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of places, sizes and contrasts (default 0)")
    parser.add_argument("--picture", metavar="PNG", help="where slices of the first clip are drawn with removed tokens")
    arguments = parser.parse_args()
    if arguments.picture:
        processor = build_processor(FRAME_TOKENS[0])
        draw_heatmap(processor.process_clip(processor.load(next(iter(real_clips().values())))), arguments.picture)
    results = measure(arguments.lesions, arguments.seed)
    write_json(arguments.json, "pruning", {"lesions": arguments.lesions, "seed": arguments.seed, "results": results})
    print(table(results))


if __name__ == "__main__":
    main()
