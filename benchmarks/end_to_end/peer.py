# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The peer: nibabel, pydicom or PyAV, then Pillow, then transformers' VideoLlama3 with its own compression.

transformers' video processor needs torchvision, and so does nothing else here. So its image processor, which works with
Pillow, sizes the frames, by the video processor's rule (one bound for all frames), and what the video processor does
beside that is written here after its source: the compression, and the words before each frame. Frames of a volume have
no words before them, as they have no seconds; that shortens the peer's prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
import pydicom
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3ForConditionalGeneration

from benchmarks.end_to_end.cases import (
    CLIP_TOKENS,
    FRAME_TOKENS,
    HUB_MODEL,
    MERGE_SIZE,
    PATCH_SIZE,
    PERCENTILES,
    QUESTION,
    TOKEN_SIDE,
    Case,
    Run,
    weights_folder,
)
from hub_model.prompt_omniv_med import MEDIA_TOKEN

COMPRESSION_THRESHOLD = 0.1
"""VideoLlama3's own: mean absolute difference of normalised pixel values, times 255."""


def read_frames(path: Path, case: Case) -> list[Image.Image]:
    """The file's frames as RGB pictures, upright and in order from the feet, or one a second."""
    if case.kind == "video":
        return _film(path)
    return _nifti(path, case.window) if path.is_file() else _series(path, case.window)


def _picture(values: np.ndarray, low: float, high: float) -> Image.Image:
    shares = ((values - low) / (high - low)).clip(0, 1)
    return Image.fromarray((shares * 255).round().astype(np.uint8)).convert("RGB")


def _ends(window: tuple[float, float]) -> tuple[float, float]:
    """The HU that become black and white."""
    width, level = window
    return level - width / 2, level + width / 2


def _nifti(path: Path, window: tuple[float, float] | None) -> list[Image.Image]:
    voxels = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata(dtype=np.float32)
    low, high = np.percentile(voxels, PERCENTILES) if window is None else _ends(window)
    # Canonical axes point right, forward and up; on the screen the patient's right is left, and the front above.
    return [_picture(voxels[::-1, ::-1, index].T, low, high) for index in range(voxels.shape[2])]


def _series(folder: Path, window: tuple[float, float] | None) -> list[Image.Image]:
    assert window is not None, "The series is CT."
    slices = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    return [
        _picture(
            one.pixel_array.astype(np.float32) * float(one.RescaleSlope) + float(one.RescaleIntercept), *_ends(window)
        )
        for one in slices
    ]


def _film(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = round(stream.average_rate)
        return [frame.to_image() for number, frame in enumerate(container.decode(stream)) if number % rate == 0]


def compression_mask(pixel_values: torch.Tensor, frames: int) -> torch.Tensor:
    """Which tokens VideoLlama3 keeps, bool (frames, tokens): those that differ from the frame before, one a frame.

    As `VideoLlama3VideoProcessor._get_compression_mask`, for one video of more than one frame.

    Args:
        pixel_values: float (patches, channels·patch²), patches of a token together.
    """
    tokens = pixel_values.view(frames, len(pixel_values) // frames // MERGE_SIZE**2, -1)
    differences = (tokens[1:] - tokens[:-1]).abs().mean(dim=-1) * 255
    keep = torch.cat([torch.ones_like(differences[:1], dtype=torch.bool), differences > COMPRESSION_THRESHOLD])
    keep[~keep.any(dim=1), :1] = True
    return keep


def placeholders(keep: torch.Tensor, kind: str) -> str:
    """The prompt's part for a clip, as `VideoLlama3Processor.replace_video_token` writes it."""
    times = [f"Time {second:.1f}s:" if kind == "video" else "" for second in range(len(keep))]
    return ",".join(time + MEDIA_TOKEN * kept for time, kept in zip(times, keep.sum(dim=1).tolist(), strict=True))


class Peer:
    """Asks about one case."""

    def __init__(self, run: Run, folder: Path) -> None:
        weights = weights_folder(folder, run.side, run.dtype)
        self.model: Any = VideoLlama3ForConditionalGeneration.from_pretrained(weights, dtype=getattr(torch, run.dtype))
        self.model.eval()
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(HUB_MODEL)
        self._template = (HUB_MODEL / "chat_template.jinja").read_text(encoding="utf-8")
        self._images = VideoLlama3ImageProcessorPil(patch_size=PATCH_SIZE, merge_size=MERGE_SIZE)
        self._kind = run.case.kind

    def read(self, path: Path, case: Case) -> list[Image.Image]:
        """The file's frames."""
        return read_frames(path, case)

    def prepare(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Any], torch.Tensor, tuple[int, int]]:
        """What `generate` takes, the kept tokens (frames, tokens), and rows and columns of tokens in a frame."""
        fewest, most = FRAME_TOKENS
        tokens = min(CLIP_TOKENS // len(pictures), most)
        size = {"shortest_edge": fewest * TOKEN_SIDE**2, "longest_edge": tokens * TOKEN_SIDE**2}
        sized = self._images(images=list(pictures), size=size, return_tensors="pt")
        _, rows, columns = sized["image_grid_thw"][0].tolist()
        keep = compression_mask(sized["pixel_values"], len(pictures))
        parts = [{"type": self._kind}, {"type": "text", "text": QUESTION}]
        prompt = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}],
            chat_template=self._template,
            add_generation_prompt=True,
            tokenize=False,
        )
        text = prompt.replace(MEDIA_TOKEN, placeholders(keep, self._kind))
        inputs = {
            **self._tokenizer(text, return_tensors="pt", return_token_type_ids=False),
            "pixel_values_videos": sized["pixel_values"],
            "video_grid_thw": torch.tensor([[len(pictures), rows, columns]]),
            "video_merge_sizes": torch.tensor([MERGE_SIZE]),
            "video_compression_mask": keep.flatten(),
        }
        return inputs, keep, (rows // MERGE_SIZE, columns // MERGE_SIZE)
