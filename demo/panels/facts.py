# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The facts about a file that the page lists."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import ProcessedClip


def facts(processed: ProcessedClip) -> str:
    """What the file is, as HTML: kind, size, spacing and what the reader chose; nothing about the patient."""
    clip = processed.clip
    count, height, width = clip.frames.shape[:3]
    has_spacing = all(clip.pixel_spacing)
    frames = {
        "image": "",
        "volume": f"{count} of {clip.source_frames} slices",
        "video": f"{count} of {clip.source_frames} video frames",
    }[clip.kind]
    spacing = f"{clip.pixel_spacing[0]:.3g} × {clip.pixel_spacing[1]:.3g} mm per pixel" if has_spacing else ""
    has_length = count > 1 and clip.unit and (has_spacing or clip.kind != "volume")
    length = f"{clip.positions[-1] - clip.positions[0]:.4g} {clip.unit} long" if has_length else ""
    badges = [clip.kind, clip.modality, frames, f"{width} × {height} pixels", spacing, length]
    badges.append(f"{processed.grid[0]} × {processed.grid[1]} tokens a frame")
    spans = "".join(f"<span>{escape(words)}</span>" for words in badges if words)
    notes = "".join(f"<li>{escape(note)}</li>" for note in processed.notes)
    return f'<div class="badges">{spans}</div><ul>{notes}</ul>'
