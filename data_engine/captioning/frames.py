# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Media as the models are sent them: sampled frames in order, each after its place in words, as parts of a message."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_engine.captioning.config import Sampling
from data_engine.captioning.items import Item
from hub_model.media_omniv_med import load_clip

JPEG_QUALITY = 92


def media_digest(files: list[Path]) -> str:
    """SHA-256 of the contents of some files, in their order.

    Raises:
        OSError: a file that cannot be read.
    """
    whole = hashlib.sha256()
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        whole.update(digest.digest())
    return whole.hexdigest()


def media_parts(item: Item, sampling: Sampling) -> list[dict[str, Any]]:
    """The frames of all media of an item as content parts of a chat message: their places as text, they as data URIs.

    Raises:
        MediaError: a medium that cannot be read.
    """
    parts: list[dict[str, Any]] = []
    for number, medium in enumerate(item.media, 1):
        clip = load_clip(
            item.folder / medium.path,
            modality=None if item.modality == "unknown" else item.modality,
            spacing=medium.spacing,
            windows=(sampling.ct_window,),
            max_frames=sampling.frames,
        )
        for place, (frame, position) in enumerate(zip(clip.frames, clip.positions, strict=True), 1):
            words = {
                "image": "Image",
                "volume": f"Slice {place} of {len(clip.frames)}, at {position:.1f} mm",
                "video": f"Frame {place} of {len(clip.frames)}, at {position:.1f} s",
            }[clip.kind]
            if len(item.media) > 1:
                words = f"{medium.type.capitalize()} {number} of {len(item.media)}. {words}"
            # Frames of films were compressed before; slices and pictures often were not, and stay as they are.
            url = data_uri(frame, sampling.longest_side, "JPEG" if clip.kind == "video" else "PNG")
            parts += [{"type": "text", "text": f"{words}:"}, {"type": "image_url", "image_url": {"url": url}}]
    return parts


def data_uri(frame: np.ndarray, longest_side: int, file_format: str) -> str:
    """A uint8 frame (height, width, 3) as a `data:` URI of a JPEG or PNG file, made smaller where it is too large."""
    picture, buffer = Image.fromarray(frame), io.BytesIO()
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    picture.save(buffer, file_format, **({"quality": JPEG_QUALITY, "subsampling": 0} if file_format == "JPEG" else {}))
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
