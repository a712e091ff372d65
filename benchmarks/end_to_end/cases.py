# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What is asked about, by whom, and in which sizes: what the measured processes and those who start them share.

Nothing heavy is imported here, because a measured process should hold what its side needs, and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HUB_MODEL = Path(__file__).resolve().parents[2] / "hub_model"
"""Both sides take tokenizer and wording of the prompt from here."""
QUESTION = "Is there a lesion?"
NEW_TOKENS = 32
PATCH_SIZE, MERGE_SIZE = 14, 2
TOKEN_SIDE = PATCH_SIZE * MERGE_SIZE
CLIP_TOKENS = 4608
"""Visual tokens that all frames of a clip may have before pruning: with more frames each becomes smaller, on both sides
by its own option. VideoLLaMA3 comes with a bound of this size."""
FRAME_TOKENS = 4, 1024
"""Fewest and most tokens of a frame; no frame of these cases is so small or so large that they decide alone."""
SOFT_TISSUE = (400.0, 50.0)
"""Width and level in HU of the window that both sides show CT through."""
PERCENTILES = (1.0, 99.0)
"""Of the whole volume, which both sides show as black and white where it is no CT."""

PEER = "VideoLlama3"
SIDES = (PEER, "none", "language", "encoder")
"""The peer; ours without pruning; ours with pruned tokens left out of the prompt; and not encoded either."""
PRUNED = "encoder"
"""The side that is compared with the peer."""
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        key: its name on the command line.
        name: for the figures.
        file: its name in the folder of the run; a DICOM series is a folder.
        frames: slices of the volume, or seconds of the film.
        height, width: of a frame in pixels.
        window: width and level in HU of the window that CT is shown through; None elsewhere.
    """

    key: str
    name: str
    file: str
    frames: int
    height: int
    width: int
    window: tuple[float, float] | None = None

    @property
    def kind(self) -> str:
        """The type of a content part with this file."""
        return "video" if self.file.endswith(".mp4") else "volume"


CASES = (
    Case("ct64", "64 CT slices, NIfTI", "ct.nii.gz", 64, 512, 512, SOFT_TISSUE),
    Case("mr181", "181 MR slices, NIfTI", "mr.nii.gz", 181, 256, 256),
    Case("ct275", "275 CT slices, DICOM", "series", 275, 512, 512, SOFT_TISSUE),
    Case("film", "5 minutes of video", "film.mp4", 300, 240, 320),
)


@dataclass(frozen=True)
class Widths:
    """Sizes of the encoder (of VideoLlama3's layout) and the language model (Qwen2's), the same on both sides."""

    layers: int = 12
    vision: dict[str, int] = field(
        default_factory=lambda: {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
    )
    text: dict[str, int] = field(
        default_factory=lambda: {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        }
    )


def weights_folder(folder: Path, side: str, dtype: str) -> Path:
    """Where the weights of a side lie; ours share them."""
    return folder / f"{PEER if side == PEER else 'ours'}-{dtype}"


@dataclass(frozen=True)
class Run:
    """One measured process: who asks about what, in which number format, on how many threads."""

    case: Case
    dtype: str
    side: str
    threads: int
