# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""vLLM's multimodal processor around the model's own, which sizes, prunes and labels the clips.

Pruning is decided in pixel space, so the prompt has its final length before the engine sees it: vLLM's caches, chunks
and batches need to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from vllm.config.multimodal import MultiModalDummyOptions
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems, MultiModalDataParser, VisionChunkProcessorItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    InputProcessingContext,
    ProcessorInputs,
    PromptReplacement,
    PromptUpdate,
    PromptUpdateDetails,
)

from . import MODALITY
from .media import Medium, prepare_reader

PRUNE_STAGE = "prune_stage"
"""An option of the model rather than of its processor; requests give both kinds in `mm_processor_kwargs`."""
UNPRUNED = {"prune_rule": "none"}
FIELDS = (
    ("pixel_values", "patches"),
    ("keep_mask", "tokens"),
    ("frame_positions", "frames"),
    ("prompt_ids", "prompt"),
    ("grid_thw", ""),
    ("merge_sizes", ""),
    ("patch_spacing", ""),
    ("prunes_before_encoder", ""),
)
"""The tensors of a request's clips, and what each has along its first axis; "": one row a clip."""


class MediumItems(VisionChunkProcessorItems):
    """The media of a request in reading order."""

    def get_item_for_hash(self, index: int) -> str:
        return self.get(index)["digest"]

    def clips(self) -> list[Any]:
        return [medium["clip"] for medium in self.get_all()]


class MediumParser(MultiModalDataParser):
    """Takes what `media.IsolatedMediaConnector` gives."""

    def _parse_vision_chunk_data(self, data: Sequence[Medium] | None) -> MediumItems | None:
        if not all(isinstance(medium, dict) and "clip" in medium for medium in data or ()):
            raise ValueError("Media come as image_url and video_url parts of a message; give each its file.")
        return None if data is None else MediumItems(data)


class OmniVMedProcessingInfo(BaseProcessingInfo):
    """What vLLM asks about the model's inputs."""

    def __init__(self, ctx: InputProcessingContext) -> None:
        super().__init__(ctx)
        prepare_reader(ctx.model_config, self.get_hf_processor())

    def get_data_parser(self) -> MultiModalDataParser:
        return MediumParser()

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {MODALITY: None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """A long clip may fill the context: how many frames are taken, requests may say."""
        return {MODALITY: seq_len}


class OmniVMedDummyInputsBuilder(BaseDummyInputsBuilder[OmniVMedProcessingInfo]):
    """The largest request, by which vLLM measures the memory that it needs."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return self.info.get_hf_processor().image_token * mm_counts.get(MODALITY, 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: MultiModalDummyOptions
    ) -> dict[str, list[Medium]]:
        processor, clip, frames = self.info.get_hf_processor(), self._clip(1), 2
        while frames <= processor.max_frames:
            longer = self._clip(frames)
            if processor.process_clip(longer, **UNPRUNED).tokens_after > seq_len:
                break
            clip, frames = longer, 2 * frames
        return {MODALITY: [{"clip": clip, "digest": f"dummy of {len(clip.frames)}"}] * mm_counts.get(MODALITY, 0)}

    def _clip(self, frames: int) -> Any:
        """Large enough for the most tokens of a frame."""
        processor = self.info.get_hf_processor()
        side = processor.patch_size * processor.merge_size * (int(processor.max_frame_tokens**0.5) + 1)
        black = np.zeros((frames, side, side, 3), np.uint8)
        return processor.load(black, kind="video" if frames > 1 else "image", max_frames=frames)


class OmniVMedMultiModalProcessor(BaseMultiModalProcessor[OmniVMedProcessingInfo]):
    """Clips in, the model's tensors and the prompt's tokens out.

    vLLM's own way of calling a processor is not taken: it casts every number to the model's dtype, and bfloat16 rounds
    positions in millimetres.
    """

    def _apply_hf_processor_main(self, mm_items: MultiModalDataItems, hf_kwargs: Mapping[str, object]) -> BatchFeature:
        if MODALITY not in mm_items:  # all of them are cached
            return BatchFeature()
        processor, options = self.info.get_hf_processor(), dict(hf_kwargs)
        stage = options.pop(PRUNE_STAGE, None) or self.info.get_hf_config().vision_config.prune_stage
        if stage not in ("language", "encoder"):
            raise ValueError(f"prune_stage must be 'language' or 'encoder', not {stage!r}.")
        clips = mm_items.get_items(MODALITY, MediumItems).clips()
        processed = [processor.process_clip(clip, **options) for clip in clips]
        texts = [processor.placeholder_text(clip) for clip in processed]
        prompts = [processor.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        return BatchFeature(
            {
                **processor.visual_inputs(processed),
                "prunes_before_encoder": torch.tensor([stage == "encoder"] * len(clips)),
                "prompt_ids": torch.tensor([token for prompt in prompts for token in prompt]),
                "prompt_lengths": torch.tensor([len(prompt) for prompt in prompts]),
            }
        )

    def get_dummy_inputs(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: MultiModalDummyOptions
    ) -> ProcessorInputs:
        dummies = super().get_dummy_inputs(seq_len, mm_counts, mm_options)
        return replace(dummies, hf_processor_mm_kwargs=UNPRUNED)

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        if not hf_inputs:
            return {}
        patches = hf_inputs["grid_thw"].prod(dim=1)
        sizes = {
            "patches": patches,
            "tokens": patches // hf_inputs["merge_sizes"] ** 2,
            "frames": hf_inputs["grid_thw"][:, 0],
            "prompt": hf_inputs["prompt_lengths"],
        }
        return {
            name: MultiModalFieldConfig.flat_from_sizes(MODALITY, sizes[axis])
            if axis
            else MultiModalFieldConfig.batched(MODALITY)
            for name, axis in FIELDS
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        placeholder = self.info.get_hf_processor().image_token_id

        def labels_and_tokens(item: int) -> PromptUpdateDetails:
            tokens = out_mm_kwargs[MODALITY][item]["prompt_ids"].data.tolist()
            return PromptUpdateDetails.select_token_id(tokens, placeholder)

        return [PromptReplacement(modality=MODALITY, target=[placeholder], replacement=labels_and_tokens)]

    def _apply_prompt_updates(self, token_ids: list[int], mm_prompt_updates: Any) -> Any:
        """As vLLM, but the words of a request cannot pass for a medium.

        Raises:
            ValueError: where the prompt has more or fewer placeholders than media.
        """
        media = len(mm_prompt_updates[MODALITY])
        if (found := token_ids.count(self.info.get_hf_processor().image_token_id)) != media:
            raise ValueError(f"The text has {found} media placeholders, but {media} media; leave them out of the text.")
        return super()._apply_prompt_updates(token_ids, mm_prompt_updates)
