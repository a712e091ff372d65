# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The processor: conversations with files of any kind in them become the tensors the model takes.

It reads the media, sizes and prunes their tokens, and writes one placeholder per kept token into the prompt, so that
placeholder counts are right before the model runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.processing_utils import TextKwargs

from .clip_omniv_med import Clip
from .prompt_omniv_med import MEDIA_TOKEN, fill_placeholders, media_text
from .pruning_noise_omniv_med import estimate_noise, noise_frames, noise_of_pairs
from .token_pruning_omniv_med import PrunedTokens, PruneRule, prune_tokens, reconstruct
from .visual_processing_omniv_med import RESAMPLES, Resample, frames_to_tokens, to_uint8, token_grid, unpatchify

MEDIA_TYPES = ("image", "volume", "video")
VISUAL_OPTIONS = (
    "prune_rule",
    "prune_threshold",
    "peak_threshold",
    "keep_ratio",
    "max_visual_tokens",
    "max_frames",
    "fps",
)
MEDIA_OPTIONS = ("modality", "spacing", "plane", "windows", "series", "volume_index", "max_frames", "fps")
"""What a content part may have beside its medium: the arguments of `load_clip` that say how that one is read."""
MEDIUM_KEYS = ("path", "url", "base64")
"""Names of transformers for the medium, beside the name of its type."""
MAX_LABELS = 16
"""A clip with more kept frames has its position labels thinned to this many, because labels cost tokens too."""
PER_FRAME = ("frames", "positions")
"""Fields of a `Clip` that pieces of a film have of their own."""
LABEL_POSITION = "{position}"
"""What stands for the millimetres or seconds in the wording of a position label."""


@dataclass(frozen=True)
class ProcessedClip:
    """One clip as the model gets it, with what the pruner decided.

    Attributes:
        clip: the frames as read.
        tokens: float32 (T, N, merge², 3, patch, patch), all tokens in [-1, 1], pruned ones included; float16 of a film.
        grid: rows and columns of merged tokens in a frame; N = rows × columns.
        pruned: masks, stand-ins, errors and scores, each (T, N).
        labels: text before the tokens of each frame ("12.5 mm", "3.0 s"), "" where there is none.
        label_tokens: how many text tokens the labels take.
        patch_spacing: millimetres per patch, 0 if unknown.
        notes: what reading and sizing chose, one sentence each.
    """

    clip: Clip
    tokens: torch.Tensor
    grid: tuple[int, int]
    pruned: PrunedTokens
    labels: tuple[str, ...]
    label_tokens: int
    patch_spacing: float
    notes: tuple[str, ...]

    @property
    def merge_size(self) -> int:
        """Side of a merged token in patches."""
        return math.isqrt(self.tokens.shape[2])

    @property
    def tokens_before(self) -> int:
        """Visual tokens of the clip without pruning, labels not counted."""
        return self.pruned.keep_mask.numel()

    @property
    def tokens_after(self) -> int:
        """Tokens the clip takes in the prompt: kept visual tokens and the text tokens of their labels."""
        return int(self.pruned.keep_mask.sum()) + self.label_tokens

    @property
    def reduction(self) -> float:
        """Share of tokens saved, labels charged to it; negative where labels cost more than pruning saves."""
        return 1 - self.tokens_after / self.tokens_before

    def shown_frames(self) -> np.ndarray:
        """The frames at the encoder's resolution, uint8 (T, H, W, 3)."""
        return to_uint8(unpatchify(self.tokens, *self.grid))

    def reconstructed_frames(self) -> np.ndarray:
        """What the language model receives, each removed token shown as its stand-in, uint8 (T, H, W, 3)."""
        return to_uint8(unpatchify(reconstruct(self.tokens, self.pruned), *self.grid))


class _Layout(NamedTuple):
    """How a clip becomes tokens: fields as in `ProcessedClip`, and its budget in tokens, None where none is set."""

    grid: tuple[int, int]
    merge_size: int
    budget: int | None
    patch_spacing: float
    notes: tuple[str, ...]


