# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Our pruner for Qwen2.5-VL and Qwen3-VL as transformers has them, and for the medical models made of these.

    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt", …)
    pruned = prune_prompt(processor, inputs, threshold=0.1)
    answer = model.generate(**pruned.for_model(model), max_new_tokens=64)

The mask is decided on the processor's own pixel values, two frames a temporal patch. Placeholders of removed tokens
leave the prompt; tokens that stay keep their rotary positions and their deep-stack features. Pictures stay whole, as
the first frame of a clip is. The model's code is not touched: it gets encoded videos and positions as arguments, which
transformers' `generate` takes, with batches and beams.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .pruning_noise_omniv_med import estimate_noise
from .token_pruning_omniv_med import PrunedTokens, PruneRule, prune_tokens

VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
"""What Qwen3-VL writes around the tokens of each temporal patch, after its time."""
TEXT, IMAGE, VIDEO = 0, 1, 2
"""`mm_token_type_ids` of transformers."""


@dataclass(frozen=True)
class PrunedPrompt:
    """A prompt without the placeholders of removed tokens.

    Attributes:
        input_ids, attention_mask: int64 (batch, length), padded on the tokenizer's side.
        kept: bool (batch, length of the prompt before), True where a token stays.
        videos: what the pruner decided for each video, fields (temporal patches, tokens of one).
        inputs: what the processor gave, unchanged.
        token_types: int64 like `kept`: text, picture or video.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    kept: torch.Tensor
    videos: tuple[PrunedTokens, ...]
    inputs: Mapping[str, Any]
    token_types: torch.Tensor

    @property
    def reduction(self) -> float:
        """Share of the prompt's tokens that were removed, padding not counted."""
        return 1 - int(self.attention_mask.sum()) / int(_attended(self.inputs).sum())

    def for_model(self, model: Any) -> dict[str, Any]:
        """The arguments for the model's `forward` or `generate`; make them anew for every call, which may change them.

        Args:
            model: a `Qwen2_5_VLForConditionalGeneration` or `Qwen3VLForConditionalGeneration`.

        Returns:
            `input_ids`, `attention_mask`, `position_ids` (4, batch, length) and the encoded media, on its device.
        """
        backbone = model.base_model
        inputs = {
            name: value.to(model.device) if hasattr(value, "to") else value for name, value in self.inputs.items()
        }
        kept, attention_mask = self.kept.to(model.device), self.attention_mask.to(model.device)
        grids = {name: inputs[name] for name in ("image_grid_thw", "video_grid_thw") if inputs.get(name) is not None}
        encoded: dict[str, Any] = {}
        if inputs.get("pixel_values") is not None:
            encoded["image"] = backbone.get_image_features(
                inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
            )
        if inputs.get("pixel_values_videos") is not None:
            video = backbone.get_video_features(
                inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True
            )
            encoded["video"] = self._keep(video)
        text_positions = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
        positions = text_positions.expand(3, -1, -1)
        if grids:
            times = inputs.get("second_per_grid_ts")
            whole, _ = backbone.get_rope_index(
                inputs["input_ids"],
                mm_token_type_ids=self.token_types.to(model.device),
                attention_mask=_attended(inputs),
                **grids,
                **({} if times is None else {"second_per_grid_ts": times}),
            )
            positions = torch.zeros_like(whole[..., : self.input_ids.shape[1]])
            positions[:, attention_mask.bool()] = whole[:, kept]
        return {
            "input_ids": self.input_ids.to(model.device),
            "attention_mask": attention_mask,
            "position_ids": torch.cat([text_positions[None], positions]),
            "mm_encoder_outputs": encoded,
        }

    def _keep(self, outputs: Any) -> Any:
        """The encoder's output without the removed tokens, deep-stack features too."""
        outputs = copy.copy(outputs)
        masks = [video.keep_mask.flatten().to(outputs.pooler_output[0].device) for video in self.videos]
        outputs.pooler_output = _select(outputs.pooler_output, masks)
        layers = getattr(outputs, "deepstack_features", None)
        if layers is not None:
            outputs.deepstack_features = [_select(features, masks) for features in layers]
        return outputs


