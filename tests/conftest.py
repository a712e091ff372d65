# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the tests share: a tokenizer, a processor for small frames, and tiny random models that fit them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

# transformers copies the code of a model's folder into this cache, and reads it from there: processes that test at the
# same time must not read what another one has half written. It is asked for when transformers is imported.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="transformers-modules-")

# Ray starts its workers at niceness 15: beside other tests on a small machine they would hardly come to work.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name

from hypothesis import HealthCheck, settings

from tests.helpers.long_files import put_long_files_first
from tests.helpers.paths import HUB_MODEL

# Fixtures import these themselves: pytest-xdist's first process, which runs no test, would make all others wait for it.
if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

# Properties are tried on the same examples every time, without a limit of time, so that a run's outcome depends neither
# on chance nor on the machine; `pytest --hypothesis-profile=search` draws new ones.
PROPERTIES = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **PROPERTIES)
settings.register_profile("search", **PROPERTIES)
settings.load_profile("repeatable")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_MODULES_CACHE"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_long_files_first(items)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Computes in one thread: tensors this small gain nothing from more, and on a busy machine these only wait."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """The tokenizer of the Nano, vision tokens included, with a small vocabulary."""
    from tests.helpers.tokenizers import small_tokenizer

    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def processor(tokenizer: PreTrainedTokenizerFast) -> OmniVMedProcessor:
    """A processor whose tokens are 8 pixels wide, so that small arrays make several; tests do not change it."""
    from hub_model.processing_omniv_med import OmniVMedProcessor
    from tests.helpers.tiny_models import PROCESSOR_OPTIONS

    template = (HUB_MODEL / "chat_template.jinja").read_text(encoding="utf-8")
    return OmniVMedProcessor(tokenizer, chat_template=template, **PROCESSOR_OPTIONS)


@pytest.fixture(scope="session")
def make_model(tokenizer: PreTrainedTokenizerFast) -> Callable[..., OmniVMedForConditionalGeneration]:
    """Builds a tiny seeded model for the tokenizer; further keyword arguments change its vision configuration."""
    import torch

    from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.prompt_omniv_med import MEDIA_TOKEN
    from tests.helpers.tiny_models import TINY_TEXT, TINY_VISION

    def make(projector_context: bool = False, **vision: Any) -> OmniVMedForConditionalGeneration:
        torch.manual_seed(0)
        text = {"model_type": "llama", "vocab_size": len(tokenizer), "tie_word_embeddings": True, **TINY_TEXT}
        text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        config = OmniVMedConfig(
            text_config=text,
            vision_config=OmniVMedVisionConfig(**(TINY_VISION | vision)),
            image_token_id=tokenizer.convert_tokens_to_ids(MEDIA_TOKEN),
            projector_context=projector_context,
        )
        return OmniVMedForConditionalGeneration(config).eval()

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., OmniVMedForConditionalGeneration]) -> OmniVMedForConditionalGeneration:
    """One tiny model for all tests that only read it."""
    return make_model()


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """Makes a noisy uint8 picture (height, width, 3)."""

    def make(seed: int = 0, height: int = 24, width: int = 16) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture(scope="session")
def film() -> Callable[..., np.ndarray]:
    """Makes a uint8 film (frames, height, width, 3): a noisy picture that stands still, but for one moving square."""

    def make(seed: int = 0, frames: int = 4, height: int = 24, width: int = 16) -> np.ndarray:
        generator = np.random.default_rng(seed)
        still = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        shown = np.repeat(still[None], frames, axis=0)
        for t in range(1, frames):
            shown[t, :8, :8] = 255 * (t % 2)
        return shown

    return make


@pytest.fixture(scope="session")
def tiny(
    tmp_path_factory: pytest.TempPathFactory,
    make_model: Callable[..., OmniVMedForConditionalGeneration],
    tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """The folder of a tiny model, as the assembly writes it, whose frames have few tokens."""
    from tests.helpers.tiny_models import PROCESSOR_OPTIONS
    from train.checkpoints.assemble import write_configuration

    folder = tmp_path_factory.mktemp("tiny")
    model = make_model()
    write_configuration(folder, model, tokenizer, PROCESSOR_OPTIONS | {"max_frame_tokens": 16})
    model.save_pretrained(folder)
    return folder
