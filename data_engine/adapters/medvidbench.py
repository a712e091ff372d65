# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""MedVidBench: surgical and nursing videos, given as lists of frames; the answers of its test are withheld.

    cleaned_test_data_11_04.json     a list of entries
    …                                the unpacked frames of testdata.zip, here or in a folder testdata/

An entry: {"conversations": [{"from": "human", "value": "<video>\\nWhen is cutting?"}], "video": ["f1.jpg", …],
"metadata": {"fps": "1.0", "video_id": "v1", "input_video_start_frame": "0", "input_video_end_frame": "60"}, "qa_type":
"tal", "data_source": "AVOS", "is_RC": false, "RC_info": {}}. Paths of frames may begin with /root/data/, as on its
authors' machine.

The frames of a question become one MP4 file at their rate, which every model can read; its pixels are those of the
frames but for what H.264 loses at a high quality. The box that a question about a region names is drawn on its frame.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw

from data_engine.adapters.base import (
    WITHHELD,
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    entry_of,
    inside,
    json_rows,
    missing_files,
    text,
)
from data_engine.records import Medium, Record, Task

MEDVIDBENCH = Origin("medvidbench", "CC-BY-NC-SA-4.0")
FILES = "cleaned_test_data_*.json"
AUTHORS_FOLDER = "/root/data/"
FRAME_FOLDERS = ("", "testdata")
BOX_COLOUR, BOX_WIDTH = (0, 255, 0), 8
QUALITY = "12"
"""x264's constant rate factor: losses that nobody sees."""
TASK_OF: dict[str, Task] = {
    "tal": "temporal and procedure understanding",
    "stg": "localization",
    "dense_captioning": "report generation and captioning",
    "next_action": "temporal and procedure understanding",
    "cvs_assessment": "severity grading",
    "video_summary": "report generation and captioning",
    "region_caption": "report generation and captioning",
    "skill_assessment": "severity grading",
}
"""Beginning of `qa_type` -> task; captions also say which model wrote them ("video_summary_gpt")."""


def rows(folder: Path) -> Iterator[Row]:
    """The entries of the newest file."""
    files = sorted(folder.glob(FILES))
    if not files:
        raise missing_files(folder, f"{FILES} of MedVidBench")
    yield from json_rows(files[-1], "test")


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record an entry, with the answer of `WITHHELD` where there is none."""
    entry = entry_of(row)
    turns = entry.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise BrokenRow("'conversations' is not a list of turns.")
    said = {turn.get("from"): turn for turn in turns}
    if "human" not in said:
        raise BrokenRow("nobody asks anything.")
    question = text(said["human"], "value").replace("<video>", "").strip()
    answer = text(said["gpt"], "value") if "gpt" in said else WITHHELD
    kind = text(entry, "qa_type")
    task = next((task for name, task in TASK_OF.items() if kind.startswith(name)), None)
    if task is None:
        raise BrokenRow(f"'qa_type' is {kind!r}, which MedVidBench does not have.")
    modality = "endoscopy" if str(entry.get("data_source", "")).startswith("Cholec") else "unknown"
    return [MEDVIDBENCH.record(row, [_film(entry, folder, store)], [(question, answer)], modality=modality, task=task)]


def _film(entry: dict[str, Any], folder: Path, store: MediaStore) -> Medium:
    """The entry's frames as one video, made once."""
    named = entry.get("video")
    if not isinstance(named, list) or not named or not all(isinstance(one, str) for one in named):
        raise BrokenRow("'video' is not a list of frames.")
    metadata = entry.get("metadata")
    rate = _rate(metadata if isinstance(metadata, dict) else {})
    region = _region(entry, named)
    key = json.dumps([named, str(rate), region])
    relative = f"{MEDVIDBENCH.source}/{hashlib.sha256(key.encode()).hexdigest()[:24]}.mp4"
    if (store.folder / "media" / relative).is_file():
        return Medium(type="video", path=f"media/{relative}")
    frames = [_frame(one, folder) for one in named]
    return Medium(type="video", path=store.write(_encoded(frames, rate, region), relative))


def _rate(metadata: dict[str, Any]) -> Fraction:
    try:
        rate = Fraction(text(metadata, "fps")).limit_denominator(1000)
    except (ValueError, ZeroDivisionError):
        raise BrokenRow(f"'fps' is {metadata.get('fps')!r}, not a number of frames a second.") from None
    if rate <= 0:
        raise BrokenRow("'fps' is not above 0.")
    return rate


def _region(entry: dict[str, Any], named: Sequence[str]) -> tuple[int, list[float]] | None:
    """The place of the frame that a region is drawn on, and the region's box in its pixels, [x1, y1, x2, y2]."""
    about = entry.get("RC_info")
    if not entry.get("is_RC") or not isinstance(about, dict):
        return None
    frame, box = about.get("start_frame"), about.get("start_frame_bbox")
    if frame not in named:
        raise BrokenRow("the region's frame is none of the video's.")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(one, (int, float)) for one in box):
        raise BrokenRow("the region's box is not four numbers.")
    left, top, right, bottom = box
    if left > right or top > bottom:
        raise BrokenRow("the region's box has no inside.")
    return named.index(frame), [left, top, right, bottom]


def _frame(named: str, folder: Path) -> Path:
    relative = named.removeprefix(AUTHORS_FOLDER)
    candidates = [inside(folder / place, relative) for place in FRAME_FOLDERS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise BrokenRow(f"{candidates[0].name} is missing.")
    return found


def _encoded(frames: Sequence[Path], rate: Fraction, region: tuple[int, list[float]] | None) -> bytes:
    """H.264 in MP4; the sides lose a row or column where they are odd, which 4:2:0 cannot hold."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        for place, file in enumerate(frames):
            try:
                with Image.open(file) as opened:
                    picture = opened.convert("RGB")
            except (OSError, SyntaxError, Image.DecompressionBombError):
                raise BrokenRow(f"{file.name} is damaged or of an unknown format.") from None
            if region is not None and place == region[0]:
                ImageDraw.Draw(picture).rectangle(region[1], outline=BOX_COLOUR, width=BOX_WIDTH)
            if place == 0:
                stream.width, stream.height = (max(side // 2 * 2, 2) for side in picture.size)
                stream.pix_fmt = "yuv420p"
            if picture.size != (stream.width, stream.height):
                picture = picture.crop((0, 0, stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))  # type: ignore[no-untyped-call]
        container.mux(stream.encode())
    return buffer.getvalue()


ADAPTERS = (
    Adapter(
        MEDVIDBENCH.source,
        "MedVidBench",
        MEDVIDBENCH.license,
        "https://huggingface.co/datasets/UII-AI/MedVidBench",
        rows,
        records,
    ),
)
