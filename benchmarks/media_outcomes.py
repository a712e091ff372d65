# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the reader makes of every file of pydicom's own test set and of nibabel's, beside what these two decode.

    python -m benchmarks.media_outcomes --json outcomes.json --markdown docs/media_outcomes.md

A file is "equal" where its frames differ from the reference by at most one grey level of 255, "refused" where the
reader gives one sentence that says why, and "different" otherwise, which must not happen. The reference is decoded by
pydicom or nibabel, and for the display it goes through the window or the scale that the clip's notes name. Files that
pydicom would download on demand are counted, not fetched.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from nibabel.spatialimages import SpatialImage
from pydicom.data.download import get_url_map
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing
from tqdm import tqdm

from benchmarks.report import write_json
from data_engine.tables import markdown_table
from hub_model.media_omniv_med import Clip, MediaError, load_clip, scale_intensity, window_ct

LARGEST_DIFFERENCE = 1
"""Grey levels of 255 that rounding may change."""
OUTCOMES = ("equal", "refused", "different")
VERSIONS = {"pydicom": pydicom.__version__, "nibabel": nibabel.__version__}
EVERYTHING = {"max_frames": 100_000, "fps": 10_000.0}
SKIPPED_SUFFIXES = (".py", ".pyc")


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        package: whose test file it is, "pydicom" or "nibabel".
        file: its path in that package's folder of test files.
        outcome: one of `OUTCOMES`.
        detail: the kind and number of the frames and their largest difference in grey levels, or the reader's sentence.
    """

    package: str
    file: str
    outcome: str
    detail: str


def test_files() -> dict[str, list[tuple[Path, str]]]:
    """By package: all of its installed test files, each with its path below the package's folder."""
    folders = {
        "pydicom": [Path(pydicom.__file__).parent / "data"],
        "nibabel": sorted(Path(nibabel.__file__).parent.rglob("tests/data")),
    }
    found: dict[str, list[tuple[Path, str]]] = {}
    for package, roots in folders.items():
        paths = [path for root in roots for path in sorted(root.rglob("*"))]
        paths = [path for path in paths if path.is_file() and path.suffix not in SKIPPED_SUFFIXES]
        base = roots[0] if len(roots) == 1 else Path(nibabel.__file__).parent
        found[package] = [(path, path.relative_to(base).as_posix()) for path in paths]
    return found


def not_installed() -> list[str]:
    """Names of the test files that pydicom would download."""
    here = {path.name for path, _ in test_files()["pydicom"]}
    return sorted(set(get_url_map()) - here)


