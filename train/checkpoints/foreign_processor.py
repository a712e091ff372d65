# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Takes over how another project prepares pictures, videos and prompts, so that its weights see what they learned from.

Their tokenizer keeps all ids; only the picture's placeholder is renamed to ours. Their chat template keeps its wording:
a few lines before it make every kind of medium one placeholder. Sizes, frame limits and the labels of frames become
options of our processor. What our processor cannot do is refused, or said in a note.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from hub_model.configuration_omniv_med import OmniVMedConfig
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from hub_model.visual_processing_omniv_med import PIXEL_MEAN, PIXEL_STD
from train.checkpoints.vision_encoder import CheckpointError

PLACEHOLDERS = ("<image>", "<|image_pad|>")
"""What VideoLLaMA3's own code and transformers call a visual token."""
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Special tokens that a tokenizer knows by what they are for."""
RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
FRAME_SEPARATOR, VIDEO_LABEL = ",", "Time {position}s:"
"""VideoLLaMA3's and Hulu-Med's prompt of a video: "Time 0.0s:" and its tokens, "," and the next. Hulu-Med writes the
slices of a volume so too, without times."""
FEWEST_TOKENS, MOST_TOKENS = 16, 16384
"""Of one picture, and of all frames of one video: VideoLLaMA3's own, where a checkpoint says nothing."""

MEDIA_AS_IMAGES = """\
{#- Every medium is one picture to the wording below, which is the source model's; the processor fills it. -#}
{%- set image_token = 'MEDIA_TOKEN' -%}
{%- set rewritten = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set content = namespace(parts=[]) -%}
{%- if message['content'] is not string -%}
{%- for part in message['content'] -%}
{%- set text = {'type': 'text', 'text': part['text']} if part['type'] == 'text' else {'type': 'image'} -%}
{%- set content.parts = content.parts + [text] -%}
{%- endfor -%}
{%- endif -%}
{%- set parts = message['content'] if message['content'] is string else content.parts -%}
{%- set rewritten.messages = rewritten.messages + [dict(message, content=parts)] -%}
{%- endfor -%}
{%- set messages = rewritten.messages %}
""".replace("MEDIA_TOKEN", MEDIA_TOKEN)


def take_tokenizer(folder: Path, config: OmniVMedConfig) -> tuple[PreTrainedTokenizerFast, str]:
    """Their tokenizer with our name for the visual token, and their name.

    Args:
        config: with the token's id as `image_token_id`, or -1 to look for its usual names.

    Raises:
        CheckpointError: where the tokenizer cannot be read, or has no such token.
    """
    image_token_id = config.image_token_id
    try:
        # With a configuration, as it would ask whether to run the checkpoint's code to read the folder's own.
        theirs = AutoTokenizer.from_pretrained(folder, config=config.text_config, trust_remote_code=False)
        settings = json.loads(theirs.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"The tokenizer of {folder} cannot be read: {error}") from None
    if image_token_id < 0:
        known = [token for token in PLACEHOLDERS if token in theirs.get_vocab()]
        image_token_id = theirs.convert_tokens_to_ids(known[0]) if known else -1
    added = [token for token in settings["added_tokens"] if token["id"] == image_token_id]
    if not added:
        raise CheckpointError(f"The tokenizer of {folder} has no added token for pictures (id {image_token_id}).")
    placeholder = added[0]["content"]
    added[0]["content"] = MEDIA_TOKEN
    vocabulary = settings["model"].get("vocab")
    if isinstance(vocabulary, dict) and placeholder in vocabulary:
        vocabulary[MEDIA_TOKEN] = vocabulary.pop(placeholder)
    special = {name: str(theirs.special_tokens_map[name]) for name in ROLES if name in theirs.special_tokens_map}
    extra = [MEDIA_TOKEN if token == placeholder else token for token in theirs.extra_special_tokens]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=type(theirs.backend_tokenizer).from_str(json.dumps(settings)),
        extra_special_tokens=extra,
        model_max_length=theirs.model_max_length,
        clean_up_tokenization_spaces=False,
        **special,
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, placeholder


