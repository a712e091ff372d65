# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The medium that a visitor sees now, pruned as the controls say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from demo.service.pruning_settings import PruningSettings
from demo.service.reading_choice import AS_FOUND, ReadingChoice

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import OmniVMedProcessor, ProcessedClip


@dataclass(frozen=True)
class Shown:
    """One medium as a visitor sees it now.

    Attributes:
        paths: the copies of the files that it was read from.
        processed: the pruned clip.
        settings: how it was pruned; `settings.stage` is the stage of requests about it.
        choice: how the files were read.
    """

    paths: tuple[Path, ...]
    processed: ProcessedClip
    settings: PruningSettings
    choice: ReadingChoice = AS_FOUND

    def pruned_as(self, settings: PruningSettings, processor: OmniVMedProcessor) -> Shown:
        """The same clip under other settings, without reading the file again.

        Raises:
            ValueError: for a setting that is impossible for this clip.
        """
        if replace(settings, stage=self.settings.stage) == self.settings:  # the stage decides nothing about tokens
            return replace(self, settings=settings)
        processed = processor.process_clip(self.processed.clip, self.processed, **settings.options())
        return replace(self, processed=processed, settings=settings)