def shown(values: np.ndarray, clip: Clip) -> np.ndarray:
    """Values (…) through the window or scale that the clip's notes name, as uint8 (…, 3)."""
    if any(note.startswith("CT windows") for note in clip.notes):
        return window_ct(values)
    if any(note.startswith("Grey levels: 1st to 99th percentile") for note in clip.notes):
        return scale_intensity(values)
    return np.repeat(np.round(values).clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def dicom_reference(path: Path, clip: Clip) -> np.ndarray:
    """All frames of a DICOM file as pydicom decodes them, uint8 (frames, height, width, 3)."""
    dataset = pydicom.dcmread(path, force=True)
    pixels = dataset.pixel_array
    frames = pixels.reshape(-1, *pixels.shape[-3 if dataset.SamplesPerPixel > 1 else -2 :])
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        frames = np.stack([apply_color_lut(frame, dataset)[..., :3] for frame in frames])
        return np.round(frames * (255 / (2.0 ** dataset.RedPaletteColorLookupTableDescriptor[2] - 1))).astype(np.uint8)
    if frames.ndim == 4:
        return np.round(frames * (255 / (2.0**dataset.BitsStored - 1))).astype(np.uint8)
    values = np.asarray(apply_modality_lut(frames, dataset), dtype=np.float64)
    if "PixelPaddingValue" in dataset:
        padding = frames == dataset.PixelPaddingValue
        values[padding] = values[~padding].min()
    if any(note.startswith("Header window") for note in clip.notes):
        black, white = apply_windowing(np.array([-1e9, 1e9]), dataset)
        values = (apply_windowing(values, dataset) - black) / (white - black) * 255
    grey = shown(values[dicom_order(dataset, len(values))] if clip.kind == "volume" else values, clip)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def dicom_order(dataset: pydicom.Dataset, count: int) -> np.ndarray:
    """Frame numbers of a dose grid from the feet up (PS3.3 C.8.8.3.2), where its slices are axial.

    The only multi-frame volumes in the test sets are dose grids like that; for any other the reader's frames would
    have no reference, so the file counts as different.
    """
    if list(dataset.ImageOrientationPatient) != [1, 0, 0, 0, 1, 0]:
        raise ValueError("The reference knows axial dose grids only.")
    return np.argsort(np.asarray(dataset.GridFrameOffsetVector, dtype=float)[:count])


def nibabel_reference(path: Path, clip: Clip) -> np.ndarray:
    """The first volume of a file as nibabel decodes it, axial from the feet, anterior up, patient right on the left."""
    image = nibabel.load(path)
    if not isinstance(image, SpatialImage):
        raise ValueError("The reference knows volumes only.")
    if len(image.shape) > 3:
        image = image.slicer[(..., *[slice(0, 1)] * (len(image.shape) - 3))]
    image = nibabel.as_closest_canonical(image)
    values = image.get_fdata().reshape(image.shape[:3])[::-1, ::-1].transpose(2, 1, 0)
    return shown(np.where(np.isfinite(values), values, values[np.isfinite(values)].min()), clip)


def judge(package: str, path: Path, name: str) -> Outcome:
    """Reads one file both ways."""
    try:
        clip = load_clip(path, **EVERYTHING)
    except MediaError as error:
        return Outcome(package, name, "refused", str(error))
    held = f"{clip.kind} of {len(clip.frames)}"
    by_pydicom = package == "pydicom" or path.suffix == ".dcm"
    try:
        expected = (dicom_reference if by_pydicom else nibabel_reference)(path, clip)
    except Exception as error:  # whatever it is, there is nothing that would show the clip to be right
        return Outcome(package, name, "different", f"{held}, but no reference ({type(error).__name__})")
    if expected.shape != clip.frames.shape:
        return Outcome(package, name, "different", f"{held}, {clip.frames.shape} and not {expected.shape}")
    difference = int(np.abs(clip.frames.astype(int) - expected.astype(int)).max())
    outcome = "equal" if difference <= LARGEST_DIFFERENCE else "different"
    return Outcome(package, name, outcome, f"{held}, largest difference {difference}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The references warn about most of these files, which are odd on purpose."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def judge_all() -> list[Outcome]:
    """Outcomes of all installed test files."""
    files = [(package, *file) for package, found in test_files().items() for file in found]
    with quiet():
        return [judge(*file) for file in tqdm(files)]


def tables(outcomes: list[Outcome], missing: dict[str, int]) -> str:
    """The counts and the outcome of every file, as Markdown."""
    counts = Counter((outcome.package, outcome.outcome) for outcome in outcomes)
    rows = [
        [f"{package} {version}", *(str(counts[package, outcome]) for outcome in OUTCOMES), str(missing.get(package, 0))]
        for package, version in VERSIONS.items()
    ]
    files = [[item.package, f"`{item.file}`", item.outcome, item.detail] for item in outcomes]
    summary = markdown_table(["test files of", *OUTCOMES, "not installed"], rows)
    return summary + "\n\n" + markdown_table(["of", "file", "outcome", "detail"], files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="file for the outcomes")
    parser.add_argument("--markdown", metavar="OUT", help="page for the table")
    arguments = parser.parse_args()
    outcomes, missing = judge_all(), not_installed()
    write_json(
        arguments.json,
        "media_outcomes",
        {"files": [asdict(outcome) for outcome in outcomes], "not_installed": missing},
    )
    text = tables(outcomes, {"pydicom": len(missing)})
    print(text)
    if arguments.markdown:
        title, *_, rules = __doc__.split("\n\n")
        page = f"# Outcomes of reading the test files of pydicom and nibabel\n\n{title}\n\n{rules.strip()}\n\n"
        command = "    python -m benchmarks.media_outcomes --json outcomes.json --markdown docs/media_outcomes.md"
        Path(arguments.markdown).write_text(f"{page}Written by\n\n{command}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
