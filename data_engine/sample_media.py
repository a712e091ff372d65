# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes the small generated files in `examples/media/`, so that a newcomer has something free to try.

python -m data_engine.sample_media --out examples/media
"""

from __future__ import annotations

import argparse
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image

from data_engine.phantoms import Sample, generate
from hub_model.media_omniv_med import CT_WINDOWS

CT_SEED, ULTRASOUND_SEED, XRAY_SEED = 61, 18, 8
"""Chosen by eye among the first hundred: a chest with a nodule, a beating heart, a chest."""
LOOPS = 4
"""Times that the ultrasound loop is repeated, forwards and backwards in turn, so that it lasts some seconds."""


def hounsfield_units(frames: np.ndarray, windows: tuple[tuple[float, float], ...] = CT_WINDOWS) -> np.ndarray:
    """Undoes `window_ct`: int16 HU (…) of uint8 frames (…, 3), from the narrowest window that does not saturate.

    Steps between grey levels stay: 0.3 HU in the brain window, 1.4 HU in soft tissue, 8.8 HU outside both.
    """
    values = np.zeros(frames.shape[:-1])
    for channel, (width, level) in sorted(enumerate(windows), key=lambda item: -item[1][0]):
        shown = frames[..., channel].astype(np.float64)
        found = level - width / 2 + shown / 255 * width
        inside = (shown > 0) & (shown < 255) if channel else np.ones(shown.shape, dtype=bool)
        values = np.where(inside, found, values)
    return np.maximum(values, -1024).round().astype(np.int16)


def write_volume(sample: Sample, path: Path) -> None:
    """A CT sample as NIfTI in HU, first slice at the feet."""
    image = sitk.GetImageFromArray(hounsfield_units(sample.frames))
    rows, columns = sample.pixel_spacing
    image.SetSpacing((columns, rows, float(sample.positions[1] - sample.positions[0])))
    sitk.WriteImage(image, str(path), useCompression=True)


def encode_video(frames: np.ndarray, positions: np.ndarray, options: dict[str, str]) -> bytes:
    """H.264 in MP4 of uint8 frames (T, H, W, 3), at the rate of the positions in seconds, with x264's options."""
    rate = Fraction(1 / float(np.median(np.diff(positions)))).limit_denominator(1000)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_video(sample: Sample, path: Path) -> None:
    """A video sample as H.264 in MP4, at the rate of its positions."""
    there_and_back = np.concatenate([sample.frames, sample.frames[-2:0:-1]])
    frames = np.concatenate([there_and_back] * LOOPS)
    path.write_bytes(encode_video(frames, sample.positions, {"crf": "23"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(generate("CT", "volume", np.random.default_rng(CT_SEED)), folder / "ct_volume.nii.gz")
    write_video(generate("ultrasound", "video", np.random.default_rng(ULTRASOUND_SEED)), folder / "ultrasound.mp4")
    picture = generate("X-ray", "image", np.random.default_rng(XRAY_SEED)).frames[0]
    Image.fromarray(picture).save(folder / "xray.png", optimize=True)


if __name__ == "__main__":
    main()
