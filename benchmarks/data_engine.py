# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the full set of 252,000 records would take to build: hours, disk and download, from measured throughput.

    python -m benchmarks.data_engine --json benchmarks/results/data_engine.json

It also says how fast each kind of phantom is made.

For each source, files of the kind and size that it has are made from phantoms and taken through the build's own step
(store, read, fingerprint) in one process; a row's words cost microseconds and are left out. The counts are those of
data_engine/configs/instruct.yaml. What it does not show: rows that are converted and then left out (about 15 % of the
large sources), validation and benchmarks, the speed of a network, and that of a disk slower than this one.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report import write_json
from data_engine.adapters.base import MediaStore
from data_engine.files import read_yaml
from data_engine.fingerprints import fingerprint
from data_engine.generated import NAME, RECORDS_PER_SAMPLE, SamplePlan, encode, records_of
from data_engine.phantoms import MODALITIES, generate
from data_engine.tables import markdown_table

INSTRUCT = Path(__file__).resolve().parents[1] / "data_engine/configs/instruct.yaml"
REPEATS = 24


@dataclass(frozen=True)
class Files:
    """What a source's media are like.

    Attributes:
        what: for the table.
        kind: "image", "volume" or "video".
        records_per_medium: how many records share a medium; the sets' own averages.
        make: bytes of file number i.
    """

    what: str
    kind: str
    records_per_medium: float
    make: Callable[[int], bytes]


def picture(modality: str, size: tuple[int, int], form: str) -> Callable[[int], bytes]:
    """Phantoms enlarged to (width, height) and saved as JPEG or PNG."""

    def make(number: int) -> bytes:
        frame = generate(modality, "image", np.random.default_rng(number)).frames[0]
        buffer = io.BytesIO()
        Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC).save(buffer, form)
        return buffer.getvalue()

    return make


