# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What is captioned: the media of a file of records, or the videos of a folder, with what is known about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from data_engine.captioning.config import CaptionError, FolderSource, RecordsSource
from data_engine.records import MEDIA_PLACEHOLDER, Medium, Modality, Record, RecordError, Split, read_records

VIDEO_ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm")
MOST_FACTS = 20
"""Questions and answers of an item that become known facts; a prompt should not grow with a source's diligence."""


@dataclass(frozen=True)
class Item:
    """One image, volume or video, or several that belong together, for one caption.

    Attributes:
        id: "source id/caption"; errors name it.
        media: their paths are relative to `folder`.
        facts: what is known without looking, one sentence each.
        modality, source, license, split: as in a record.
    """

    id: str
    folder: Path
    media: tuple[Medium, ...]
    facts: tuple[str, ...]
    modality: Modality
    source: str
    license: str
    split: Split

    @property
    def kind(self) -> str:
        """How the prompts call it: "image", "volume" or "video", the largest one where kinds are mixed."""
        return max((medium.type for medium in self.media), key=("image", "volume", "video").index)

    @property
    def files(self) -> list[Path]:
        """The files of the media."""
        return [self.folder / medium.path for medium in self.media]

    @property
    def stored(self) -> list[str]:
        """Where the media lie in the store of a set, as the adapters put them: "source/path"."""
        return [f"{self.source}/{medium.path.removeprefix('media/')}" for medium in self.media]


def list_items(sources: Iterable[RecordsSource | FolderSource]) -> list[Item]:
    """All items, in the order of the sources.

    Raises:
        CaptionError: a source that is not there, is no file of records, or has something in common with another.
    """
    items: dict[str, Item] = {}
    file_of: dict[str, Path] = {}
    for source in sources:
        for item in _of_records(source) if source.kind == "records" else _of_folder(source):
            if item.id in items:
                raise CaptionError(f"{item.id} is in the sources twice; give each source once, under its own name.")
            items[item.id] = item
            for path, file in zip(item.stored, item.files, strict=True):
                if file_of.setdefault(path, file) != file:
                    raise CaptionError(f"Two sources have a medium {path}; give them different names.")
    return list(items.values())


def _of_records(source: RecordsSource) -> list[Item]:
    by_media: dict[tuple[Medium, ...], list[Record]] = {}
    try:
        for record in read_records(source.path):
            by_media.setdefault(record.media, []).append(record)
    except OSError:
        raise CaptionError(f"The records {source.path} cannot be read; check the path.") from None
    except RecordError as error:
        raise CaptionError(str(error)) from None
    return [_of_same_media(source.path.parent, records) for records in by_media.values()]


def _of_same_media(folder: Path, records: list[Record]) -> Item:
    first = records[0]
    # Matching asks about sentences that may be wrong on purpose: a bad thing to put before a writer.
    turns = [turn for record in records if record.task != "image-text matching" for turn in record.conversations]
    said = [
        f"Asked {_one_line(asked.content)!r}, the source answers {_one_line(answer.content)!r}."
        for asked, answer in zip(turns[::2], turns[1::2], strict=True)
    ]
    return Item(
        id=f"{first.id}/caption",
        folder=folder,
        media=first.media,
        facts=(*_modality_fact(first.modality), *said[:MOST_FACTS]),
        modality=first.modality,
        source=first.source,
        license=first.license,
        split=first.split,
    )


def _one_line(words: str) -> str:
    return " ".join(words.replace(MEDIA_PLACEHOLDER, " ").split())


def _modality_fact(modality: str) -> tuple[str, ...]:
    return () if modality == "unknown" else (f"The modality is {modality}.",)


def _of_folder(source: FolderSource) -> Iterator[Item]:
    files = sorted(path for path in source.path.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS and path.is_file())
    if not files:
        raise CaptionError(f"The folder {source.path} holds no videos ({', '.join(VIDEO_ENDINGS)}).")
    for file in files:
        path = file.relative_to(source.path).as_posix()
        try:
            medium = Medium(type="video", path=path)
        except ValidationError:
            raise CaptionError(f"{path!r}: rename this file without ':' and '\\'.") from None
        yield Item(
            id=f"{source.name}/{path}/caption",
            folder=source.path,
            media=(medium,),
            facts=_modality_fact(source.modality),
            modality=source.modality,
            source=source.name,
            license=source.license,
            split=source.split,
        )
