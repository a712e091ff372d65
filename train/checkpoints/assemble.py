# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Assembles a model: a vision encoder, a causal language model and trained tensors become one folder.

    python -m train.checkpoints.assemble
    python -m train.checkpoints.assemble --vision DAMO-NLP-SG/SigLIP-NaViT \\
        --language Qwen/Qwen2.5-1.5B-Instruct --output models/it

Without arguments it makes OmniV-Med-Nano: it fetches SmolLM2-135M-Instruct, adds the committed tensors, and writes
`hub_model/model.safetensors`. A folder without a configuration gets one; a folder that is up to date is left alone.
`from_pretrained` loads what it wrote, and so does a stage of the recipe.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import VISUAL_OPTIONS, OmniVMedProcessor
from hub_model.projector_omniv_med import OmniVMedProjector
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from train.checkpoints.language_model import SMOLLM2, load_language_model
from train.checkpoints.trained_tensors import load_parts, merge_lora, read_trained_tensors
from train.checkpoints.vision_encoder import load_vision_encoder

ROOT = Path(__file__).resolve().parents[2]
HUB_MODEL = ROOT / "hub_model"
CACHE = ROOT / ".cache"
TRAINED = ROOT / "train" / "nano" / "trained.safetensors"
STAMP = ".assembled.json"
SIZING_OPTIONS = (
    "patch_size",
    "merge_size",
    "min_frame_tokens",
    "max_frame_tokens",
    "clip_frame_tokens",
    "clip_merge_size",
    "max_clip_tokens",
    "resample",
    "volume_label",
    "video_label",
    "frame_separator",
    "max_labels",
)
"""Of the processor: how a medium becomes tokens and text, beside the options that a call may change."""
ADDED_TOKENS = ("<|vision_start|>", MEDIA_TOKEN, "<|vision_end|>")
TURN_TOKENS = ("<|im_start|>", "<|im_end|>")
"""What the chat template marks turns with; the language models of this project know them already."""

NANO_VISION = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "patch_size": 14,
    "stem_channels": 32,
    "temporal_window": 4,
    "position_unit": "physical",
}
NANO_PROCESSOR = {"patch_size": 14, "merge_size": 2, "min_frame_tokens": 16, "max_frame_tokens": 16, "fps": 4.0}
NANO_OF_REAL_PICTURES: dict[str, Any] = NANO_PROCESSOR | {
    "min_frame_tokens": 64,
    "max_frame_tokens": 64,
    "clip_frame_tokens": 16,
}
"""With convolutional features, the Nano sees 224×224 pixels of a picture, 112×112 of each frame of a clip."""
CONVOLUTIONAL = "model.vision_model.convolutional_features."
OPTIONAL_PARTS = {"convolutional_features": CONVOLUTIONAL, "projector_context": "model.projector.context."}
"""Of the parts that not every Nano has, the field of the configuration, and how the names of their tensors begin."""
AUTO_MAP = {
    "AutoConfig": "configuration_omniv_med.OmniVMedConfig",
    "AutoModel": "modeling_omniv_med.OmniVMedModel",
    "AutoModelForCausalLM": "modeling_omniv_med.OmniVMedForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_omniv_med.OmniVMedForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_omniv_med.OmniVMedForConditionalGeneration",
    "AutoProcessor": "processing_omniv_med.OmniVMedProcessor",
}


def teach_tokens(tokenizer: PreTrainedTokenizerFast) -> int:
    """Adds the vision tokens to a tokenizer, in place, and gives the number of those it knew before.

    Tokens that it knows stay where they are; those of the chat's turns are added too where they are missing.
    """
    old = len(tokenizer)
    missing = [token for token in TURN_TOKENS if token not in tokenizer.get_vocab()]
    tokens = [AddedToken(token, normalized=False, special=True) for token in (*missing, *ADDED_TOKENS)]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    return old


