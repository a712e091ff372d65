# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Small random models in the formats of other projects: transformers' VideoLlama3, VideoLLaMA3's own code, Hulu-Med."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, VideoLlama3Config, VideoLlama3ForConditionalGeneration

from tests.helpers.tiny_models import PATCH_SIZE, TINY_TEXT, TINY_VISION
from tests.helpers.tokenizers import small_tokenizer_settings

REMOTE_PREFIXES = {
    "videollama3": "model.vision_encoder.",
    "hulumed": "model.vision_encoder.",
    "older hulumed": "model.vision_encoder.vision_encoder.",
}
SYSTEM = "You are a model of another project."
TEMPLATE = """\
{% for message in messages %}
    {% if add_system_prompt and loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\\nSYSTEM<|im_end|>\\n' -}}
    {% endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {% if message['content'] is string %}
        {{- message['content'] -}}
    {% else %}
        {% for part in message['content'] %}
            {% if part['type'] == 'image' or 'image' in part %}
                {{- IMAGE + '\\n' -}}
            {% elif part['type'] == 'video' %}
                {% for time in part['timestamps'] %}
                    {{- 'Time ' + time | round(1) | string + 's:' + IMAGE -}}
                {% endfor %}
            {% elif part['type'] == 'text' %}
                {{- part['text'] -}}
            {% endif %}
        {% endfor %}
    {% endif %}
    {{- '<|im_end|>\\n' -}}
{% endfor %}
{% if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' -}}
{% endif %}
""".replace("SYSTEM", SYSTEM)
"""A template as VideoLLaMA3 has it, in which a video needs the times of its frames."""


def foreign_tokenizer(placeholder: str) -> PreTrainedTokenizerFast:
    """A small tokenizer with another name for the visual token, and one for videos."""
    settings = small_tokenizer_settings()
    for token in settings["added_tokens"]:
        if token["content"] == "<|media_pad|>":
            token["content"] = placeholder
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(settings)),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|vision_start|>", placeholder, "<|vision_end|>"],
    )
    tokenizer.add_tokens(["<|video_pad|>"], special_tokens=True)
    return tokenizer


def foreign_model(
    language: str, tied: bool, tokenizer: PreTrainedTokenizerFast, image_token: str, text_sizes: dict[str, int]
) -> Any:
    """transformers' own class, random and small, before one of its language models."""
    torch.manual_seed(3)
    text = TINY_TEXT | {"head_dim": 8} | text_sizes | {"vocab_size": len(tokenizer) + 5, "model_type": language}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = VideoLlama3Config(
        text_config=text | {"tie_word_embeddings": tied},
        vision_config=TINY_VISION | {"num_channels": 3},
        image_token_id=tokenizer.convert_tokens_to_ids(image_token),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        tie_word_embeddings=tied,
    )
    return VideoLlama3ForConditionalGeneration(config).eval()


def write_foreign(
    folder: Path,
    layout: str = "transformers",
    language: str = "qwen2",
    tied: bool = True,
    shards: int = 3,
    text_sizes: dict[str, int] | None = None,
) -> VideoLlama3ForConditionalGeneration:
    """Writes a checkpoint as the project publishes it, and gives transformers' class with the same tensors.

    Args:
        layout: "transformers", or a key of `REMOTE_PREFIXES`.
        text_sizes: of the language model, where they are not those of `TINY_TEXT`.
    """
    image_token = "<|image_pad|>" if layout == "transformers" else "<image>"
    tokenizer = foreign_tokenizer(image_token)
    model = foreign_model(language, tied, tokenizer, image_token, text_sizes or {})
    folder.mkdir(parents=True)
    template = TEMPLATE.replace("IMAGE", f"'{image_token}'" if layout == "transformers" else "image_token")
    tensors = dict(model.state_dict())
    if tied:
        del tensors["lm_head.weight"]
    if layout == "transformers":
        model.config.save_pretrained(folder)
        (folder / "chat_template.jinja").write_text(template)
    else:
        tensors = {remote_name(name, layout): tensor for name, tensor in tensors.items()}
        tokenizer.chat_template = template
        (folder / "config.json").write_text(json.dumps(remote_config(model, layout, language)))
    tokenizer.save_pretrained(folder)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text())
    if layout == "transformers":  # its processors look for the placeholder by what it is for
        settings |= {"extra_special_tokens": {"image_token": image_token}}
    settings_file.write_text(json.dumps(settings))
    model.generation_config.do_sample, model.generation_config.temperature = True, 0.7
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.save_pretrained(folder)
    model.generation_config.do_sample, model.generation_config.temperature = False, None
    write_settings(folder, layout)
    card = "---\nlicense: cc-by-nc-4.0\nlanguage: [en, zh]\n---\n\n# Card\n"
    (folder / "README.md").write_text(card)
    write_shards(folder, tensors, shards)
    return model


def remote_name(name: str, layout: str) -> str:
    """What the project's own code calls a tensor of transformers' class."""
    for prefix, theirs in {
        "model.vision_model.": REMOTE_PREFIXES[layout],
        "model.projector.": "model.mm_projector.",
        "model.language_model.": "model.",
    }.items():
        if name.startswith(prefix):
            return theirs + name.removeprefix(prefix)
    return name


def remote_config(model: VideoLlama3ForConditionalGeneration, layout: str, language: str) -> dict[str, Any]:
    """The configuration of the project's own code: the language model's at the top, with the encoder's inside."""
    config = model.config
    text = config.text_config.to_dict()
    theta = text.pop("rope_parameters")["rope_theta"]
    vision = {name: getattr(config.vision_config, name) for name in TINY_VISION}
    return text | {
        "model_type": f"{'videollama3' if layout == 'videollama3' else 'hulumed'}_{language}",
        "architectures": ["ForCausalLM"],
        "auto_map": {"AutoConfig": "configuration.Config"},
        "rope_theta": theta,
        "rope_scaling": None,
        "torch_dtype": "float32",
        "vision_encoder": None,
        "vision_encoder_config": vision | {"model_type": "vision_encoder"},
        "mm_projector_type": "mlp2x_gelu",
        "use_token_compression": True,
        "image_token_index": config.image_token_id,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def write_settings(folder: Path, layout: str) -> None:
    """How the project prepares pictures and videos."""
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "resample": 3}
    picture = half | {"patch_size": PATCH_SIZE}
    if layout == "transformers":
        smallest, area = {"shortest_edge": 4 * PATCH_SIZE**2}, PATCH_SIZE**2
        picture |= {"merge_size": 1, "size": smallest | {"longest_edge": 48 * area}, "temporal_patch_size": 1}
        video = picture | {"merge_size": 2, "size": smallest | {"longest_edge": 4 * 24 * area}}
        video |= {"fps": 1, "max_frames": 9}
        files = {"processor_config.json": {"image_processor": picture, "video_processor": video}}
    else:
        files = {
            "preprocessor_config.json": picture | {"min_tokens": 4, "max_tokens": 48},
            "processor_config.json": {"image_merge_size": 1, "video_merge_size": 2, "fps": 1, "max_frames": 9},
        }
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields))


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], count: int) -> None:
    """Divides tensors among so many files, with an index where there are several."""
    names = sorted(tensors)
    if count == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    places = {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        chosen = names[number::count]
        save_file({name: tensors[name].contiguous() for name in chosen}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(chosen, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
