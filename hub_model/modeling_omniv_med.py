# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The OmniV-Med model: a rotary vision encoder for images, volumes and videos, a projector, a causal language model.

Parameter names follow transformers' VideoLlama3, so that its checkpoints load after renaming the configuration.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling, ModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig, PruneStage, check_prune_stage
from .convolutional_features_omniv_med import OmniVMedConvolutionalFeatures
from .patch_positions_omniv_med import ClipPatches, locate_frames
from .projector_omniv_med import OmniVMedProjector
from .vision_layers_omniv_med import (
    OmniVMedVisionAttention,
    OmniVMedVisionEmbeddings,
    OmniVMedVisionEncoder,
    OmniVMedVisionEncoderLayer,
    OmniVMedVisionRotaryEmbedding,
)

LENGTH_BUCKETS, LENGTH_BUCKETS_ON_GPU = 8, 2
"""Windows of unequal length are padded to at most this many lengths a forward pass.

A GPU spends its time on starting many small batches rather than on padding: on an H100, 192 images of the Nano took
121 ms with eight lengths and 35 ms with two."""

FRAMES_AT_ONCE = 64
"""Frames of a film that are encoded together by `encode_in_pieces`."""


class OmniVMedPreTrainedModel(PreTrainedModel):
    """What all classes share: configuration, supported backends, wrapping names."""

    config_class: type[PretrainedConfig] = OmniVMedConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["OmniVMedVisionEncoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def _check_and_adjust_attn_implementation(self, *args: Any, **kwargs: Any) -> str:
        """transformers' check, whose message does not say what to install.

        Raises:
            ImportError: for a backend whose package is missing.
        """
        try:
            return super()._check_and_adjust_attn_implementation(*args, **kwargs)
        except ImportError as error:
            raise ImportError(f"{error} Run `pip install flash-attn`, or use attn_implementation='sdpa'.") from error


@dataclass
class RecordedWindows:
    """What the layers gave for one batch of windows (windows, length), for callers who ask for it.

    Attributes:
        index: int64 (windows, length) into the patches.
        valid: bool of the same shape, False where a window is padded.
        hidden_states: for the embeddings and each layer (windows, length, hidden), or None where it was not asked for.
        attentions: for each layer (windows, heads, length, length).
    """

    index: torch.Tensor
    valid: torch.Tensor
    hidden_states: tuple[torch.Tensor | None, ...] | None
    attentions: tuple[torch.Tensor, ...] | None


def join_hidden_states(recorded: list[RecordedWindows]) -> tuple[torch.Tensor | None, ...] | None:
    """Puts the states of all batches into patch order; form as in `OmniVMedVisionModel.forward`."""
    if any(windows.hidden_states is None for windows in recorded):
        return None
    order = torch.cat([windows.index[windows.valid] for windows in recorded]).argsort()
    layers = zip(*(windows.hidden_states for windows in recorded), strict=True)
    valid = [windows.valid for windows in recorded]
    return tuple(
        None if parts[0] is None else torch.cat([part[real] for part, real in zip(parts, valid, strict=True)])[order]
        for parts in layers
    )


def join_attentions(recorded: list[RecordedWindows]) -> tuple[torch.Tensor, ...] | None:
    """Puts the weights of all batches into the order of the clips; form as in `OmniVMedVisionModel.forward`."""
    if any(windows.attentions is None for windows in recorded):
        return None
    longest = max(windows.index.shape[1] for windows in recorded)
    order = torch.cat([windows.index[:, 0] for windows in recorded]).argsort()

    def pad(weights: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        weights = weights * valid[:, None, :, None]  # padded keys weigh nothing already, padded queries do
        return nn.functional.pad(weights, 2 * (0, longest - valid.shape[1]))

    valid = [windows.valid for windows in recorded]
    return tuple(
        torch.cat([pad(part, real) for part, real in zip(parts, valid, strict=True)])[order]
        for parts in zip(*(windows.attentions for windows in recorded), strict=True)
    )


class OmniVMedVisionModel(OmniVMedPreTrainedModel):
    """The vision encoder: patches of any number of clips in, merged (and, where a mask says so, pruned) tokens out."""

    config: OmniVMedVisionConfig
    config_class = OmniVMedVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": OmniVMedVisionEncoderLayer,
        "attentions": OmniVMedVisionAttention,
    }

    def __init__(self, config: OmniVMedVisionConfig):
        super().__init__(config)
        self.rotary_pos_emb = OmniVMedVisionRotaryEmbedding(config)
        self.embeddings = OmniVMedVisionEmbeddings(config)
        self.convolutional_features = (
            OmniVMedConvolutionalFeatures(config.hidden_size) if config.convolutional_features else None
        )
        self.encoder = OmniVMedVisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    def _window_lengths(self, grid_thw: torch.Tensor, patch_counts: torch.Tensor) -> torch.Tensor:
        """Patches in each temporal window (windows,), from the patches in each frame (frames,)."""
        span = self.config.temporal_window
        clip, frame = locate_frames(grid_thw)
        windows = (grid_thw[:, 0] + span - 1) // span
        index = (windows.cumsum(0) - windows)[clip] + frame // span
        return torch.zeros(int(windows.sum()), dtype=torch.long, device=index.device).index_add(0, index, patch_counts)

    def _window_batches(self, lengths: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Groups windows for batched attention.

        Windows of equal length share a batch; where there are many lengths, near ones are padded to the same. No
        batch holds more patches than `max_patches_per_step` allows, unless one window alone does.

        Yields:
            index: int64 (windows, length) into the patches, and valid: bool of the same shape, None if all are.
        """
        starts = lengths.cumsum(0) - lengths
        on_cpu = lengths.device.type == "cpu"
        budget = self.config.max_patches_per_step or (2048 if on_cpu else 16384)
        most = LENGTH_BUCKETS if on_cpu else LENGTH_BUCKETS_ON_GPU
        step = 1 if len(lengths.unique()) <= most else -(-int(lengths.max()) // most)
        buckets = -(-lengths // step)
        for bucket in buckets.unique().tolist():
            members = (buckets == bucket).nonzero().squeeze(1)
            longest = int(lengths[members].max())
            if longest == 0:
                continue
            for windows in members.split(max(budget // longest, 1)):
                offsets = torch.arange(longest, device=lengths.device).expand(len(windows), -1)
                valid = offsets < lengths[windows, None]
                index = starts[windows, None] + offsets.minimum(lengths[windows, None] - 1)
                yield index, None if bool(valid.all()) else valid

    def _padding_mask(self, valid: torch.Tensor | None) -> torch.Tensor | None:
        """The mask of padded keys in the form that the attention backend takes."""
        if valid is None or "flash" in self.config._attn_implementation:
            return valid
        mask = torch.zeros(valid.shape, dtype=self.dtype, device=valid.device)
        return mask.masked_fill(~valid, torch.finfo(self.dtype).min)[:, None, None, :]

    @capture_outputs(tie_last_hidden_states=False)
    def _encode_windows(
        self,
        embeddings: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Passes one batch of windows (windows, length, hidden) through the layers, recording what each gives if asked.

        The recorder sits here, not on `forward`: it counts the calls of a layer, and `forward` makes one a batch.
        """
        return BaseModelOutput(self.encoder(embeddings, position_embeddings, attention_mask, **kwargs))

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        grid_thw: torch.Tensor,
        merge_sizes: torch.Tensor,
        keep_mask: torch.Tensor | None = None,
        frame_positions: torch.Tensor | None = None,
        patch_spacing: torch.Tensor | None = None,
        prune_stage: PruneStage | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encodes clips.

        Args:
            pixel_values: float (patches, channels·patch²), merge blocks kept together.
            grid_thw: int64 (clips, 3), frames and patches per column and row.
            merge_sizes: int64 (clips,), side of the block of patches that becomes one token.
            keep_mask: bool (merged tokens,), False where a token is pruned; None keeps all.
            frame_positions: float (frames,), millimetres or seconds.
            patch_spacing: float (clips,), millimetres per patch, 0 if unknown.
            prune_stage: where `keep_mask` takes effect: "language" encodes every patch and drops pruned tokens
                afterwards, "encoder" does not encode them; None takes `config.prune_stage`.

        Returns:
            `last_hidden_state` (kept tokens, hidden). With `output_hidden_states`, `hidden_states`: the embeddings and
            what each layer gives, (patches, hidden) in the order of `pixel_values`, without pruned patches where these
            are not encoded. With `output_attentions` and the backend "eager" (no other has them), `attentions`: for
            each layer (windows with a patch, heads, longest window, longest window), windows in the order of the
            clips, the patches of each in the order of `hidden_states`, zero beyond its length.

        Raises:
            ValueError: for an unknown `prune_stage`.
        """
        if prune_stage is None:
            prune_stage = cast(PruneStage, self.config.prune_stage)
        check_prune_stage(prune_stage)
        clips = ClipPatches(grid_thw, merge_sizes, self.config, frame_positions, patch_spacing)
        patches_per_frame = clips.per_frame

        kept_patches = seen = None
        if keep_mask is not None and prune_stage == "encoder":
            area_of_token = (merge_sizes[clips.clip_of_frame] ** 2).repeat_interleave(clips.tokens_per_frame)
            frame_of_token = torch.repeat_interleave(clips.tokens_per_frame)
            patches_per_frame = torch.zeros_like(patches_per_frame).index_add(
                0, frame_of_token, keep_mask * area_of_token
            )
            kept_patches = keep_mask.repeat_interleave(area_of_token).nonzero().squeeze(1)
            seen = patches_per_frame > 0

        # Whole frames, pruned or not: what a kept patch sees around it must not depend on what is pruned.
        added = None
        if self.convolutional_features is not None:
            added = self.convolutional_features(pixel_values.to(self.dtype), grid_thw, merge_sizes, seen)

        # Each step ends in merged and kept tokens, so that a long clip adds no more than its output to a step's memory.
        count = int(clips.tokens_per_frame.sum()) if keep_mask is None else int(keep_mask.sum())
        hidden_states = pixel_values.new_empty(count, self.config.hidden_size, dtype=self.dtype)
        place_of_token = None if keep_mask is None else torch.where(keep_mask, keep_mask.cumsum(0) - 1, -1)
        recorded = []
        for index, valid in self._window_batches(self._window_lengths(grid_thw, patches_per_frame)):
            patches = index if kept_patches is None else kept_patches[index]
            embeddings = self.embeddings(pixel_values[patches.flatten()].to(self.dtype)).view(*index.shape, -1)
            if added is not None:
                embeddings = embeddings + added[patches]
            rotary = self.rotary_pos_emb(clips.positions(patches))
            outputs = self._encode_windows(embeddings, rotary, self._padding_mask(valid), return_dict=True, **kwargs)
            if outputs.hidden_states is not None or outputs.attentions is not None:
                real = torch.ones_like(index, dtype=torch.bool) if valid is None else valid
                recorded.append(RecordedWindows(index, real, outputs.hidden_states, outputs.attentions))
            encoded = outputs.last_hidden_state
            encoded, patches = (
                (encoded.flatten(0, 1), patches.flatten()) if valid is None else (encoded[valid], patches[valid])
            )
            tokens, areas = clips.tokens(patches).unique_consecutive(return_counts=True)
            merged = self._merge(self.post_layernorm(encoded), areas)
            if place_of_token is not None:
                places = place_of_token[tokens]
                tokens, merged = places[places >= 0], merged[places >= 0]
            hidden_states[tokens] = merged.to(hidden_states.dtype)  # autocast may have made it narrower
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states,
            hidden_states=join_hidden_states(recorded) if recorded else None,  # type: ignore[arg-type]  # see above
            attentions=join_attentions(recorded) if recorded else None,
        )

    @staticmethod
    def _merge(hidden_states: torch.Tensor, area_of_token: torch.Tensor) -> torch.Tensor:
        """Averages the patches of each token; for 2×2 this equals VideoLLaMA3's bilinear downsampling."""
        areas, counts = area_of_token.unique_consecutive(return_counts=True)
        runs = hidden_states.split((areas * counts).tolist())
        return torch.cat(
            [run.view(-1, area, run.shape[-1]).mean(dim=1) for run, area in zip(runs, areas.tolist(), strict=True)]
        )


@dataclass
class OmniVMedModelOutputWithPast(ModelOutput):
    """Output of the backbone; `image_hidden_states` (kept tokens, hidden) are the projected visual tokens."""

    last_hidden_state: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None


@dataclass
class OmniVMedCausalLMOutputWithPast(ModelOutput):
    """Output with the language-modelling `loss` (where labels were given) and `logits` (batch, length, vocabulary)."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None


class OmniVMedModel(OmniVMedPreTrainedModel):
    """The backbone: vision encoder, projector and language model without its head."""

    config: OmniVMedConfig

    def __init__(self, config: OmniVMedConfig):
        super().__init__(config)
        self.vision_model = OmniVMedVisionModel._from_config(config.vision_config)
        self.projector = OmniVMedProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        grid_thw: torch.Tensor,
        merge_sizes: torch.Tensor,
        keep_mask: torch.Tensor | None = None,
        frame_positions: torch.Tensor | None = None,
        patch_spacing: torch.Tensor | None = None,
        prune_stage: PruneStage | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encodes and projects clips; arguments as in `OmniVMedVisionModel.forward`.

        Returns:
            `last_hidden_state` (kept tokens, vision hidden) and `pooler_output`, for each clip its projected kept
            tokens (kept tokens of the clip, language hidden).
        """
        outputs = self.vision_model(
            pixel_values,
            grid_thw,
            merge_sizes,
            keep_mask,
            frame_positions,
            patch_spacing,
            prune_stage,
            return_dict=True,
            **kwargs,
        )
        tokens = (grid_thw.prod(dim=1) // merge_sizes**2).tolist()
        if keep_mask is not None:
            tokens = [int(part.sum()) for part in keep_mask.split(tokens)]
        projected = self.projector(outputs.last_hidden_state, grid_thw, merge_sizes, keep_mask)
        outputs.pooler_output = projected.split(tokens)
        return outputs

    def _insert_visual_tokens(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, visual: torch.Tensor
    ) -> torch.Tensor:
        """Puts the visual tokens (kept tokens, hidden) where the placeholders are, in reading order.

        Raises:
            ValueError: when the placeholders and the visual tokens differ in number.
        """
        if input_ids is None:
            placeholder = self.get_input_embeddings()(
                torch.tensor(self.config.image_token_id, device=inputs_embeds.device)
            )
            mask = (inputs_embeds == placeholder).all(dim=-1)
        else:
            mask = input_ids == self.config.image_token_id
        if int(mask.sum()) != len(visual):
            raise ValueError(
                f"The prompt holds {int(mask.sum())} visual placeholders, but the media gave {len(visual)} tokens; "
                "process text and media in one call of the processor."
            )
        return inputs_embeds.masked_scatter(mask.unsqueeze(-1), visual)

    @can_return_tuple
    def forward(  # type: ignore[misc]  # TransformersKwargs names position_ids too
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: torch.Tensor | None = None,
        grid_thw: torch.Tensor | None = None,
        merge_sizes: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
        frame_positions: torch.Tensor | None = None,
        patch_spacing: torch.Tensor | None = None,
        prune_stage: PruneStage | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> OmniVMedModelOutputWithPast:
        """Runs the language model on text with visual tokens in it.

        Args:
            input_ids: int64 (batch, length), one placeholder per kept visual token.
            pixel_values, grid_thw, merge_sizes, keep_mask, frame_positions, patch_spacing: the media of the whole
                batch in reading order, as in `OmniVMedVisionModel.forward`; leave them out once they are cached.
            prune_stage: where the encoder drops pruned tokens, as in `OmniVMedVisionModel.forward`; without media it
                has no effect. `generate` takes it too.
            mm_encoder_outputs: {"image": output of `get_image_features`} instead of the media, as `generate` passes.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        image_outputs = (mm_encoder_outputs or {}).get("image")
        if image_outputs is None and pixel_values is not None:
            image_outputs = self.get_image_features(
                pixel_values,
                grid_thw,
                merge_sizes,
                keep_mask,
                frame_positions,
                patch_spacing,
                prune_stage,
                return_dict=True,
            )
        visual = None
        if image_outputs is not None:
            per_clip = cast(tuple[torch.Tensor, ...], image_outputs.pooler_output)
            visual = torch.cat(per_clip).to(inputs_embeds.device, inputs_embeds.dtype)
            inputs_embeds = self._insert_visual_tokens(input_ids, inputs_embeds, visual)
        outputs = self.language_model(
            input_ids=None,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return OmniVMedModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=visual,
        )


class OmniVMedForConditionalGeneration(OmniVMedPreTrainedModel, GenerationMixin):
    """The whole model: answers questions about text, images, volumes and videos."""

    config: OmniVMedConfig
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: OmniVMedConfig):
        super().__init__(config)
        self.model = OmniVMedModel(config)
        text = config.get_text_config()
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_image_features(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        """See `OmniVMedModel.get_image_features`."""
        return self.model.get_image_features(*args, **kwargs)

    @torch.no_grad()
    def encode_in_pieces(
        self, media: Mapping[str, torch.Tensor], prune_stage: PruneStage | None = None
    ) -> dict[str, BaseModelOutputWithPooling]:
        """What `generate` takes as `mm_encoder_outputs` in the place of the media: their tokens, encoded before.

        Frames are encoded some windows at a time, and windows that keep no token are not encoded, as all that they
        gave would be dropped. The tokens are the same as with the media, up to rounding, but a film of an hour adds
        nothing to memory but them, and its pixels need not be there any more when the answer is written.

        Args:
            media: the processor's `visual_inputs`, or all of its inputs; `pixel_values` may be narrower than the
                model, and on another device.
            prune_stage: as in `OmniVMedVisionModel.forward`.

        Returns:
            {"image": output with `pooler_output`, for each clip its tokens (kept tokens, language hidden)}.
        """
        grids, merges = media["grid_thw"], media["merge_sizes"]
        patches, tokens = grids.prod(dim=1).tolist(), (grids.prod(dim=1) // merges**2).tolist()
        per_clip = zip(
            media["pixel_values"].split(patches),
            media["keep_mask"].split(tokens),
            media["frame_positions"].split(grids[:, 0].tolist()),
            strict=True,
        )
        encoded = []
        for number, (pixels, kept, positions) in enumerate(per_clip):
            grid, clip = grids[number], slice(number, number + 1)
            pixels, kept = pixels.view(len(positions), -1, pixels.shape[1]), kept.view(len(positions), -1)
            pieces: list[torch.Tensor] = []
            for frames in self._frames_of_kept_windows(kept):
                features = self.get_image_features(
                    pixels[frames].flatten(0, 1).to(self.device, self.dtype),
                    torch.stack([grid.new_tensor(len(frames)), *grid[1:]]).unsqueeze(0).to(self.device),
                    merges[clip].to(self.device),
                    kept[frames].flatten().to(self.device),
                    positions[frames].to(self.device),
                    media["patch_spacing"][clip].to(self.device),
                    prune_stage,
                    return_dict=True,
                )
                pieces += cast(tuple[torch.Tensor, ...], features.pooler_output)
            encoded.append(torch.cat(pieces))
        return {"image": BaseModelOutputWithPooling(pooler_output=tuple(encoded))}  # type: ignore[arg-type]

    def _frames_of_kept_windows(self, kept: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the numbers (frames,) of the frames in windows that keep a token (T, N), some windows at a time."""
        span = cast(OmniVMedVisionConfig, self.config.vision_config).temporal_window
        frames = torch.arange(len(kept), device=kept.device)
        windows = (frames // span)[kept.any(dim=1)].unique()
        for some in windows.split(max(FRAMES_AT_ONCE // span, 1)):
            yield frames[torch.isin(frames // span, some)]

    @can_return_tuple
    def forward(  # type: ignore[misc]  # TransformersKwargs names position_ids too
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: torch.Tensor | None = None,
        grid_thw: torch.Tensor | None = None,
        merge_sizes: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
        frame_positions: torch.Tensor | None = None,
        patch_spacing: torch.Tensor | None = None,
        prune_stage: PruneStage | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> OmniVMedCausalLMOutputWithPast:
        """Arguments as in `OmniVMedModel.forward`; `labels` (batch, length) are token ids, −100 where not scored, and
        `logits_to_keep` limits the logits to the last positions."""
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            pixel_values=pixel_values,
            grid_thw=grid_thw,
            merge_sizes=merge_sizes,
            keep_mask=keep_mask,
            frame_positions=frame_positions,
            patch_spacing=patch_spacing,
            prune_stage=prune_stage,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.get_text_config().vocab_size, **kwargs)
        return OmniVMedCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )


__all__ = [
    "OmniVMedForConditionalGeneration",
    "OmniVMedModel",
    "OmniVMedPreTrainedModel",
    "OmniVMedVisionModel",
]