def end_at_turns(generation: GenerationConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Makes answers end where a turn does, in place, and gives a tokenizer without a token for padding this one."""
    end = tokenizer.convert_tokens_to_ids(TURN_TOKENS[1])
    generation.eos_token_id = end
    generation.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = TURN_TOKENS[1]


def add_media_tokens(language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Adds the vision tokens to tokenizer and embeddings, in place; new rows start at the mean of the old ones."""
    old = teach_tokens(tokenizer)
    language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in (language_model.get_input_embeddings(), language_model.get_output_embeddings()):
            layer.weight[old:] = layer.weight[:old].mean(dim=0)


def build_model(
    language_model: PreTrainedModel,
    vision_config: OmniVMedVisionConfig,
    image_token_id: int,
    projector_context: bool = False,
) -> OmniVMedForConditionalGeneration:
    """Puts a fresh encoder and projector before a causal language model, float32.

    The projector's output starts at the scale of the text embeddings, so that visual tokens are neither lost among
    words nor louder than all of them.
    """
    config = OmniVMedConfig(
        text_config=language_model.config.to_dict(),
        vision_config=vision_config,
        image_token_id=image_token_id,
        projector_context=projector_context,
    )
    config.dtype = "float32"
    model = OmniVMedForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language_model.base_model.state_dict())
    model.lm_head.weight.data.copy_(language_model.get_output_embeddings().weight.data)
    model.tie_weights()
    model.generation_config = language_model.generation_config
    with torch.no_grad():
        start_projector(model.model.projector, float(model.get_input_embeddings().weight.square().mean().sqrt()))
    return model


@torch.no_grad()
def start_projector(projector: OmniVMedProjector, scale: float) -> None:
    """Draws the weights of a projector whose output has the scale of the text embeddings.

    Context starts at zero: a projector that was trained without any then goes on as it was.
    """
    first, _, last = projector.readout
    torch.nn.init.normal_(first.weight, std=first.in_features**-0.5)
    torch.nn.init.normal_(last.weight, std=scale * torch.nn.init.calculate_gain("relu") * last.in_features**-0.5)
    for layer in (first, last):
        torch.nn.init.zeros_(layer.bias)
    if projector.context is not None:
        for layer in (projector.context.of_place, projector.context.of_frame):
            torch.nn.init.zeros_(layer.weight)


def processor_options(processor: OmniVMedProcessor) -> dict[str, int | float | str | None]:
    """What a processor was made with, beside its tokenizer."""
    return {name: getattr(processor, name) for name in (*SIZING_OPTIONS, *VISUAL_OPTIONS)}


def write_configuration(
    folder: Path,
    model: OmniVMedForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    processor_options: dict,
    template: str | None = None,
) -> None:
    """Writes everything but the weights: configuration with all Auto classes, tokenizer, processor, and the code.

    Args:
        template: the chat template, in Jinja; None takes the Nano's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in HUB_MODEL.glob("*_omniv_med.py"):
        if file.parent != folder:
            shutil.copy(file, folder)
    if template is None:
        template = (HUB_MODEL / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.chat_template = template
    processor = OmniVMedProcessor(tokenizer, chat_template=template, **processor_options)
    processor.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    model.config.architectures = [type(model).__name__]
    model.config.auto_map = AUTO_MAP
    model.config.save_pretrained(folder)
    for name in ("processor_config.json", "tokenizer_config.json"):
        path = folder / name
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["auto_map"] = {"AutoProcessor": AUTO_MAP["AutoProcessor"]}
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def fresh_nano(
    projector_context: bool = False, **vision: Any
) -> tuple[OmniVMedForConditionalGeneration, PreTrainedTokenizerFast]:
    """The untrained Nano, seeded, and its tokenizer.

    Args:
        projector_context: whether its projector tells where a token lies.
        vision: fields of the encoder's configuration that go before `NANO_VISION`.
    """
    torch.manual_seed(0)
    language_model, tokenizer = load_language_model(CACHE)
    add_media_tokens(language_model, tokenizer)
    media_token_id = tokenizer.convert_tokens_to_ids(MEDIA_TOKEN)
    vision_config = OmniVMedVisionConfig(**(NANO_VISION | vision))
    return build_model(language_model, vision_config, media_token_id, projector_context), tokenizer


def _inputs_digest(folder: Path) -> str:
    """What an assembled model depends on: the language model's hash, the trained tensors, the configuration."""
    digest = hashlib.sha256(SMOLLM2.gguf_sha256.encode())
    for path in (TRAINED, folder / "config.json"):
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()


def parts_held(tensors: Iterable[str]) -> dict[str, bool]:
    """Which of `OPTIONAL_PARTS` tensors of these names belong to."""
    names = list(tensors)
    return {part: any(name.startswith(prefix) for name in names) for part, prefix in OPTIONAL_PARTS.items()}


