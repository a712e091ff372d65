# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The tests that transformers runs on each of its own models, run on this one: saving, training, backends, outputs.

`tests/helpers/transformers_suite.py` fetches them. Where one is replaced or left out here, its place says why.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from parameterized import parameterized
from torch import nn
from transformers import AutoModel, VideoLlama3VisionConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto import modeling_auto
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3VisionRotaryEmbedding
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.modeling_omniv_med import (
    OmniVMedForConditionalGeneration,
    OmniVMedModel,
    OmniVMedVisionModel,
)
from hub_model.vision_layers_omniv_med import OmniVMedVisionRotaryEmbedding
from tests.helpers import transformers_suite

if not transformers_suite.suite_folder().is_dir():
    pytest.skip("transformers' own tests are not here yet; `make test` fetches them", allow_module_level=True)
suite = transformers_suite.load()

PATCH = 4
MEDIA_TOKEN_ID, PAD_TOKEN_ID = 5, 0
# Three clips of three frames and equally many patches, so that the suite can cut a batch into equal parts.
GRIDS = ((3, 4, 4), (3, 2, 8), (3, 8, 2))
TOKENS_PER_CLIP = 12
VISION_CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": PATCH,
    "position_unit": "physical",
    "temporal_window": 2,
}
TEXT_CONFIG = {
    "model_type": "qwen2",
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": PAD_TOKEN_ID,
}


@pytest.fixture(scope="module", autouse=True)
def known_to_transformers() -> Iterator[None]:
    """Enters the classes in the tables by which the suite finds out what a class is for, as transformers' own are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(AutoModel._model_mapping._extra_content, OmniVMedConfig, OmniVMedModel)
        patch.setitem(modeling_auto.MODEL_MAPPING_NAMES, "omniv_med", "OmniVMedModel")
        patch.setitem(modeling_auto.MODEL_MAPPING_NAMES, "omniv_med_vision", "OmniVMedVisionModel")
        names = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        patch.setitem(names, "omniv_med", "OmniVMedForConditionalGeneration")
        yield


@pytest.fixture(scope="module", autouse=True)
def warnings_heard() -> Iterator[None]:
    """Some tests of the suite wait for a warning, and a command run before in this process may have silenced them."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_warning()
    yield
    logging.set_verbosity(verbosity)


