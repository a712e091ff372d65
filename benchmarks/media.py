# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Time from a file to the encoder's patches: a volume beside nibabel, Pillow and transformers, a video beside PyAV.

    python -m benchmarks.media --json media.json

Volume: 181 axial slices of the MNI152 T1 volume that nilearn ships, as .nii and as .nii.gz. The peer loads them as
Hulu-Med does: nibabel, each slice scaled by its own extremes and made a Pillow image, then transformers' image
processor of VideoLlama3, which resizes each with Pillow; with its own bicubic filter, and once with the bilinear one
that ours uses. Both give as many patches of 14 x 14 pixels and three channels; ours are the processor's own steps
(`load_clip`, `frames_to_tokens`), of slices that are turned upright, so rows and columns change places.

Video: H.264 of 320 x 240 pixels at 25 frames a second, made here with x264's usual key frames, and with one each
second. Ours reads one frame a second; the peer decodes all frames through PyAV and keeps the same ones.

Runs take turns in one process; figures are medians with the range from first to third quartile.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from benchmarks.encoder import MNI152
from benchmarks.report import write_json
from benchmarks.timing import seconds_in_turn, summary
from data_engine.tables import markdown_table
from hub_model.media_omniv_med import load_clip
from hub_model.visual_processing_omniv_med import frames_to_tokens

SLICES = 181
PATCH_SIZE, MERGE_SIZE = 14, 2
VOLUMES = ((".nii", "bicubic"), (".nii.gz", "bicubic"), (".nii", "bilinear"))
"""Files, and the filter that the peer resizes with."""
VIDEO_RATE, VIDEO_HEIGHT, VIDEO_WIDTH = 25, 240, 320
KEY_FRAMES = {"a key frame every 10 s": 250, "a key frame every second": 25}


def write_volume(path: Path) -> Path:
    """The middle 181 axial slices of the MNI152 volume."""
    image = nibabel.Nifti1Image.from_filename(MNI152)
    first = (image.shape[2] - SLICES) // 2
    nibabel.save(image.slicer[:, :, first : first + SLICES], path)
    return path


def peer_patches(path: Path, processor: VideoLlama3ImageProcessorPil) -> tuple[torch.Tensor, list[int]]:
    """Patches (n, 3 x 14 x 14) of all axial slices, and the grid of one slice, the way Hulu-Med loads a NIfTI file."""
    volume = nibabel.Nifti1Image.from_filename(path).get_fdata()
    pictures = []
    for index in range(volume.shape[2]):
        values = volume[:, :, index]
        low, high = values.min(), values.max()
        scaled = (values - low) / (high - low) * 255 if high > low else np.zeros_like(values)
        pictures.append(Image.fromarray(scaled.astype(np.uint8)).convert("RGB"))
    processed = processor(images=pictures, return_tensors="pt")
    return processed["pixel_values"], processed["image_grid_thw"][0].tolist()


def our_patches(path: Path, height: int, width: int) -> torch.Tensor:
    """Patches (n, 3 x 14 x 14) of all axial slices at a size in pixels."""
    side = PATCH_SIZE * MERGE_SIZE
    frames = load_clip(path, max_frames=SLICES).frames
    return frames_to_tokens(frames, height // side, width // side, PATCH_SIZE, MERGE_SIZE).flatten(0, 2).flatten(1)


def write_video(path: Path, seconds: int, key_frames: int) -> Path:
    """A slow pan over a noisy slice of the MNI152 volume, with x264's defaults, a key frame all `key_frames` frames."""
    still = load_clip(MNI152, max_frames=1).frames[0, ..., 0]
    still = np.asarray(Image.fromarray(still).resize((VIDEO_WIDTH * 2, VIDEO_HEIGHT * 2)), dtype=np.int16)
    noise = np.random.default_rng(0).normal(0, 4, still.shape)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=VIDEO_RATE)
        stream.width, stream.height, stream.pix_fmt = VIDEO_WIDTH, VIDEO_HEIGHT, "yuv420p"
        stream.gop_size = key_frames
        for number in range(seconds * VIDEO_RATE):
            x, y = (
                int(size / 2 * (1 + np.sin(number / slow))) for size, slow in ((VIDEO_WIDTH, 90), (VIDEO_HEIGHT, 70))
            )
            part = np.s_[y : y + VIDEO_HEIGHT, x : x + VIDEO_WIDTH]
            grain = np.roll(noise, 7919 * number)[:VIDEO_HEIGHT, :VIDEO_WIDTH]  # of the detector, so it does not pan
            shown = (still[part] + grain).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="gray")))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> np.ndarray:
    """One frame a second, uint8 (seconds, height, width, 3), out of all frames decoded."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return np.stack(
            [
                frame.to_ndarray(format="rgb24")
                for number, frame in enumerate(container.decode(video=0))
                if number % VIDEO_RATE == 0
            ]
        )


def compare(case: str, ours: Callable[[], Any], peer: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Medians and quartiles in seconds of both, and how many times faster ours is."""
    times = seconds_in_turn({"ours": ours, "peer": peer}, repeats)
    figures = {name: summary(elapsed) for name, elapsed in times.items()}
    return {"case": case, **figures, "speed": figures["peer"]["median_s"] / figures["ours"]["median_s"]}


def measure_volume(folder: Path, suffix: str, resample: str, repeats: int) -> dict[str, Any]:
    """File to patches of one volume."""
    path = write_volume(folder / f"mni152{suffix}")
    processor = VideoLlama3ImageProcessorPil(
        patch_size=PATCH_SIZE, merge_size=MERGE_SIZE, resample=Image.Resampling[resample.upper()]
    )
    patches, (_, columns, rows) = peer_patches(path, processor)
    height, width = rows * PATCH_SIZE, columns * PATCH_SIZE
    assert our_patches(path, height, width).shape == patches.shape
    return compare(
        f"{SLICES} slices, {suffix}, peer {resample}",
        lambda: our_patches(path, height, width),
        lambda: peer_patches(path, processor),
        repeats,
    )


def measure_video(folder: Path, case: str, seconds: int, repeats: int) -> dict[str, Any]:
    """One frame a second of one film, which both sides must read alike."""
    path = write_video(folder / "film.mp4", seconds, KEY_FRAMES[case])
    np.testing.assert_array_equal(load_clip(path, max_frames=seconds).frames, decode_all(path))
    return compare(
        f"{seconds} s of video, {case}",
        lambda: load_clip(path, max_frames=seconds),
        lambda: decode_all(path),
        repeats,
    )


def table(results: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    rows = [
        [
            item["case"],
            f"{item['peer']['median_s']:.3f} s",
            f"{item['ours']['median_s']:.3f} s",
            f"{item['speed']:.1f}×",
        ]
        for item in results
    ]
    return markdown_table(["file", "peer", "ours", "speed"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds (default 9)")
    parser.add_argument("--seconds", type=int, default=120, help="length of the videos (default 120)")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=len(VOLUMES) + len(KEY_FRAMES)) as bar:
        folder = Path(scratch)
        for suffix, resample in VOLUMES:
            results.append(measure_volume(folder, suffix, resample, arguments.repeats))
            bar.update()
        for case in KEY_FRAMES:
            results.append(measure_video(folder, case, arguments.seconds, arguments.repeats))
            bar.update()
    write_json(arguments.json, "media", {"repeats": arguments.repeats, "results": results})
    print(table(results))


if __name__ == "__main__":
    main()