def _shape_in(folder: Path) -> dict[str, bool] | None:
    """What a folder's configuration says of `OPTIONAL_PARTS`; None where there is none."""
    path = folder / "config.json"
    if not path.exists():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    fields = config | config["vision_config"]
    return {part: bool(fields.get(part, False)) for part in OPTIONAL_PARTS}


def is_up_to_date(folder: Path) -> bool:
    """Whether a folder's weights were assembled from what the repository holds now."""
    stamp, weights = folder / STAMP, folder / "model.safetensors"
    if not (weights.exists() and stamp.exists()):
        return False
    recorded = json.loads(stamp.read_text(encoding="utf-8"))
    return bool(recorded == {"inputs": _inputs_digest(folder), "bytes": weights.stat().st_size})


def assemble(folder: Path) -> bool:
    """Writes the Nano into a folder; returns False where it was up to date already."""
    if is_up_to_date(folder):
        return False
    stamp, weights = folder / STAMP, folder / "model.safetensors"
    tensors, scaling = read_trained_tensors(TRAINED) if TRAINED.exists() else ({}, 1.0)
    shape = parts_held(tensors)
    model, tokenizer = fresh_nano(**shape)
    # A Nano that was trained again, on generated samples alone, has another shape than the one the repository holds.
    if _shape_in(folder) != shape:
        sizes = NANO_OF_REAL_PICTURES if shape["convolutional_features"] else NANO_PROCESSOR
        write_configuration(folder, model, tokenizer, sizes)
    if tensors:
        load_parts(model, tensors)
        merge_lora(model, tensors, scaling)
    part = folder / ".assembling"
    model.save_pretrained(part, max_shard_size="4GB")
    (part / "model.safetensors").replace(weights)
    shutil.rmtree(part)
    written = {"inputs": _inputs_digest(folder), "bytes": weights.stat().st_size}
    stamp.write_text(json.dumps(written) + "\n", encoding="utf-8")
    return True


def assemble_from(vision: str, language: str, trained: Path | None, folder: Path, processor_options: dict) -> None:
    """Writes a model of any vision encoder and any causal language model, whose projector starts afresh.

    Args:
        vision, language: folders, or names on the Hub; see `load_vision_encoder` for the encoders that fit.
        trained: tensors of a stage that was trained on such a model; its LoRA factors are added to the weights.
        folder: empty or not there yet.

    Raises:
        ValueError: what does not fit, or would be written over, in one sentence.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; choose another --output.")
    torch.manual_seed(0)
    encoder = load_vision_encoder(vision)
    tokenizer = AutoTokenizer.from_pretrained(language)
    language_model = AutoModelForCausalLM.from_pretrained(language, dtype=torch.float32)
    add_media_tokens(language_model, tokenizer)
    end_at_turns(language_model.generation_config, tokenizer)
    model = build_model(language_model, encoder.config, tokenizer.convert_tokens_to_ids(MEDIA_TOKEN))
    model.model.vision_model.load_state_dict(encoder.state_dict())
    if trained is not None:
        tensors, scaling = read_trained_tensors(trained)
        load_parts(model, tensors)
        merge_lora(model, tensors, scaling)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    write_configuration(part, model, tokenizer, {"patch_size": encoder.config.patch_size, **processor_options})
    model.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HUB_MODEL, help="folder to write (default: hub_model)")
    parser.add_argument("--vision", help="folder or Hub name of a model with a SigLIP-like vision encoder")
    parser.add_argument("--language", help="folder or Hub name of a causal language model")
    parser.add_argument("--trained", type=Path, help="trained.safetensors of a stage that began with these two")
    parser.add_argument("--max-frame-tokens", type=int, default=256, help="visual tokens of a frame (default: 256)")
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    if (arguments.vision is None) != (arguments.language is None):
        parser.error("--vision and --language go together; without both, the Nano is assembled")
    if arguments.vision is None:
        done = assemble(folder)
        print(f"{folder.name}/model.safetensors {'written' if done else 'is up to date'}.")
        return
    try:
        options = {"max_frame_tokens": arguments.max_frame_tokens}
        assemble_from(arguments.vision, arguments.language, arguments.trained, folder, options)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    print(f"{arguments.output} holds the model; from_pretrained loads it.")


if __name__ == "__main__":
    main()