def m3d_volume(number: int) -> bytes:
    """A volume as M3D has it: float32 (1, 32, 256, 256) in [0, 1]."""
    frames = generate("CT", "volume", np.random.default_rng(number)).frames[..., 0]
    shown = [Image.fromarray(frame).resize((256, 256)) for frame in frames]
    slices = np.stack([np.asarray(shown[i * len(shown) // 32], np.float32) / 255 for i in range(32)])
    buffer = io.BytesIO()
    np.save(buffer, slices[None])
    return buffer.getvalue()


def film(number: int) -> bytes:
    """A generated film; those of a user are longer, but a fingerprint reads four frames of any."""
    return encode(generate("endoscopy", "video", np.random.default_rng(number)))


FILES_OF = {
    "m3d-cap": Files("npy, 32×256×256 float32", "volume", 1, m3d_volume),
    "image-text-matching": Files("the same files as m3d-cap", "volume", 1, m3d_volume),
    "m3d-vqa-closed": Files("the same files as m3d-cap", "volume", 5, m3d_volume),
    "m3d-vqa-open": Files("the same files as m3d-cap", "volume", 5, m3d_volume),
    "m3d-positioning": Files("npy, 32×256×256 float32", "volume", 10, m3d_volume),
    "vqa-rad": Files("JPEG, 1024×1024", "image", 6, picture("X-ray", (1024, 1024), "JPEG")),
    "slake": Files("JPEG, 1024×1024", "image", 20, picture("X-ray", (1024, 1024), "JPEG")),
    "path-vqa": Files("JPEG, 720×512", "image", 6.5, picture("histopathology", (720, 512), "JPEG")),
    "pmc-vqa": Files("JPEG, 640×480", "image", 1.5, picture("CT", (640, 480), "JPEG")),
    "mimic-cxr": Files("JPEG, 2544×3056", "image", 0.6, picture("X-ray", (2544, 3056), "JPEG")),
    "video-folder": Files("MP4, short", "video", 2, film),
}
SHARED = {"image-text-matching", "m3d-vqa-closed", "m3d-vqa-open"}
"""Sources whose files are M3D-Cap's: linked once and not downloaded again."""


def measure(files: Files) -> tuple[float, float]:
    """Seconds per medium in one process, and bytes per medium."""
    with tempfile.TemporaryDirectory() as folder:
        source, store = Path(folder) / "source", MediaStore(Path(folder) / "set")
        source.mkdir()
        paths = [source / f"{number}" for number in range(REPEATS)]
        for number, path in enumerate(paths):
            path.write_bytes(files.make(number))
        times = []
        for path in paths:
            begun = time.perf_counter()
            fingerprint(store.folder / store.add(path, path.name), files.kind)
            times.append(time.perf_counter() - begun)
        return float(np.median(times)), float(np.mean([path.stat().st_size for path in paths]))


def measure_generated() -> tuple[float, float]:
    """Seconds and bytes per generated sample, files and records included."""
    with tempfile.TemporaryDirectory() as folder:
        store, begun, count = MediaStore(Path(folder)), time.perf_counter(), 20 * REPEATS
        for index in range(count):
            for record in records_of(SamplePlan(0, "train", index), store)[:1]:
                fingerprint(Path(folder) / record.media[0].path, record.media[0].type)
        elapsed = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        return elapsed / count, size / count


def plan() -> list[dict[str, Any]]:
    """One row a source: records, media, hours of one core, gigabytes on disk and to download."""
    config = read_yaml(INSTRUCT)
    rows = []
    for name, share in config["shares"]["source"].items():
        records = round(share * config["records"]["train"])
        if name == NAME:
            seconds, size = measure_generated()
            files, media, downloaded = Files("PNG, NIfTI, MP4, 112×112", "", RECORDS_PER_SAMPLE, film), 0.0, 0.0
            media = records / RECORDS_PER_SAMPLE
        else:
            files = FILES_OF[name]
            seconds, size = measure(files)
            media = records / files.records_per_medium
            downloaded = 0.0 if name in SHARED else media * size
        rows.append(
            {
                "source": name,
                "records": records,
                "media": round(media),
                "file": files.what,
                "media_per_second": 1 / seconds,
                "core_hours": media * seconds / 3600,
                "disk_gb": 0.0 if name in SHARED else media * size / 1e9,
                "download_gb": downloaded / 1e9,
            }
        )
    return rows


def phantom_rates() -> dict[str, float]:
    """Generated images a second of one core, per modality; atlases are loaded before."""
    rates = {}
    for modality in MODALITIES:
        for number in range(REPEATS):  # every atlas and glyph of the family is in memory after these
            generate(modality, "image", np.random.default_rng((1, number)))
        begun = time.process_time()
        for number in range(4 * REPEATS):
            generate(modality, "image", np.random.default_rng((2, number)))
        rates[modality] = 4 * REPEATS / (time.process_time() - begun)
    return rates


def table(rows: list[dict[str, Any]]) -> str:
    """The plan as Markdown, with its sum."""
    header = ["source", "records", "media", "file", "media/s on one core", "core hours", "disk", "download of these"]
    total = {key: sum(row[key] for row in rows) for key in ("records", "media", "core_hours", "disk_gb", "download_gb")}
    body = [
        [
            row["source"],
            f"{row['records']:,}",
            f"{row['media']:,}",
            row.get("file", ""),
            f"{row['media_per_second']:.0f}" if "media_per_second" in row else "",
            f"{row['core_hours']:.2f}",
            f"{row['disk_gb']:.1f} GB",
            f"{row['download_gb']:.1f} GB",
        ]
        for row in [*rows, {"source": "all", **total}]
    ]
    return markdown_table(header, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="file for the figures")
    arguments = parser.parse_args()
    rows, rates = plan(), phantom_rates()
    write_json(
        arguments.json, "data_engine", {"repeats": REPEATS, "results": rows, "phantom_images_per_core_second": rates}
    )
    print(table(rows))
    print("\n" + markdown_table(list(rates), [[f"{rate:.0f}/s" for rate in rates.values()]]))


if __name__ == "__main__":
    main()
