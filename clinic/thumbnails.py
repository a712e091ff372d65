# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Small pictures of what the model saw of a series, for the report of a batch run: its removed tokens are veiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from PIL import Image

from data_engine.files import write_atomically
from hub_model.pruning_heatmap_omniv_med import dim_removed

MOST_FRAMES, HEIGHT = 4, 112
"""Of a thumbnail: frames side by side, and pixels."""


def write_thumbnail(processed: Any, path: Path) -> None:
    """Writes evenly chosen frames as the encoder sees them, whole or not at all.

    Args:
        processed: a pruned clip.
        path: of a JPEG file; its folder must exist.
    """
    pruned = processed.pruned
    pictures = dim_removed(processed, Normalize(0, max(pruned.threshold, pruned.worst_error) or 1.0))
    chosen = np.unique(np.linspace(0, len(pictures) - 1, MOST_FRAMES + 2)[1:-1].round().astype(int))
    strip = Image.fromarray(np.concatenate(pictures[chosen], axis=1))
    size = (max(round(strip.width * HEIGHT / strip.height), 1), HEIGHT)
    with write_atomically(path) as part:
        strip.resize(size, Image.Resampling.BILINEAR).save(part, format="JPEG", quality=80)