def prune_prompt(
    processor: Any,
    inputs: Mapping[str, Any],
    threshold: float = 0.1,
    peak_threshold: float | None = None,
    rule: PruneRule = "anchor",
) -> PrunedPrompt:
    """Decides which visual tokens of a prompt's videos repeat, and takes their placeholders out of it.

    Args:
        processor: of Qwen2.5-VL or Qwen3-VL.
        inputs: what it gave for one conversation or several, as PyTorch tensors.
        threshold, peak_threshold, rule: as in `prune_tokens`: mean absolute difference in pixel values of [-1, 1],
            whatever the processor's own normalisation.

    Returns:
        `PrunedPrompt`. A temporal patch that keeps no token leaves the prompt whole where it stands alone in it, its
        time too.

    Raises:
        ValueError: where prompt and pixels do not belong together.
    """
    ids = inputs["input_ids"]
    types = torch.full_like(ids, TEXT)
    types[ids == processor.image_token_id] = IMAGE
    types[ids == processor.video_token_id] = VIDEO
    videos: tuple[PrunedTokens, ...] = ()
    if inputs.get("pixel_values_videos") is not None:
        videos = tuple(
            prune_tokens(tokens, rule, threshold, peak_threshold, noise=estimate_noise(tokens))
            for tokens in video_tokens(processor.video_processor, inputs)
        )
    masks = [video.keep_mask.flatten().to(ids.device) for video in videos]
    mask = torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool, device=ids.device)
    kept = _attended(inputs).bool()
    places = (types == VIDEO) & kept
    if int(places.sum()) != len(mask):
        raise ValueError(
            f"The prompt has {int(places.sum())} placeholders of videos, but the pixels give {len(mask)} tokens; "
            "give what one call of the processor returned."
        )
    kept[places] = mask
    marks = processor.tokenizer.convert_tokens_to_ids([VISION_START, VISION_END])
    for row, row_types, row_kept in zip(ids, types, kept, strict=True):
        _drop_empty_frames(row.tolist(), row_types.tolist(), row_kept, *marks)
    pruned_ids, attention_mask = _pad(ids, kept, processor.tokenizer)
    return PrunedPrompt(pruned_ids, attention_mask, kept, videos, inputs, types)


def video_tokens(video_processor: Any, inputs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The videos' pixels as our pruner takes them: float32 (temporal patches, tokens, merge²·frames, 3, patch, patch).

    The frames of a temporal patch stand side by side as patches do, so that the pruner's guard looks at each alone.

    Args:
        video_processor: whose normalisation is undone, to [-1, 1].
    """
    patch, frames = video_processor.patch_size, video_processor.temporal_patch_size
    area = video_processor.merge_size**2
    grids = inputs["video_grid_thw"]
    pixels = inputs["pixel_values_videos"].float().split(grids.prod(dim=1).tolist())
    found = []
    for values, times in zip(pixels, grids[:, 0].tolist(), strict=True):
        tokens = values.view(times, -1, area, 3, frames, patch, patch).transpose(3, 4)
        mean, deviation = (
            values.new_tensor(statistics).view(3, 1, 1)
            for statistics in (video_processor.image_mean, video_processor.image_std)
        )
        tokens = (tokens * deviation + mean) * 2 - 1
        found.append(tokens.flatten(2, 3).contiguous())
    return found


def _attended(inputs: Mapping[str, Any]) -> torch.Tensor:
    """The attention mask of the whole prompt, all ones where the processor gave none."""
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"]) if mask is None else mask.long()


def _select(features: Any, masks: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return tuple(one[mask] for one, mask in zip(features, masks, strict=True))


def _drop_empty_frames(ids: list[int], types: list[int], kept: torch.Tensor, start: int, end: int) -> None:
    """Takes what stands around the placeholders of a temporal patch out of `kept` where none of these stay, in place.

    That is the marks around them and, back to the end of the patch before, its time.
    """
    first = 0
    while first < len(ids):
        if types[first] != VIDEO:
            first += 1
            continue
        last = first
        while last < len(ids) and types[last] == VIDEO:
            last += 1
        if not kept[first:last].any() and ids[first - 1] == start and last < len(ids) and ids[last] == end:
            begin = first - 1
            while begin > 0 and ids[begin - 1] != end:
                begin -= 1
            kept[begin : last + 1] = False
        first = last


def _pad(ids: torch.Tensor, kept: torch.Tensor, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The kept tokens of each row, padded to one length on the tokenizer's side, and their attention mask."""
    rows = [row[keep] for row, keep in zip(ids, kept, strict=True)]
    longest = max(len(row) for row in rows)
    padded = ids.new_full((len(rows), longest), tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)
    attention_mask = torch.zeros_like(padded)
    for number, row in enumerate(rows):
        place = slice(0, len(row)) if tokenizer.padding_side == "right" else slice(longest - len(row), longest)
        padded[number, place] = row
        attention_mask[number, place] = 1
    return padded, attention_mask


__all__ = ["PrunedPrompt", "prune_prompt"]
