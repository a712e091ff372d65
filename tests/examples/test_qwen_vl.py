# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A volume or a video for Qwen2.5-VL and Qwen3-VL, pruned: random small models, and a stand-in for their processors."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from examples.qwen_vl import ask, main, pruned_prompt
from hub_model.media_omniv_med import load_clip
from tests.helpers.paths import ROOT
from tests.helpers.qwen_vl import MODELS, QwenProcessor, qwen_model

pytestmark = pytest.mark.usefixtures("one_thread")
MEDIA = ROOT / "examples" / "media"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("file", ["ct_volume.nii.gz", "ultrasound.mp4"])
def test_a_file_is_asked_about_with_fewer_tokens(monkeypatch, name, file):
    monkeypatch.setattr("examples.qwen_vl.LONGEST_ANSWER", 3)
    clip = load_clip(MEDIA / file, max_frames=4)
    side = 16  # of the middle of each frame, to which the small models' patches fit
    rows, columns = (length // 2 - side // 2 for length in clip.frames.shape[1:3])
    middle = clip.frames[2, rows : rows + side, columns : columns + side]
    small = replace(clip, frames=np.stack([middle] * 4))
    processor = QwenProcessor(name)
    prompt = pruned_prompt(processor, small, "What is shown?", threshold=0.1)
    text = processor.tokenizer.decode(prompt.input_ids[0])
    assert text.count("<|video_pad|>") == 4  # of the first two frames, which the others repeat
    assert 0 < prompt.reduction < 1
    assert isinstance(ask(qwen_model(processor), processor, prompt), str)


def test_what_is_wrong_is_said(monkeypatch):
    line = ["qwen_vl", str(MEDIA / "xray.png"), "What?", "--model", str(ROOT / "nowhere")]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit, match=r"^Error: "):
        main()
