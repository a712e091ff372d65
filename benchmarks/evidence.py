# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Whether "Where did it look?" can be believed: does the strongest region of an answer lie on the finding?

    python -m benchmarks.evidence --model hub_model --real ../real --out runs/evidence

Asks about generated images and volumes with a lesion, and about the boxed polyps and masses in the test split of a
folder of labelled pictures (docs/real-data.md), as the page does, and covers groups of tokens as the page does
(`demo/service/evidence.py`). Two chances stand beside the share of strongest regions that overlap the finding: any
region of the same picture, all alike; and the place of the strongest region in another picture of its kind, because
findings and regions both lie near the middle. Writes MODEL/evidence.json, by which the page offers the button or hides
it. Answers go into ledgers under `--out`, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.report import machine
from data_engine.adapters.base import entry_of
from data_engine.adapters.class_folders import list_lines
from data_engine.adapters.labelled_pictures import label_of
from data_engine.commands import resumable_command
from data_engine.label_questions import Box
from data_engine.ledger import Ledger
from data_engine.phantoms import KINDS_OF, LESION_GRID, MODALITIES, generate
from data_engine.tables import markdown_table
from demo.service.assistant import Assistant
from demo.service.dialogue import Medium, Turn
from demo.service.measured import EVIDENCE
from evaluation.metrics import bootstrap_interval
from hub_model.media_omniv_med import Clip, load_clip
from train.checkpoints.fingerprint import fingerprint

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import ProcessedClip

QUESTION = "What abnormality is seen?"
PHANTOM_IMAGES, PHANTOM_VOLUMES, REAL = "generated images", "generated volumes", "real polyps and masses"
DECISIVE = (PHANTOM_IMAGES, REAL)
"""The sets that the page's button for pictures hangs on; volumes take far longer, so fewer are asked about."""
FEWEST = 200
"""Clips of the decisive sets together, fewer than which decide nothing."""
SEED = 2026
LARGEST_LESION = 0.3
"""Share of a generated clip, above which a lesion has no place in it."""
FINE = 8
"""Rows and columns of a token at which boxes and lesion maps are read."""


@dataclass(frozen=True)
class Finding:
    """A clip with a finding whose place is known.

    Attributes:
        id: names it in the ledger.
        group: patient or picture; drawn together for intervals.
        kind: pictures that are alike: modality, or source.
        clip: reads or makes the clip.
        place: its shares of finding on a grid of tokens, by rows and columns: float (frames, rows, columns).
    """

    id: str
    group: str
    kind: str
    clip: Callable[[], Clip]
    place: Callable[[tuple[int, int]], npt.NDArray[np.float64]]


def phantoms(kind: str, count: int) -> Iterator[Finding]:
    """Generated clips of all modalities that are made as `kind`, each with a lesion that has a place."""
    modalities = [name for name in MODALITIES if kind in KINDS_OF[name]]
    found = number = 0
    while found < count:
        modality = modalities[number % len(modalities)]
        sample = generate(modality, kind, np.random.default_rng((SEED, len(kind), number)))
        number += 1
        if sample.lesions is None or not 0 < sample.lesions.mean() / 255 <= LARGEST_LESION:
            continue
        found += 1
        clip = Clip(sample.frames, kind, sample.positions, sample.pixel_spacing, len(sample.frames))
        name = f"{kind}/{number:05}"
        yield Finding(name, name, modality, lambda clip=clip: clip, _lesion_place(sample.lesions))


def real_findings(folder: Path, count: int | None) -> Iterator[Finding]:
    """The test pictures of a folder that show a boxed polyp or mass, all or `count` of them, drawn by a seed.

    Raises:
        ValueError: a folder without `images.jsonl`.
    """
    lines = folder / "images.jsonl"
    if not lines.is_file():
        raise ValueError(f"{folder} holds no images.jsonl; --real names a folder of labelled pictures.")
    entries = []
    for row in list_lines(lines):
        entry = {} if "broken" in row.values else entry_of(row)
        if row.values.get("split") != "test" or not entry.get("boxes"):
            continue
        label = label_of(entry, "image")
        if label.boxed in ("polyp", "mass") and label.boxes:
            entries.append((entry, label.boxes))
    order = np.random.default_rng(SEED).permutation(len(entries))
    for entry, boxes in [entries[place] for place in order[:count]]:
        file, source = str(entry["file"]), str(entry.get("source"))
        group = str(entry.get("group") or file)
        yield Finding(file, group, source, lambda file=file: load_clip(folder / file), _box_place(boxes))


def _fine_centres(count: int) -> npt.NDArray[np.float64]:
    return (np.arange(count * FINE) + 0.5) / (count * FINE)


