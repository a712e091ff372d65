# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Small square pictures of clips, for the rail of files and the cards of examples."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from demo.service.windows import fitting_window, in_window, is_ct
from hub_model.clip_omniv_med import Clip


def thumbnail(clip: Clip, side: int) -> bytes:
    """The middle frame of a `Clip` as a square WebP, a CT in the window that fits."""
    frame = clip.frames[len(clip.frames) // 2]
    if is_ct(clip):
        grey = in_window(frame[None], fitting_window(clip.frames))[0]
        frame = np.broadcast_to(grey[..., None], frame.shape)
    picture = ImageOps.pad(Image.fromarray(np.ascontiguousarray(frame)), (side, side))
    packed = io.BytesIO()
    picture.save(packed, "WEBP", quality=80)
    return packed.getvalue()
