# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Damages real media files in thousands of seeded ways and reads them as a server does: what becomes of each one?

    python -m benchmarks.fuzz_media --json fuzz_media.json --mutations 5000 --seed 0

Every file must give a sound clip or a sentence. What ends the process that decodes, or outlasts the time limit, is
counted with its number, and `mutant(corpus, seed, number)` makes the file again. The files are those that pydicom and
nibabel ship for their own tests, and small ones made here in every other format.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image
from tqdm import tqdm

from benchmarks.report import write_json
from data_engine.tables import markdown_table
from hub_model.isolated_reading_omniv_med import IsolatedReader
from hub_model.media_omniv_med import KINDS, Clip, MediaError

H264_FILM = Path(__file__).resolve().parents[1] / "examples/media/ultrasound.mp4"
"""Not made here, because x264 does not write the same bytes every time."""
TIME_LIMIT = 20.0
"""Seconds; the slowest whole file takes a tenth of one."""
MAX_FRAMES = 16
LARGEST_FILE = 256 * 1024
"""Bytes of the packages' files: larger ones are images like the others, and slow."""
HEADER_BYTES = 1024
EXTREMES = (0, 1, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
FILE_NAME = "upload"
"""Without a suffix: what a file is, its content says."""
LONGEST_SENTENCE = 300
"""Characters."""
WARM_UP = 200
"""Requests before the memory of the parent is first measured."""
FAILURES = {"timed out": "The file takes longer than", "died": "The file made its decoder fail"}
"""What becomes of a process, and how the sentence about it begins."""


@dataclass(frozen=True)
class Seed:
    """A whole file that mutations start from.

    Attributes:
        name: of the file, for the report.
        data: the bytes that are changed.
        pack: makes the file of the changed bytes: archives and compressed files are also changed inside, because
            their checksums would find almost every change outside.
    """

    name: str
    data: bytes
    pack: Callable[[bytes], bytes] = bytes


def _zip_of(*files: bytes, names: Sequence[str] = ()) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for index, data in enumerate(files):
            entry = zipfile.ZipInfo(names[index] if names else f"series/{index}")  # without the time of day
            out.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def _pair_in_zip(write: Callable[[Path], Any], header: str, voxels: str) -> Seed:
    """A header whose voxels lie beside it, of which the header is changed."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, header))
        names, data = (header, voxels), Path(folder, voxels).read_bytes()
        return Seed(
            f"{header} in a zip",
            Path(folder, header).read_bytes(),
            lambda changed: _zip_of(changed, data, names=names),
        )


def _packaged_files(folder: Path, pattern: str) -> Iterator[Seed]:
    for path in sorted(folder.glob(pattern)):
        if path.stat().st_size <= LARGEST_FILE:
            yield Seed(path.name, path.read_bytes())


def _written(write: Callable[[Path], Any], name: str) -> Seed:
    """The file that a library writes under a name, whose suffix tells it the format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write(path)
        return Seed(name, path.read_bytes())


def _series(count: int = 4) -> list[bytes]:
    """DICOM slices of one volume."""
    dataset = pydicom.dcmread(Path(pydicom.__file__).parent / "data/test_files/CT_small.dcm")
    files = []
    for index in range(count):
        dataset.InstanceNumber, dataset.ImagePositionPatient = index + 1, [0, 0, 5 * index]
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        files.append(buffer.getvalue())
    return files


def _pictures(generator: np.random.Generator) -> dict[str, list[Seed]]:
    """Small pictures in all formats that Pillow may open, with their usual variants."""
    smooth = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
    colour = Image.fromarray(np.stack([smooth, smooth * 2, generator.integers(0, 256, smooth.shape, np.uint8)], -1))
    deep = Image.fromarray(smooth.astype(np.uint16) * 257)
    pages = [colour.convert("L").rotate(angle) for angle in range(0, 100, 20)]
    variants: dict[str, list[tuple[Image.Image, str, dict[str, Any]]]] = {
        "PNG": [(colour, "colour.png", {}), (deep, "deep.png", {}), (colour.convert("P"), "palette.png", {})],
        "JPEG": [(colour, "colour.jpg", {}), (colour, "progressive.jpg", {"progressive": True})],
        "TIFF": [
            (colour, f"{packing}.tif", {"compression": packing}) for packing in ("raw", "tiff_lzw", "tiff_deflate")
        ]
        + [(pages[0], "pages.tif", {"save_all": True, "append_images": pages[1:]}), (deep, "deep.tif", {})],
        "WebP": [(colour, "colour.webp", {}), (colour, "lossless.webp", {"lossless": True})],
        "BMP": [(colour, "colour.bmp", {}), (colour.convert("P"), "palette.bmp", {})],
        "GIF": [(pages[0], "film.gif", {"save_all": True, "append_images": pages[1:], "duration": 100})],
        "JPEG 2000": [(colour, "colour.jp2", {}), (colour, "tiled.jp2", {"tile_size": (32, 32)})],
    }
    return {
        kind: [
            _written(lambda path, picture=picture, options=options: picture.save(path, **options), name)
            for picture, name, options in items
        ]
        for kind, items in variants.items()
    }


def _film(path: Path, codec: str) -> None:
    """Two seconds of a moving bar."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:  # without random numbers in the header
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 5
        for index in range(20):
            planes = np.full((72, 64), 128, np.uint8)  # 48 rows of brightness, 24 of colour
            planes[:48, 3 * index : 3 * index + 6] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def make_corpus() -> dict[str, list[Seed]]:
    """Whole files, by the format that the report counts them under."""
    generator = np.random.default_rng(0)
    body = np.add.outer(np.arange(8) * 40, np.add.outer(np.arange(20), np.arange(16))).astype(np.int16) - 1000
    volume = sitk.GetImageFromArray(body)
    volume.SetSpacing((0.8, 0.8, 3.0))
    array = io.BytesIO()
    np.save(array, body)
    niftis = list(_packaged_files(Path(nibabel.__file__).parent / "tests/data", "*.nii"))
    small = _written(lambda path: sitk.WriteImage(volume, str(path)), "small.nii")
    series = _series()
    newer = _written(lambda path: nibabel.save(nibabel.Nifti2Image(body.T, np.diag([1, 1, 3, 1])), path), "newer.nii")
    pairs = {"nifti.hdr": nibabel.Nifti1Pair, "nifti2.hdr": nibabel.Nifti2Pair, "analyze.hdr": nibabel.AnalyzeImage}
    codecs = {"film.mov": "mpeg4", "film.mkv": "mpeg4", "film.avi": "mpeg4", "film.webm": "libvpx"}
    codecs |= {"film.ts": "mpeg2video"}
    return {
        "DICOM": list(_packaged_files(Path(pydicom.__file__).parent / "data/test_files", "*.dcm")),
        "NIfTI": [*niftis, small],
        "NIfTI, compressed": [
            Seed("small.nii.gz", gzip.compress(small.data, mtime=0)),
            Seed("small.nii.gz, inside", small.data, lambda data: gzip.compress(data, 1, mtime=0)),
        ],
        "NIfTI-2": [newer, Seed("newer.nii.gz, inside", newer.data, lambda data: gzip.compress(data, 1, mtime=0))],
        "header and voxels": [
            *(
                _pair_in_zip(lambda path, made=made: nibabel.save(made(body.T, None), path), name, f"{name[:-4]}.img")
                for name, made in pairs.items()
            ),
            _pair_in_zip(lambda path: sitk.WriteImage(volume, str(path)), "meta.mhd", "meta.raw"),
            _pair_in_zip(lambda path: sitk.WriteImage(volume, str(path)), "nrrd.nhdr", "nrrd.raw"),
        ],
        "NRRD": [
            _written(lambda path, packed=packed: sitk.WriteImage(volume, str(path), packed), f"{packing}.nrrd")
            for packing, packed in (("raw", False), ("gzip", True))
        ],
        "MetaImage": [
            _written(lambda path, packed=packed: sitk.WriteImage(volume, str(path), packed), f"{packing}.mha")
            for packing, packed in (("raw", False), ("packed", True))
        ],
        "NumPy": [Seed("volume.npy", array.getvalue())],
        "zip of DICOM": [
            Seed("series.zip", _zip_of(*series)),
            Seed("series.zip, inside", series[1], lambda data: _zip_of(series[0], data, *series[2:])),
        ],
        **_pictures(generator),
        "video": [
            Seed(H264_FILM.name, H264_FILM.read_bytes()),
            *(_written(lambda path, codec=codec: _film(path, codec), name) for name, codec in codecs.items()),
        ],
    }


def _flip_bits(data: bytearray, generator: np.random.Generator) -> None:
    for place in generator.integers(0, len(data), generator.integers(1, 9)):
        data[place] ^= 1 << int(generator.integers(8))


def _truncate(data: bytearray, generator: np.random.Generator) -> None:
    del data[int(generator.integers(1, len(data))) :]


def _edit_header(data: bytearray, generator: np.random.Generator) -> None:
    """Random bytes near the start, or near the end, where MP4 and zip have their tables."""
    length = min(HEADER_BYTES, len(data))
    start = 0 if generator.random() < 0.75 else len(data) - length
    for place in generator.integers(start, start + length, generator.integers(1, 9)):
        data[place] = int(generator.integers(256))


def _set_length(data: bytearray, generator: np.random.Generator) -> None:
    """A number as large or as small as the format can write, where a length may be."""
    width, order = int(generator.choice([2, 4])), str(generator.choice(["little", "big"]))
    place = int(generator.integers(min(HEADER_BYTES, len(data))))
    number = int(generator.choice(EXTREMES)) % 2 ** (8 * width)
    data[place : place + width] = number.to_bytes(width, order)


def _swap_words(data: bytearray, generator: np.random.Generator) -> None:
    """Two neighbouring words change places, as in a file whose lengths are swapped."""
    width = int(generator.choice([2, 4]))
    place = int(generator.integers(min(HEADER_BYTES, len(data)))) // width * width
    first, second = data[place : place + width], data[place + width : place + 2 * width]
    data[place : place + 2 * width] = second + first


def _insert_zeros(data: bytearray, generator: np.random.Generator) -> None:
    place = int(generator.integers(len(data)))
    data[place:place] = bytes(int(generator.integers(1, 257)))


MUTATIONS = (_flip_bits, _truncate, _edit_header, _set_length, _swap_words, _insert_zeros)


def mutant(corpus: dict[str, list[Seed]], seed: int, number: int) -> tuple[str, str, bytes]:
    """The damaged file of a number: its format, what it was made from and how, and its bytes.

    Formats take turns, so that the many DICOM files do not crowd out the others.
    """
    generator = np.random.default_rng([seed, number])
    kind = list(corpus)[number % len(corpus)]
    whole = corpus[kind][int(generator.integers(len(corpus[kind])))]
    data = bytearray(whole.data)
    chosen = [MUTATIONS[i] for i in generator.integers(0, len(MUTATIONS), generator.integers(1, 3))]
    for mutate in chosen:
        if len(data) > 1:
            mutate(data, generator)
    return kind, f"{whole.name}: {', '.join(mutate.__name__.strip('_') for mutate in chosen)}", whole.pack(bytes(data))


def is_sound(clip: Clip) -> bool:
    """What every clip promises, whatever the file was."""
    return (
        clip.kind in KINDS
        and clip.frames.dtype == np.uint8
        and clip.frames.ndim == 4
        and clip.frames.shape[-1] == 3
        and 1 <= len(clip.frames) <= min(MAX_FRAMES, clip.source_frames)
        and clip.positions.shape == (len(clip.frames),)
        and bool(np.isfinite(clip.positions).all() and (np.diff(clip.positions) > 0).all())
        and all(0 <= spacing < np.inf for spacing in clip.pixel_spacing)
        and all("\n" not in note for note in clip.notes)
    )


def is_clear(sentence: str) -> bool:
    """What every sentence promises: one line of a length that people read, with nothing of the file's bytes in it."""
    return sentence.isascii() and sentence.isprintable() and sentence.endswith(".") and len(sentence) < LONGEST_SENTENCE


def kind_of_sentence(sentence: str) -> str:
    """A sentence without what differs from file to file."""
    sentence = sentence.removeprefix(FILE_NAME + " ")
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"\(modality [^)]*\)", "(modality …)", sentence))