def _by_token(fine: npt.NDArray[Any], grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Means of (frames, rows · FINE, columns · FINE) over tokens."""
    shape = (len(fine), grid[0], FINE, grid[1], FINE)
    return np.asarray(fine.reshape(shape).mean(axis=(2, 4)), dtype=np.float64)


def _lesion_place(lesions: npt.NDArray[np.uint8]) -> Callable[[tuple[int, int]], npt.NDArray[np.float64]]:
    def place(grid: tuple[int, int]) -> npt.NDArray[np.float64]:
        rows, columns = ((_fine_centres(count) * LESION_GRID).astype(int) for count in grid)
        return _by_token(lesions[:, rows][:, :, columns] / 255, grid)

    return place


def _box_place(boxes: Sequence[Box]) -> Callable[[tuple[int, int]], npt.NDArray[np.float64]]:
    def place(grid: tuple[int, int]) -> npt.NDArray[np.float64]:
        y, x = _fine_centres(grid[0])[:, None], _fine_centres(grid[1])[None]
        inside = np.zeros((y.size, x.size), bool)
        for left, top, right, bottom in boxes:
            inside |= (x >= left) & (x < right) & (y >= top) & (y < bottom)
        return _by_token(inside[None], grid)

    return place


def measure(assistant: Assistant, finding: Finding) -> dict[str, Any]:
    """One row of a ledger: the answer; of each region its share of finding and its place, as shares of the clip; the
    strongest region; whether each frame shows some of the finding, and the frame that is jumped to.

    Raises:
        ValueError: a clip that cannot be read or shows nothing.
    """
    turns = [Turn(QUESTION, (Medium("file", finding.clip()),))]
    *_, answer = assistant.answer(turns, assistant.defaults)
    inputs, media = assistant.inputs(turns, assistant.defaults)
    evidence = assistant.find_evidence(inputs, media, answer.token_ids, assistant.defaults)
    shares = finding.place(media[0].grid)
    places = [np.array(group.places) for group in evidence.groups]
    return {
        "id": finding.id,
        "group": finding.group,
        "kind": finding.kind,
        "answer": answer.likeliest or answer.text,
        "shares": [round(float(shares.ravel()[chosen].mean()), 4) for chosen in places],
        "centres": [_centre(chosen, media[0]) for chosen in places],
        "strongest": int(evidence.falls.argmax()),
        "fall": round(float(evidence.falls.max()), 4),
        "frames": (shares.max(axis=(1, 2)) > 0).tolist(),
        "frame": evidence.frame,
    }


def _centre(places: npt.NDArray[np.int64], processed: ProcessedClip) -> list[float]:
    """The middle of tokens as shares of frames, rows and columns."""
    at = np.unravel_index(places, (len(processed.tokens), *processed.grid))
    extents = (len(processed.tokens), *processed.grid)
    return [round(float((axis + 0.5).mean() / extent), 4) for axis, extent in zip(at, extents, strict=True)]


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the strongest region, and the frame that is jumped to, show some of the finding, beside both chances.

    Each figure is `value`, `chance` (any region), `elsewhere` (another picture's place), and the 95 % intervals of what
    it gains over them.
    """
    alike: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[row["kind"]].append(row)
    overlaps, frames = [], []
    for row in rows:
        others = [other for other in alike[row["kind"]] if other["group"] != row["group"]]
        others = others or [other for other in rows if other["group"] != row["group"]] or [row]
        hit, centres = np.array(row["shares"]) > 0, np.array(row["centres"])
        nearest = [
            np.abs(centres - np.array(other["centres"][other["strongest"]])).sum(axis=1).argmin() for other in others
        ]
        overlaps.append((hit[row["strongest"]], hit.mean(), hit[nearest].mean()))
        shows, count = np.array(row["frames"]), len(row["frames"])
        elsewhere = [min(int((other["frame"] + 0.5) / len(other["frames"]) * count), count - 1) for other in others]
        frames.append((shows[row["frame"]], shows.mean(), shows[elsewhere].mean()))
    groups = [row["group"] for row in rows]
    found: dict[str, Any] = {"count": len(rows), "overlap": _gains(np.array(overlaps, float), groups)}
    if any(len(row["frames"]) > 1 for row in rows):
        found["frame"] = _gains(np.array(frames, float), groups)
    return found


def _gains(values: npt.NDArray[np.float64], groups: Sequence[str]) -> dict[str, Any]:
    """The means of (rows, 3), and the intervals of the first column's gains over the two others."""
    value, chance, elsewhere = values.mean(axis=0).tolist()
    gains = [bootstrap_interval((values[:, 0] - values[:, column]).tolist(), groups) for column in (1, 2)]
    return {
        "value": round(value, 4),
        "chance": round(chance, 4),
        "elsewhere": round(elsewhere, 4),
        "gain_over_chance": gains[0] and [round(end, 4) for end in gains[0]],
        "gain_over_elsewhere": gains[1] and [round(end, 4) for end in gains[1]],
    }


def shows_findings(sets: dict[str, Any]) -> list[str]:
    """Kinds of clips on whose findings the strongest region lies more often than both chances have it, by the whole
    interval of each gain: "image" by every decisive set, of which fewer than `FEWEST` clips decide nothing; "volume" by
    region and slice of generated volumes."""
    kinds = []
    enough = sets.keys() >= set(DECISIVE) and sum(sets[name]["count"] for name in DECISIVE) >= FEWEST
    if enough and all(_beats_both_chances(sets[name]["overlap"]) for name in DECISIVE):
        kinds.append("image")
    volumes = sets.get(PHANTOM_VOLUMES, {})
    if "frame" in volumes and all(_beats_both_chances(volumes[what]) for what in ("overlap", "frame")):
        kinds.append("volume")
    return kinds


def _beats_both_chances(found: dict[str, Any]) -> bool:
    gains = [found[f"gain_over_{other}"] for other in ("chance", "elsewhere")]
    return all(gain is not None and gain[0] > 0 for gain in gains)


def markdown(report: dict[str, Any]) -> str:
    """The table of docs/page-and-api.md."""

    def cells(name: str, what: str, found: dict[str, Any], count: int) -> list[str]:
        def gain(key: str) -> str:
            ends = found[f"gain_over_{key}"]
            return f"{found[key]:.1%}" + (f" ({100 * ends[0]:+.0f} to {100 * ends[1]:+.0f} points)" if ends else "")

        return [name, what, str(count), f"{found['value']:.1%}", gain("chance"), gain("elsewhere")]

    rows = []
    for name, found in report["sets"].items():
        rows.append(cells(name, "region", found["overlap"], found["count"]))
        if "frame" in found:
            rows.append(cells(name, "slice", found["frame"], found["count"]))
    header = ["set", "the strongest", "clips", "on the finding", "any region or slice", "the place in another clip"]
    return markdown_table(header, rows)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole command; raises `ValueError` for what a user can mend."""
    folder = Path(arguments.model)
    model = fingerprint(folder)
    sets: dict[str, tuple[int, Callable[[], Iterator[Finding]]]] = {
        PHANTOM_IMAGES: (arguments.images, lambda: phantoms("image", arguments.images)),
        PHANTOM_VOLUMES: (arguments.volumes, lambda: phantoms("volume", arguments.volumes)),
    }
    if arguments.real is not None:
        known = sum(1 for _ in real_findings(arguments.real, arguments.pictures))
        sets = {REAL: (known, lambda: real_findings(arguments.real, arguments.pictures)), **sets}
    assistant = Assistant(arguments.model)
    report: dict[str, Any] = {
        "command": f"python -m benchmarks.evidence --model {arguments.model} --real DIR",
        "weights_and_configuration_sha256": model,
        "machine": machine(),
        "question": QUESTION,
        "sets": {},
    }
    for name, (count, findings) in sets.items():
        if count:
            with Ledger(arguments.out / f"{name.replace(' ', '_')}.jsonl", {"model": model, "set": name}) as ledger:
                asked = []
                for finding in tqdm(findings(), total=count, desc=name):
                    if finding.id not in ledger.rows:
                        ledger.append(measure(assistant, finding))
                    asked.append(ledger.rows[finding.id])
                report["sets"][name] = figures(asked)
    report["shows_findings"] = shows_findings(report["sets"])
    (folder / EVIDENCE).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="the model's folder (default hub_model)")
    parser.add_argument("--real", type=Path, help="folder of labelled pictures with images.jsonl")
    parser.add_argument("--images", type=int, default=FEWEST, help="generated images (default %(default)s)")
    parser.add_argument("--volumes", type=int, default=40, help="generated volumes (default %(default)s)")
    parser.add_argument("--pictures", type=int, help="real pictures at most (default: all of the test split)")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"), help="folder for the ledgers")
    arguments = parser.parse_args()
    with resumable_command():
        report = run(arguments)
    print(markdown(report))
    kinds = report["shows_findings"]
    print(f"The page offers the evidence for: {', '.join(kinds)}." if kinds else "The page hides the evidence.")


if __name__ == "__main__":
    main()