def pruned_clips(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random patches of three clips, two with a spacing and one without, of which a random half is pruned."""
    grid_thw = torch.tensor(GRIDS)
    frames = TOKENS_PER_CLIP // 3
    keep_mask = torch.rand(len(GRIDS), TOKENS_PER_CLIP, generator=generator) < 0.5
    keep_mask[:, :frames] = True
    return {
        "pixel_values": torch.rand(int(grid_thw.prod(1).sum()), 3 * PATCH**2, generator=generator) * 2 - 1,
        "grid_thw": grid_thw,
        "merge_sizes": torch.tensor([2, 2, 2]),
        "keep_mask": keep_mask.flatten(),
        "frame_positions": torch.rand(int(grid_thw[:, 0].sum()), generator=generator).cumsum(0) * 10,
        "patch_spacing": torch.tensor([7.0, 0.0, 11.5]),
    }


class OmniVMedTester:
    """Makes tiny random configurations and inputs: three questions, each about one pruned clip, one of them padded."""

    is_training = True
    batch_size = len(GRIDS)
    seq_length = 18
    vocab_size = TEXT_CONFIG["vocab_size"]
    hidden_size = TEXT_CONFIG["hidden_size"]
    num_hidden_layers = TEXT_CONFIG["num_hidden_layers"]
    num_attention_heads = TEXT_CONFIG["num_attention_heads"]
    text_config = TEXT_CONFIG
    vision_config = VISION_CONFIG
    image_token_id = MEDIA_TOKEN_ID

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> OmniVMedConfig:
        return OmniVMedConfig(
            text_config=dict(TEXT_CONFIG), vision_config=dict(VISION_CONFIG), image_token_id=MEDIA_TOKEN_ID
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[OmniVMedConfig, dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        media = pruned_clips(generator)
        shape = (self.batch_size, self.seq_length)
        input_ids = torch.randint(MEDIA_TOKEN_ID + 1, self.vocab_size, shape, generator=generator)
        attention_mask = torch.ones_like(input_ids)
        for row, kept in enumerate(media["keep_mask"].view(self.batch_size, -1).sum(1).tolist()):
            input_ids[row, 3 : 3 + kept] = MEDIA_TOKEN_ID
        input_ids[-1, :2], attention_mask[-1, :2] = PAD_TOKEN_ID, 0
        return self.get_config(), {"input_ids": input_ids, "attention_mask": attention_mask, **media}


class TestOmniVMed(suite.ModelTesterMixin, suite.GenerationTesterMixin, unittest.TestCase):
    """The whole model, without and with its head."""

    all_model_classes = (OmniVMedModel, OmniVMedForConditionalGeneration)
    _is_composite = True
    # Clips are packed, patches after patches, so the first dimension of the features is no batch.
    skip_test_image_features_output_shape = True

    def setUp(self) -> None:
        self.model_tester = OmniVMedTester(self)

    def _image_features_prepare_config_and_inputs(self) -> tuple[OmniVMedConfig, dict[str, Any]]:
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        return config, {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}

    # Replaced: the suite's own test passes positions of two axes, these have a third.
    def test_vision_axial_rope(self) -> None:
        config = self.model_tester.get_config().vision_config
        rope_logger = logging.get_logger("transformers.modeling_rope_utils")
        with CaptureLogger(rope_logger) as said:
            config.validate_rope()
        assert not said.out
        config.rope_parameters["factor"] = 0.25
        rope_logger.warning_once.cache_clear()
        with CaptureLogger(rope_logger) as said:
            config.validate_rope()
        assert "{'factor'}" in said.out
        plane = torch.rand(10, 2) * 20
        theirs = VideoLlama3VisionRotaryEmbedding(VideoLlama3VisionConfig(hidden_size=32, num_attention_heads=4))
        ours = OmniVMedVisionRotaryEmbedding(config)
        torch.testing.assert_close(ours(nn.functional.pad(plane, (1, 0))), theirs(plane, plane))


class OmniVMedVisionTester:
    """Makes a tiny encoder that does not encode what is pruned, and three pruned clips."""

    is_training = True
    batch_size = len(GRIDS)
    hidden_size = VISION_CONFIG["hidden_size"]
    num_hidden_layers = VISION_CONFIG["num_hidden_layers"]
    num_attention_heads = VISION_CONFIG["num_attention_heads"]

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    @property
    def seq_length(self) -> int:
        """How many patches are encoded; a token is four."""
        return 4 * int(self.prepare_config_and_inputs_for_common()[1]["keep_mask"].sum())

    def get_config(self) -> OmniVMedVisionConfig:
        return OmniVMedVisionConfig(**VISION_CONFIG, prune_stage="encoder")

    def prepare_config_and_inputs_for_common(self) -> tuple[OmniVMedVisionConfig, dict[str, torch.Tensor]]:
        return self.get_config(), pruned_clips(torch.Generator().manual_seed(0))


class TestOmniVMedVision(suite.ModelTesterMixin, unittest.TestCase):
    """The vision encoder alone."""

    all_model_classes = (OmniVMedVisionModel,)
    test_resize_embeddings = False  # there is no vocabulary

    def setUp(self) -> None:
        self.model_tester = OmniVMedVisionTester(self)

    def run_with(self, backend: str, dtype: torch.dtype = torch.float32, **asked: bool) -> BaseModelOutputWithPooling:
        """What a seeded model of this backend gives for the tester's clips."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        torch.manual_seed(0)
        model = OmniVMedVisionModel._from_config(config, attn_implementation=backend, dtype=dtype)
        return model.eval()(**inputs, **asked)

    # Replaced: the suite's own test cuts every input to as many rows as a batch has, but patches and clips are packed.
    @parameterized.expand(suite.TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION)
    @torch.no_grad()
    def test_eager_matches_sdpa_inference(
        self,
        name: str,
        dtype: str,
        padding_side: str,
        use_attention_mask: bool,
        output_attentions: bool,
        enable_kernels: bool,
    ) -> None:
        if padding_side == "right" or not use_attention_mask:
            self.skipTest("Clips are packed without padding, so this is the same as pad_left.")
        precision = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
        tolerance = {"fp16": 5e-3, "bf16": 3e-2, "fp32": 1e-5}[dtype]
        asked = {"output_hidden_states": True, "output_attentions": output_attentions}
        with suite.sdpa_kernel(enable_flash=enable_kernels, enable_math=True, enable_mem_efficient=enable_kernels):
            eager, sdpa = (self.run_with(backend, precision, **asked) for backend in ("eager", "sdpa"))
        for states in ("last_hidden_state", "hidden_states"):
            torch.testing.assert_close(sdpa[states], eager[states], atol=tolerance, rtol=tolerance)

    # Replaced: the suite's own test expects one window of attention over the whole sequence.
    @torch.no_grad()
    def test_attention_outputs(self) -> None:
        keep_mask = self.model_tester.prepare_config_and_inputs_for_common()[1]["keep_mask"]
        kept_in_frame = 4 * keep_mask.view(len(GRIDS), 3, -1).sum(-1)
        lengths = torch.stack([kept_in_frame[:, :2].sum(1), kept_in_frame[:, 2]], dim=1).flatten()
        attentions = self.run_with("eager", output_attentions=True).attentions
        assert len(attentions) == self.model_tester.num_hidden_layers
        longest = int(lengths.max())
        for weights in attentions:
            assert weights.shape == (len(lengths), self.model_tester.num_attention_heads, longest, longest)
            for window, length in zip(weights, lengths.tolist(), strict=True):
                torch.testing.assert_close(window[:, :length, :length].sum(-1), torch.ones(len(window), length))
                assert not window[:, length:].any()
                assert not window[:, :, length:].any()

    # Replaced: recorded states are put together from batches of windows, so the gradient of the output does not pass
    # through them; theirs reaches the weights.
    def test_retain_grad_hidden_states_attentions(self) -> None:
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for recorded in ("hidden_states", "attentions"):
            model = OmniVMedVisionModel._from_config(config, attn_implementation="eager")
            model(**inputs, **{f"output_{recorded}": True})[recorded][-1].square().sum().backward()
            assert model.encoder.layers[0].self_attn.q_proj.weight.grad.any()
            assert model.embeddings.patch_embedding.weight.grad.any()

    # Replaced: the suite's own test expects a table of word embeddings.
    def test_model_get_set_embeddings(self) -> None:
        model = OmniVMedVisionModel(self.model_tester.get_config())
        assert model.get_input_embeddings() is model.embeddings.patch_embedding
        assert model.get_output_embeddings() is None
