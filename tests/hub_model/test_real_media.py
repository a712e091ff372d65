# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The assembled Nano on real files that it was not trained on, and what its pruning removes from them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import nilearn
import pytest
import torch
from pydicom.data import get_testdata_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.helpers.paths import HUB_MODEL

MODALITY_QUESTION = "Which imaging modality is this?"
MNI152 = Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
ANATOMICAL = Path(nibabel.__file__).parent / "tests/data/anatomical.nii"


def pydicom_file(name: str) -> str:
    """Path of a file that pydicom's own package carries."""
    return get_testdata_file(name, download=False)


@pytest.fixture(scope="module")
def nano():
    """Processor and model, loaded as a user does."""
    processor = AutoProcessor.from_pretrained(HUB_MODEL, trust_remote_code=True)
    return processor, AutoModelForImageTextToText.from_pretrained(HUB_MODEL, trust_remote_code=True).eval()


def ask(nano, content: list[dict], max_new_tokens: int = 12) -> str:
    """The greedy answer to one message."""
    processor, model = nano
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()


@pytest.mark.parametrize(
    ("kind", "path", "modality"),
    [
        ("image", pydicom_file("CT_small.dcm"), "CT"),
        ("image", pydicom_file("MR_small.dcm"), "MRI"),
        ("video", pydicom_file("examples_ybr_color.dcm"), "ultrasound"),
        ("volume", str(ANATOMICAL), "MRI"),
    ],
)
def test_the_modality_of_a_real_file_never_trained_on_is_named(nano, kind: str, path: str, modality: str) -> None:
    answer = ask(nano, [{"type": kind, kind: path}, {"type": "text", "text": MODALITY_QUESTION}])
    assert answer.rstrip(".") == modality


def test_a_general_question_without_media_still_gets_a_sensible_sentence(nano) -> None:
    answer = ask(nano, [{"type": "text", "text": "What is computed tomography used for?"}], max_new_tokens=48)
    assert len(answer.split()) > 8
    words = answer.lower()
    assert any(stem in words for stem in ("imag", "scan", "x-ray")), answer
    assert any(stem in words for stem in ("body", "diagnos", "medical", "tissue", "bone")), answer


@pytest.mark.parametrize("path", [str(MNI152), pydicom_file("examples_ybr_color.dcm")])
def test_sixty_percent_of_a_real_clip_is_removed_and_no_stand_in_is_further_than_the_threshold(nano, path: str) -> None:
    processor, _ = nano
    processed = processor.process_clip(processor.load(path, fps=30.0))  # all 30 frames of the echocardiogram
    assert processed.reduction >= 0.6
    assert processed.pruned.worst_error <= processed.pruned.threshold == processor.prune_threshold
