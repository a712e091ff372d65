# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The configurations for accelerate, read by accelerate's and transformers' own parsers.

DeepSpeed itself need not be installed here; where it is, tests/train/test_sharding.py trains with these files.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, DistributedType
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp import MixedPrecisionPolicy, StateDictType
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import TINY_TEXT, TINY_VISION
from train.conversation_loss import ConversationLoss

FOLDER = ROOT / "train" / "configs" / "accelerate"
KINDS = {
    "single": DistributedType.NO,
    "fsdp2": DistributedType.FSDP,
    "deepspeed_zero2": DistributedType.DEEPSPEED,
    "deepspeed_zero3": DistributedType.DEEPSPEED,
}


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_every_configuration(name) -> None:
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == KINDS[name]
    assert config.num_processes == (1 if name == "single" else 8)
    assert config.mixed_precision == (None if "deepspeed" in name else "bf16")


@pytest.fixture
def plugin(monkeypatch) -> FullyShardedDataParallelPlugin:
    """The FSDP plugin as a process started by `accelerate launch` with fsdp2.yaml would make it."""
    arguments = launch_command_parser().parse_args(["--config_file", str(FOLDER / "fsdp2.yaml"), "train/run.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    made = FullyShardedDataParallelPlugin()
    made.set_mixed_precision("bf16")
    return made


def test_fsdp2_shards_in_bfloat16_and_keeps_whole_tensors_in_checkpoints(plugin) -> None:
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT
    assert isinstance(plugin.mixed_precision_policy, MixedPrecisionPolicy)
    assert plugin.mixed_precision_policy.param_dtype == torch.bfloat16
    assert not plugin.activation_checkpointing
    assert not plugin.cpu_ram_efficient_loading


@pytest.mark.parametrize(("kind", "layer"), [("qwen2", "Qwen2DecoderLayer"), ("llama", "LlamaDecoderLayer")])
def test_fsdp2_wraps_the_layers_of_encoder_and_language_model(plugin, kind, layer) -> None:
    text = {"model_type": kind, "vocab_size": 64, **TINY_TEXT}
    config = OmniVMedConfig(text_config=text, vision_config=OmniVMedVisionConfig(**TINY_VISION), image_token_id=5)
    plugin.set_auto_wrap_policy(ConversationLoss(OmniVMedForConditionalGeneration(config)))
    wrapped = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert {one.__name__ for one in wrapped} == {"OmniVMedVisionEncoderLayer", layer}


@pytest.mark.parametrize("stage", [2, 3])
def test_accelerate_refuses_no_field_beside_deepspeeds_own_file(monkeypatch, stage) -> None:
    fields = load_config_from_file(str(FOLDER / f"deepspeed_zero{stage}.yaml")).deepspeed_config
    monkeypatch.setenv("ACCELERATE_CONFIG_DS_FIELDS", ",".join(fields))
    DeepSpeedPlugin._deepspeed_config_checks(SimpleNamespace())  # raises for what belongs into that file


class DeepSpeedParser(HfTrainerDeepSpeedConfig, HfDeepSpeedConfig):
    """transformers' parser on accelerate's, which it stands on where deepspeed is installed and else on nothing."""


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_batch_size_precision_and_clipping_from_the_trainer(tmp_path, monkeypatch, stage) -> None:
    # The parsers work without the package; only the check of its version would stop them.
    monkeypatch.setattr("transformers.integrations.deepspeed.dep_version_check", lambda *_: None)
    accelerate = load_config_from_file(str(FOLDER / f"deepspeed_zero{stage}.yaml"))
    path = ROOT / accelerate.deepspeed_config["deepspeed_config_file"]
    config = DeepSpeedParser(json.loads(path.read_text(encoding="utf-8")))
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=True,
    )
    config.trainer_config_process(arguments)
    config.trainer_config_finalize(arguments, SimpleNamespace(), num_training_steps=10)
    assert config.config["train_micro_batch_size_per_gpu"] == 2
    assert config.config["gradient_accumulation_steps"] == 4
    assert config.config["gradient_clipping"] == 1.0
    assert config.dtype() == torch.bfloat16
    assert config.is_zero3() == (stage == 3)
    assert '"auto"' not in json.dumps(config.config)
