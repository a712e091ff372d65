# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The prompt of a conversation with media: what takes the place of each placeholder, and where a prompt is divided."""

from __future__ import annotations

import pytest
import torch

from hub_model.prompt_omniv_med import MEDIA_TOKEN, fill_placeholders, media_text, split_after_media


def test_a_frame_that_keeps_no_token_has_no_label_either():
    keep_mask = torch.tensor([[True, True], [False, False], [False, True]])
    text = media_text(("0.0 mm", "2.5 mm", "5.0 mm"), keep_mask)
    assert text == f"0.0 mm{MEDIA_TOKEN * 2}5.0 mm{MEDIA_TOKEN}"


def test_placeholders_are_filled_in_reading_order_whatever_the_media_hold():
    texts = [f"A{MEDIA_TOKEN}B{MEDIA_TOKEN}", "no medium", f"{MEDIA_TOKEN}C"]
    media = [MEDIA_TOKEN * 2, f"1.0 s{MEDIA_TOKEN}", "words"]
    assert fill_placeholders(texts, media) == [f"A{MEDIA_TOKEN * 2}B1.0 s{MEDIA_TOKEN}", "no medium", "wordsC"]


@pytest.mark.parametrize("media", [[], ["one", "two"]])
def test_placeholders_and_media_must_agree_in_number(media):
    with pytest.raises(ValueError, match=rf"1 media placeholders .*, but {len(media)} media"):
        fill_placeholders([f"What is {MEDIA_TOKEN}?"], media)


def test_a_prompt_is_divided_after_its_last_medium_and_keeps_its_tokens(tokenizer):
    prompt = f"<|im_start|>user\n<|vision_start|>{MEDIA_TOKEN}<|vision_end|> and {MEDIA_TOKEN}<|vision_end|>What?"
    first, rest = split_after_media(prompt)
    assert (first[-len(MEDIA_TOKEN) :], rest) == (MEDIA_TOKEN, "<|vision_end|>What?")
    apart = [tokenizer(part, add_special_tokens=False).input_ids for part in (first, rest)]
    assert apart[0] + apart[1] == tokenizer(prompt, add_special_tokens=False).input_ids