def resident_bytes() -> int | None:
    """Memory of this process; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) * 1024


def fuzz(numbers: Iterable[int], seed: int, reader: IsolatedReader) -> dict[str, Any]:
    """Reads the damaged files of the given numbers and counts what becomes of them.

    Returns:
        `outcomes` by format, `sentences` by kind; `failures`, the numbers of what ended or outlasted the process;
        `unsound`, the numbers of clips and sentences that break a promise; `slowest`, seconds of one request;
        `memory_growth`, bytes that this process has gained since the first `WARM_UP` files, None where the system does
        not say.
    """
    corpus = make_corpus()
    outcomes: dict[str, collections.Counter] = {kind: collections.Counter() for kind in corpus}
    sentences: collections.Counter = collections.Counter()
    failures, unsound = [], []
    slowest, before = 0.0, resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FILE_NAME)
        for done, number in enumerate(numbers):
            if done == WARM_UP:
                before = resident_bytes()
            kind, made, data = mutant(corpus, seed, number)
            path.write_bytes(data)
            start = time.perf_counter()
            try:
                clip = reader.load_clip(path, max_frames=MAX_FRAMES)
            except MediaError as error:
                sentence = kind_of_sentence(str(error))
                failure = next((name for name, words in FAILURES.items() if words in sentence), None)
                outcome = failure or ("refused" if is_clear(str(error)) else "unsound")
                sentences[sentence] += 1
            else:
                outcome = "clip" if is_sound(clip) else "unsound"
            slowest = max(slowest, time.perf_counter() - start)
            outcomes[kind][outcome] += 1
            if outcome in FAILURES:
                failures.append({"number": number, "outcome": outcome, "made": made})
            elif outcome == "unsound":
                unsound.append({"number": number, "made": made})
    after = resident_bytes()
    return {
        "outcomes": {kind: dict(counter) for kind, counter in outcomes.items()},
        "sentences": dict(sentences.most_common()),
        "failures": failures,
        "unsound": unsound,
        "slowest": round(slowest, 3),
        "memory_growth": None if after is None else after - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file for the figures")
    parser.add_argument("--mutations", type=int, default=5000, help="damaged files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    options = parser.parse_args()
    start = time.perf_counter()
    with IsolatedReader(TIME_LIMIT, processes=1) as reader:
        results = fuzz(tqdm(range(options.mutations), unit="file"), options.seed, reader)
    results["seconds"] = round(time.perf_counter() - start, 1)
    write_json(options.json, "fuzz_media", {"mutations": options.mutations, "seed": options.seed, **results})
    columns = ("clip", "refused", *FAILURES, "unsound")
    rows = [[kind, *(str(counts.get(name, 0)) for name in columns)] for kind, counts in results["outcomes"].items()]
    print(markdown_table(["format", *columns], rows))


if __name__ == "__main__":
    main()
