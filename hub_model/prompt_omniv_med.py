# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The prompt of a conversation with media: placeholders become position labels and one token per kept visual token.

The chat template writes one `<|media_pad|>` per medium. The processor, training, evaluation and the demo all replace it
here, so a prompt has the same tokens wherever it is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

MEDIA_TOKEN = "<|media_pad|>"


def media_text(labels: Sequence[str], keep_mask: torch.Tensor) -> str:
    """The text that stands for one clip: each frame's label, then one media token per kept token.

    Args:
        labels: position label of each frame ("12.5 mm", "3.0 s"), "" where it carries none.
        keep_mask: bool (T, N), True where a token is kept; a frame that keeps none has no label either.
    """
    kept = keep_mask.sum(dim=1).tolist()
    return "".join(label + MEDIA_TOKEN * count for label, count in zip(labels, kept, strict=True) if count)


def fill_placeholders(texts: Sequence[str], media: Sequence[str]) -> list[str]:
    """Replaces the media placeholders of several texts, in reading order, by the texts of the media.

    Args:
        texts: with one `MEDIA_TOKEN` for each medium.
        media: the text of each medium, as `media_text` gives it.

    Raises:
        ValueError: when there are more or fewer placeholders than media.
    """
    expected = sum(text.count(MEDIA_TOKEN) for text in texts)
    if expected != len(media):
        raise ValueError(f"The text has {expected} media placeholders {MEDIA_TOKEN}, but {len(media)} media.")
    upcoming = iter(media)
    pieces = (text.split(MEDIA_TOKEN) for text in texts)
    return [first + "".join(next(upcoming) + piece for piece in rest) for first, *rest in pieces]


def split_after_media(text: str) -> tuple[str, str]:
    """A prompt with media up to and including its last placeholder, and the rest.

    A special token ends the first part, so both parts, tokenised apart, have the tokens of the whole.
    """
    end = text.rindex(MEDIA_TOKEN) + len(MEDIA_TOKEN)
    return text[:end], text[end:]