def take_template(folder: Path, placeholder: str) -> str:
    """Their chat template for our content types.

    Args:
        placeholder: their name of the visual token, which the template may write.

    Raises:
        CheckpointError: where there is none, or it cannot write a picture.
    """
    template = None
    if (file := folder / "chat_template.jinja").is_file():
        template = file.read_text(encoding="utf-8")
    # Older checkpoints keep it in the tokenizer's settings.
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        template = template or _read(folder, name).get("chat_template")
    if not isinstance(template, str):
        raise CheckpointError(f"{folder} has no chat template; put its chat_template.jinja beside the weights.")
    template = MEDIA_AS_IMAGES + template.replace(placeholder, MEDIA_TOKEN)
    content = [{"type": "video"}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content}]
    # It gives the prompts and what the assistant wrote in them, and is annotated otherwise.
    rendered: Any = render_jinja_template([messages], chat_template=template, add_generation_prompt=True)
    prompt = rendered[0][0]
    if prompt.count(MEDIA_TOKEN) != 1 or "What is it?" not in prompt:
        raise CheckpointError(f"The chat template of {folder} does not write one {placeholder} for a picture.")
    return template


@dataclass(frozen=True)
class TakenOptions:
    """Options of our processor that prepare media as theirs does.

    Attributes:
        options: arguments of `OmniVMedProcessor`.
        notes: what is not quite the same, or was not said, one sentence each.
    """

    options: dict[str, Any]
    notes: tuple[str, ...]


def take_options(folder: Path, config: OmniVMedConfig) -> TakenOptions:
    """Sizes, merging, frame limits, resampling and labels.

    transformers keeps them in `processor_config.json`, by picture and video; before, as VideoLLaMA3's and Hulu-Med's
    own code does, in `preprocessor_config.json` and beside it.

    Raises:
        CheckpointError: for a normalisation or a temporal patch that our encoder does not have.
    """
    whole = _read(folder, "processor_config.json")
    picture = whole.get("image_processor") or _read(folder, "preprocessor_config.json")
    video = whole.get("video_processor") or _read(folder, "video_preprocessor_config.json") or picture
    notes = [] if picture else ["The source says nothing of its image processor; the sizes of VideoLLaMA3 were taken."]
    for settings in (picture, video):
        _check_normalisation(settings)
    patch_size = int(config.vision_config.patch_size)
    merge = int(whole.get("image_merge_size") or picture.get("merge_size") or 1)
    clip_merge = int(whole.get("video_merge_size") or (video.get("merge_size") if video is not picture else None) or 2)
    fewest, most = _token_bounds(picture, patch_size * merge)
    _, most_of_clip = _token_bounds(video, patch_size * clip_merge)
    resample = RESAMPLING.get(int(picture.get("resample", 3)))
    if resample is None:
        resample = "bicubic"
        notes.append("Frames are resized with Pillow's BICUBIC, not with the source's filter.")
    fps = whole.get("fps") or video.get("fps") or 1.0
    frames = whole.get("max_frames") or video.get("max_frames") or 180
    options = {
        "patch_size": patch_size,
        "merge_size": merge,
        "clip_merge_size": clip_merge,
        "min_frame_tokens": fewest,
        "max_frame_tokens": most,
        "max_clip_tokens": most_of_clip,
        "resample": resample,
        "max_frames": int(frames),
        "fps": float(fps),
        "volume_label": "",
        "video_label": VIDEO_LABEL,
        "frame_separator": FRAME_SEPARATOR,
        "max_labels": None,
    }
    return TakenOptions(options, tuple(notes))


def _check_normalisation(settings: dict[str, Any]) -> None:
    expected = {"image_mean": PIXEL_MEAN, "image_std": PIXEL_STD, "rescale_factor": 1 / 255}
    for name, value in expected.items():
        given = settings.get(name, value)
        values = given if isinstance(given, (list, tuple)) else [given]
        if any(abs(float(one) - value) > 1e-6 for one in values):
            raise CheckpointError(f"The source's {name} is {given}; this encoder takes {value:.6g} only.")
    if int(settings.get("temporal_patch_size", 1)) != 1:
        raise CheckpointError("The source joins frames into temporal patches; this encoder takes single frames only.")


def _token_bounds(settings: dict[str, Any], token_size: int) -> tuple[int, int]:
    """Fewest and most merged tokens; transformers counts pixels, the others tokens."""
    size = settings.get("size") or {}
    pixels = (
        settings.get("min_pixels") or size.get("shortest_edge"),
        settings.get("max_pixels") or size.get("longest_edge"),
    )
    tokens = (settings.get("min_tokens", FEWEST_TOKENS), settings.get("max_tokens", MOST_TOKENS))
    fewest, most = (
        int(counted) if area is None else max(int(area) // token_size**2, 1)
        for counted, area in zip(tokens, pixels, strict=True)
    )
    return fewest, most


def take_generation(folder: Path, tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Their generation settings; where they say none, to end at the end token."""
    settings = GenerationConfig()
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder)
    if settings.eos_token_id is None:
        settings.eos_token_id = tokenizer.eos_token_id
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    return settings


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return fields