class _FilmTokens:
    """The tokens of a film, filled in piece by piece.

    Attributes:
        count: frames of the film, which the reader tells with the first one.
        tokens: float16 (T, N, merge², 3, patch, patch), all of them once the first piece is there.
    """

    def __init__(self) -> None:
        self.count = self._filled = 0
        self.tokens: torch.Tensor
        self._exact: dict[int, torch.Tensor] = {}  # the frames that tell the noise

    def note(self, progress: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
        """What the reader calls after every frame: `progress`, where there is one, once the count is noted."""

        def noted(done: int, count: int) -> None:
            self.count = count
            if progress is not None:
                progress(done, count)

        return noted

    def add(self, piece: torch.Tensor) -> None:
        """Takes the next frames, float32 (n, N, merge², 3, patch, patch)."""
        start, end = self._filled, self._filled + len(piece)
        if start == 0:
            self.tokens = torch.empty(self.count, *piece.shape[1:], dtype=torch.float16)
        self.tokens[start:end] = piece
        for frame in {before + step for before in noise_frames(self.count) for step in (-1, 0)}:
            if start <= frame < end:
                self._exact[frame] = piece[frame - start].clone()
        self._filled = end

    def noise(self) -> float:
        """The film's noise, of all of its frames."""
        return noise_of_pairs((self._exact[frame], self._exact[frame - 1]) for frame in noise_frames(self.count))


class OmniVMedProcessor(ProcessorMixin):
    """Turns conversations with `image`, `volume` and `video` parts into model inputs.

    Args:
        tokenizer: the language model's tokenizer, with the media token added.
        patch_size, merge_size: side of a patch in pixels and of a merged token in patches, as the encoder has them.
        min_frame_tokens, max_frame_tokens: merged tokens of one frame; frames are resized into these bounds.
        clip_frame_tokens: merged tokens of each frame of a volume or a video, which has many; None: as of an image.
        clip_merge_size: side of a merged token in patches in volumes and videos; None: as in an image.
        max_clip_tokens: merged tokens of all frames of a volume or a video, before pruning: with more frames each
            becomes smaller; None sets no limit.
        resample: "bilinear" or "bicubic", with antialiasing.
        volume_label, video_label: what stands before the tokens of a frame, with "{position}" for its millimetres or
            seconds; "" labels no frames.
        frame_separator: what stands between the frames that keep tokens.
        max_labels: labelled frames of one clip at most, as far apart as that needs; None labels all.
        max_frames: frames (slices) taken from one clip, evenly spaced.
        fps: frames per second taken from a video.
        prune_rule, prune_threshold, peak_threshold: see `prune_tokens`; `prune_threshold` alone governs how much is
            pruned, unless `peak_threshold` is given too.
        keep_ratio: largest share of a clip's visual tokens that is kept; None sets no budget.
        max_visual_tokens: largest number of visual tokens of one clip; None sets no budget.
        local_urls: whether a content part's "url" may be a path. Servers such as `transformers serve` put there what a
            stranger asks for, so by default it holds `data:` URIs only; paths stand under "path" or the kind's name.

    The seven before `local_urls` can be overridden per call in `processor_kwargs`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        patch_size: int = 14,
        merge_size: int = 2,
        min_frame_tokens: int = 16,
        max_frame_tokens: int = 1024,
        clip_frame_tokens: int | None = None,
        clip_merge_size: int | None = None,
        max_clip_tokens: int | None = None,
        resample: Resample = "bilinear",
        volume_label: str = "{position} mm",
        video_label: str = "{position} s",
        frame_separator: str = "",
        max_labels: int | None = MAX_LABELS,
        max_frames: int = 128,
        fps: float = 1.0,
        prune_rule: PruneRule = "anchor",
        prune_threshold: float = 0.1,
        peak_threshold: float | None = None,
        keep_ratio: float | None = None,
        max_visual_tokens: int | None = None,
        local_urls: bool = False,
    ):
        if resample not in RESAMPLES:
            raise ValueError(f"resample must be one of {RESAMPLES}, not {resample!r}.")
        self.patch_size = patch_size
        self.merge_size = merge_size
        self.min_frame_tokens = min_frame_tokens
        self.max_frame_tokens = max_frame_tokens
        self.clip_frame_tokens = clip_frame_tokens
        self.clip_merge_size = clip_merge_size
        self.max_clip_tokens = max_clip_tokens
        self.resample = resample
        self.volume_label = volume_label
        self.video_label = video_label
        self.frame_separator = frame_separator
        self.max_labels = max_labels
        self.max_frames = max_frames
        self.fps = fps
        self.prune_rule = prune_rule
        self.prune_threshold = prune_threshold
        self.peak_threshold = peak_threshold
        self.keep_ratio = keep_ratio
        self.max_visual_tokens = max_visual_tokens
        self.local_urls = local_urls
        self.image_token = MEDIA_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(MEDIA_TOKEN) if tokenizer is not None else None
        super().__init__(tokenizer, chat_template=chat_template)

    @property
    def model_input_names(self) -> list[str]:
        visual = ["pixel_values", "grid_thw", "merge_sizes", "keep_mask", "frame_positions", "patch_spacing"]
        return [*self.tokenizer.model_input_names, *visual]

    def _options(self, overrides: dict[str, Any]) -> dict[str, Any]:
        unknown = set(overrides) - set(VISUAL_OPTIONS)
        if unknown:
            raise ValueError(f"Unknown option {sorted(unknown)}; the visual options are {', '.join(VISUAL_OPTIONS)}.")
        options = {name: getattr(self, name) for name in VISUAL_OPTIONS} | overrides
        for name in ("max_frames", "fps", "prune_threshold"):
            if not isinstance(options[name], (int, float)):
                raise ValueError(f"{name} must be a number, not {options[name]!r}; leave it out for the default.")
        ratio, budget = options["keep_ratio"], options["max_visual_tokens"]
        if ratio is not None and not 0 < ratio <= 1:
            raise ValueError(f"keep_ratio must lie in (0, 1], not {ratio}.")
        if budget is not None and budget < 1:
            raise ValueError(f"max_visual_tokens must be at least 1, not {budget}.")
        if options["max_frames"] < 1 or options["fps"] <= 0:
            raise ValueError("max_frames must be at least 1 and fps above 0.")
        return options

    def load(self, source: Any, *, max_frames: int | None = None, fps: float | None = None, **description: Any) -> Clip:
        """Reads one file, folder, zip or array with this processor's sampling.

        Args:
            source: whatever `load_clip` takes.
            max_frames, fps: in the place of the processor's own.
            description: other arguments of `load_clip`: `kind`, `modality`, `spacing`, `plane`, `windows`, `series`,
                `volume_index`, `limits`, `progress`.

        Raises:
            MediaError: for anything that cannot be read safely.
        """
        from .media_omniv_med import load_clip  # with all decoders: not for those who have the file read elsewhere

        max_frames, fps = self.max_frames if max_frames is None else max_frames, self.fps if fps is None else fps
        return load_clip(source, max_frames=max_frames, fps=fps, **description)

    def process_clip(self, clip: Clip, before: ProcessedClip | None = None, **overrides: Any) -> ProcessedClip:
        """Sizes, cuts and prunes one clip.

        Args:
            clip: as `load_clip` gives it.
            before: what came of the same clip under other options, whose tokens are taken where the size is the same.
            overrides: any of the options that can be given per call.

        Returns:
            `ProcessedClip`.

        Raises:
            ValueError: for an unknown or impossible option.
        """
        options = self._options(overrides)
        layout = self._layout(clip, len(clip.frames), options)
        if before is not None and before.clip is clip and before.grid == layout.grid:
            tokens = before.tokens
        else:
            tokens = self._cut(clip, layout)
        return self._pruned(clip, tokens, estimate_noise(tokens), layout, options)

    def process_film(
        self, source: Any, progress: Callable[[int, int], None] | None = None, **overrides: Any
    ) -> ProcessedClip:
        """`load` and `process_clip` for a video file so long that its frames should not be in memory together.

        The frames are read a few at a time and cut at once; only their tokens stay, as float16, which rounds by less
        than a thirtieth of a grey level. Pruning sees them all, as elsewhere. An hour at one frame a second and 16
        tokens a frame takes 0.27 GB so, where its frames and tokens would take 1.4 GB.

        Args:
            source: a path to a video file; anything else that `load_clip` takes is processed as `process_clip` does.
            progress: as in `load_clip`.
            overrides: any of the options that can be given per call; `max_frames` and `fps` say what is read.

        Returns:
            `ProcessedClip` with float16 tokens, whose `clip` holds one pixel of each frame.

        Raises:
            MediaError: for anything that cannot be read safely.
            ValueError: for an unknown or impossible option.
        """
        from .media_omniv_med import is_video_file, iterate_clips  # as in `load`

        options = self._options(overrides)
        sampling = {"max_frames": options["max_frames"], "fps": options["fps"], "progress": progress}
        if not is_video_file(source):
            return self.process_clip(self.load(source, **sampling), **overrides)
        film = _FilmTokens()
        pieces: list[Clip] = []
        layout = None
        for piece in iterate_clips(source, **(sampling | {"progress": film.note(progress)})):
            if layout is None:
                layout = self._layout(piece, film.count, options)
            film.add(self._cut(piece, layout))
            pieces.append(replace(piece, frames=piece.frames[:, :1, :1].copy()))
        if layout is None:
            raise RuntimeError("A video without frames was read.")  # the reader refuses it before
        frames, positions = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in PER_FRAME)
        clip = replace(pieces[0], frames=frames, positions=positions)
        return self._pruned(clip, film.tokens, film.noise(), layout, options)

    def _layout(self, clip: Clip, frames: int, options: dict[str, Any]) -> _Layout:
        """How the frames of a clip, of which so many are read in all, become tokens."""
        height, width = clip.frames.shape[1:3]
        row_spacing, column_spacing = clip.pixel_spacing
        has_spacing = row_spacing > 0 and column_spacing > 0
        stretch = math.sqrt(row_spacing / column_spacing) if has_spacing else 1.0
        shape = (height * stretch, width / stretch)  # the true aspect of the body, with as many pixels
        merge_size = self.merge_size
        if clip.kind != "image" and self.clip_merge_size is not None:
            merge_size = self.clip_merge_size
        token_size = self.patch_size * merge_size
        rows, columns = token_grid(*shape, token_size, *self._frame_bounds(clip.kind, frames))

        notes = clip.notes
        budget = self._budget(frames * rows * columns, options)
        if budget is not None and budget < rows * columns:
            rows, columns = token_grid(*shape, token_size, 1, budget)
            notes += (f"Frames were reduced to {rows}x{columns} tokens to fit the first one into {budget}.",)
        spacing = 0.0
        if clip.kind != "video" and has_spacing:
            spacing = math.sqrt(height * row_spacing * width * column_spacing / (rows * columns)) / merge_size
        return _Layout((rows, columns), merge_size, budget, spacing, notes)

    def _cut(self, clip: Clip, layout: _Layout) -> torch.Tensor:
        """The tokens of a clip's frames, float32 (T, N, merge², 3, patch, patch)."""
        return frames_to_tokens(clip.frames, *layout.grid, self.patch_size, layout.merge_size, self.resample)

    def _pruned(
        self, clip: Clip, tokens: torch.Tensor, noise: float, layout: _Layout, options: dict[str, Any]
    ) -> ProcessedClip:
        """Prunes the tokens of a clip with so much noise, and labels its frames."""
        pruned = prune_tokens(
            tokens,
            options["prune_rule"],
            options["prune_threshold"],
            options["peak_threshold"],
            max_tokens=layout.budget,
            noise=noise,
            columns=layout.grid[1],
        )
        notes = layout.notes
        if pruned.threshold > options["prune_threshold"] and layout.budget is None:
            notes += (f"The pruning threshold was raised to {pruned.threshold:.3g}, the noise of the frames.",)
        labels = self._labels(clip, pruned.keep_mask)
        label_tokens = sum(len(self.tokenizer(label, add_special_tokens=False).input_ids) for label in labels if label)
        return ProcessedClip(clip, tokens, layout.grid, pruned, labels, label_tokens, layout.patch_spacing, notes)

    @staticmethod
    def _budget(tokens: int, options: dict[str, Any]) -> int | None:
        """The tighter of the two budgets in tokens, at least one token; None where none is set."""
        budgets = [options["max_visual_tokens"]] if options["max_visual_tokens"] is not None else []
        if options["keep_ratio"] is not None:
            budgets.append(max(int(tokens * options["keep_ratio"]), 1))
        return min(budgets, default=None)

    def _frame_bounds(self, kind: str, frames: int) -> tuple[int, int]:
        """Fewest and most merged tokens of one frame of a clip with so many."""
        if kind == "image":
            return self.min_frame_tokens, self.max_frame_tokens
        if self.clip_frame_tokens is not None:
            return self.clip_frame_tokens, self.clip_frame_tokens
        most = self.max_frame_tokens
        if self.max_clip_tokens is not None:
            most = max(min(most, self.max_clip_tokens // frames), 1)
        return min(self.min_frame_tokens, most), most

    def _labels(self, clip: Clip, keep_mask: torch.Tensor) -> tuple[str, ...]:
        """What stands before each frame that keeps tokens: separator and label.

        Labels are thinned over time or millimetres, not over kept frames: what is kept after a still stretch is the
        moment at which something changes, and it has its label. Without millimetres or seconds no frame has one.
        """
        labels = [""] * len(keep_mask)
        if clip.kind == "image":
            return tuple(labels)
        known = clip.kind == "video" or all(clip.pixel_spacing)
        wording = (self.video_label if clip.kind == "video" else self.volume_label) if known else ""
        least = self._least_label_distance(clip.positions)
        last = -math.inf
        for place, frame in enumerate(keep_mask.any(dim=1).nonzero().squeeze(1).tolist()):
            if place:
                labels[frame] = self.frame_separator
            if abs(clip.positions[frame] - last) >= least:
                labels[frame] += wording.replace(LABEL_POSITION, f"{clip.positions[frame]:.1f}")
                last = clip.positions[frame]
        return tuple(labels)

    def _least_label_distance(self, positions: np.ndarray) -> float:
        """How far apart two labels of a clip are at least, so that `max_labels` are enough."""
        if self.max_labels is None or len(positions) < 2:
            return 0.0
        length = float(np.ptp(positions)) * len(positions) / (len(positions) - 1)
        return length / self.max_labels * (1 - 1e-6) if length > 0 else math.inf

    @staticmethod
    def placeholder_text(processed: ProcessedClip) -> str:
        """The prompt text of one clip, see `media_text`."""
        return media_text(processed.labels, processed.pruned.keep_mask)

    def _multimodal_inputs_from_conversations(
        self, conversations: Sequence[Sequence[dict[str, Any]]], *args: Any, **kwargs: Any
    ) -> tuple[list[Any], list[Any], list[Any], dict[str, Any]]:
        """Collects the media of all conversations in reading order, whatever their kind."""
        clips = []
        for conversation in conversations:
            for message in conversation:
                if not isinstance(message.get("content"), str):
                    parts = message.get("content") or []
                    if not all(isinstance(part, dict) and "type" in part for part in parts):
                        raise ValueError("Content is a string, or a list of dicts that each have a 'type'.")
                    clips += [self._media_of(part) for part in parts if part["type"] != "text"]
        return [], [], [], {"clips": clips} if clips else {}

    def _media_of(self, part: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `load_clip` in one content part.

        Keys whose value is None count as absent: data sets that are stored in columns give every part all keys.

        Raises:
            ValueError: for an unknown content type or key, a part without its medium, or a path as its "url" where
                `local_urls` does not allow it.
        """
        kind = part["type"]
        if kind not in MEDIA_TYPES:
            raise ValueError(f"Content type {kind!r} is not known; use 'text' or one of {', '.join(MEDIA_TYPES)}.")
        given = {key: value for key, value in part.items() if value is not None and key != "type"}
        unknown = sorted(map(str, set(given) - {kind, *MEDIUM_KEYS, *MEDIA_OPTIONS}))
        if unknown:
            raise ValueError(
                f"A content part of type {kind!r} has unknown keys {unknown}; beside its file or array under the key "
                f"{kind!r} it may have {', '.join(MEDIA_OPTIONS)}."
            )
        for key in (kind, *MEDIUM_KEYS):
            if key in given:
                if key == "url" and not self.local_urls and not str(given[key]).startswith("data:"):
                    raise ValueError(
                        "A content part's 'url' must be a data: URI. Give a file of your own under the key 'path', or "
                        "let requests name files of this machine with processor.local_urls = True."
                    )
                options = {name: given[name] for name in MEDIA_OPTIONS if name in given}
                return {"source": given[key], "kind": kind, **options}
        raise ValueError(f"A content part of type {kind!r} needs its file or array under the key {kind!r}.")

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        clips: Sequence[Any] | None = None,
        images: Any = None,
        videos: Any = None,
        audio: None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tokenizes prompts and processes their media.

        Args:
            text: one prompt or several, with one `<|media_pad|>` for each medium (the chat template writes them).
            clips: the media of all prompts in reading order: `ProcessedClip`s, `Clip`s, anything `load_clip` takes,
                or dicts of its arguments.
            images, videos: media in the place of clips, as transformers' pipelines pass them (nested lists are
                flattened; images come before videos, so a prompt that mixes them gives `clips`).
            audio: not supported; must be None.
            kwargs: visual options (`prune_threshold`, …), and options of the tokenizer (`padding`, …).

        Returns:
            `BatchFeature` with `input_ids`, `attention_mask` and, where there is media, `pixel_values`, `grid_thw`,
            `merge_sizes`, `keep_mask`, `frame_positions`, `patch_spacing`.

        Raises:
            MediaError: for a medium that cannot be read.
            ValueError: when prompts and media do not match, or for an impossible option.
        """
        visual_options = {name: kwargs.pop(name) for name in VISUAL_OPTIONS if name in kwargs}
        kwargs.pop("do_sample_frames", None)  # transformers adds it beside `fps`; here sampling is always by `fps`
        if "num_frames" in kwargs:  # transformers' name, which its server sends with every video
            visual_options.setdefault("max_frames", kwargs.pop("num_frames"))
        # The tokenizer would swallow a misspelled option in silence.
        self._options(visual_options | {name: kwargs[name] for name in set(kwargs) - set(TextKwargs.__annotations__)})
        prompts = [text] if isinstance(text, str) else list(text or [])
        if not prompts:
            raise ValueError("There is no text; give one prompt or more.")
        if audio is not None:
            raise ValueError("OmniV-Med has no audio input; leave audio out.")
        media = list(clips) if clips is not None else [*_flatten(images, "image"), *_flatten(videos, "video")]
        processed = [self._process(medium, visual_options) for medium in media]
        texts = fill_placeholders(prompts, [self.placeholder_text(clip) for clip in processed])

        tensor_type = kwargs.pop("return_tensors", "pt") or "pt"
        encoded = self.tokenizer(texts, **{"padding": True, "padding_side": "left", **kwargs})
        placed = sum(ids.count(self.image_token_id) for ids in encoded["input_ids"])
        kept = sum(int(clip.pruned.keep_mask.sum()) for clip in processed)
        if placed != kept:
            raise ValueError(
                f"Truncation left {placed} of {kept} visual tokens; raise max_length or set max_visual_tokens."
            )
        visual = self.visual_inputs(processed) if processed else {}
        return BatchFeature({**encoded, **visual}, tensor_type=tensor_type)

    def _process(self, medium: Any, visual_options: dict[str, Any]) -> ProcessedClip:
        if hasattr(medium, "pruned"):
            return medium
        sampling = {name: visual_options[name] for name in ("max_frames", "fps") if name in visual_options}
        description = medium if isinstance(medium, dict) else {"source": medium}
        return self.process_clip(self.load(**{**sampling, **description}), **visual_options)

    def visual_inputs(self, processed: Sequence[ProcessedClip]) -> dict[str, torch.Tensor]:
        """The visual tensors of a batch of clips in reading order, as the model takes them."""
        grids = [(len(item.tokens), *(side * item.merge_size for side in item.grid)) for item in processed]
        patches = [item.tokens.flatten(0, 2).flatten(1) for item in processed]
        return {
            "pixel_values": torch.cat(patches)
            if len(patches) > 1
            else patches[0],  # a copy would take as long as reading
            "grid_thw": torch.tensor(grids),
            "merge_sizes": torch.tensor([item.merge_size for item in processed]),
            "keep_mask": torch.cat([item.pruned.keep_mask.flatten() for item in processed]),
            "frame_positions": torch.cat([torch.as_tensor(item.clip.positions).float() for item in processed]),
            "patch_spacing": torch.tensor([item.patch_spacing for item in processed]),
        }

    def post_process_image_text_to_text(
        self, generated_outputs: torch.Tensor, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """Decodes generated ids, as transformers' pipelines ask."""
        return self.tokenizer.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)


def _flatten(media: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Yields the leaves of nested lists of media as arguments of `load_clip`; None has none."""
    if isinstance(media, (list, tuple)):
        for medium in media:
            yield from _flatten(medium, kind)
    elif media is not None:
        yield {"source": media, "kind": kind}


__all__ = ["OmniVMedProcessor"]
