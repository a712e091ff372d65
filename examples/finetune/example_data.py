# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A small folder of conversations about what no model was taught: which team of a made-up clinic reads an image.

Phantoms of four modalities, each read by a team of its own, in the format that the fine-tuning example takes. A
question that the model knows is mixed in, so that it is not forgotten.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from data_engine.phantoms import generate

TEAMS = {"X-ray": "amber", "fundus photography": "cobalt", "dermoscopy": "olive", "ultrasound": "ruby"}
COUNTS = {"train": 240, "test": 40}
QUESTION = "Which team reads this image?"
KNOWN_QUESTION = "Which imaging modality is this?"


def write_example(folder: Path, seed: int = 0) -> None:
    """Writes pictures and conversations, unless they are there; the test pictures are of other seeds."""
    for split, count in COUNTS.items():
        path = folder / f"{split}.jsonl"
        if path.exists():
            continue
        (folder / split).mkdir(parents=True, exist_ok=True)
        lines = []
        for number in range(count):
            modality = list(TEAMS)[number % len(TEAMS)]
            rng = np.random.default_rng((seed, split == "test", number))
            name = f"{split}/{number:04d}.png"
            Image.fromarray(generate(modality, "image", rng).frames[0]).save(folder / name)
            for question, truth in ((QUESTION, TEAMS[modality]), (KNOWN_QUESTION, modality)):
                said = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": truth}]
                lines.append(json.dumps({"image": name, "conversations": said}) + "\n")
        path.write_text("".join(lines), encoding="utf-8")
