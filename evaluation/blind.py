# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The blind baseline: the same questions and the same model, but each medium replaced by that of another sample.

How much of a score comes from the words alone? A grey picture in the medium's place would put the model where it was
never trained, and its answers there would flatter the one that sees. Another sample's medium is as familiar as the
right one and says as little about it: any volume stands for a volume, whatever its modality, so that only the kind of
file stays, which the question mostly names anyway. All questions about a medium get the same substitute, nobody gets
their own, and the draw is seeded. (Set beside it the most frequent answer, the best that a constant can do.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_engine.records import Medium
from evaluation.benchmarks import BenchmarkError, BenchmarkQuestion

SEED = 0


def blinded(questions: Sequence[BenchmarkQuestion]) -> list[BenchmarkQuestion]:
    """The same questions with each one's media exchanged for media of the same kinds and number, never their own.

    Raises:
        BenchmarkError: media whose kind no other question has.
    """
    alike: dict[tuple[str, ...], dict[tuple[Path, tuple[Medium, ...]], None]] = {}
    for one in questions:
        alike.setdefault(tuple(medium.type for medium in one.media), {})[one.folder, one.media] = None
    generator = np.random.default_rng(SEED)
    instead: dict[tuple[Path, tuple[Medium, ...]], tuple[Path, tuple[Medium, ...]]] = {}
    for kinds, known in alike.items():
        if len(known) < 2:
            raise BenchmarkError(f"Only one sample has the media {' and '.join(kinds)}: none can stand in; ask more.")
        # One step round a random circle: everybody gets somebody else's, and each is given once.
        circle = [list(known)[place] for place in generator.permutation(len(known))]
        instead |= dict(zip(circle, [*circle[1:], circle[0]], strict=True))
    return [
        replace(one, folder=folder, media=media)
        for one, (folder, media) in ((one, instead[one.folder, one.media]) for one in questions)
    ]
