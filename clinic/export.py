# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Asks questions about a DICOM series or a NIfTI file, and writes the results as archives and viewers keep them.

python -m clinic.export series --question "Which imaging modality is this?" --out results

The folder gets `answers.dcm` (Comprehensive SR), and for volumes `tokens.dcm` (SEG), `tokens.nii.gz` (labels 1 kept,
2 removed, 0 not seen) and `reconstruction.nii.gz` (what the language model receives). By default none of them holds
anything of the patient. Of a NIfTI file only the NIfTI files are written, on its own grid.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinic.source_series import SeriesError, SourceSeries, read_series, save_result
from clinic.source_volume import SourceVolume, read_volume
from data_engine.commands import OneLineParser, UsageError
from hub_model.clip_omniv_med import PLANES
from hub_model.file_types_omniv_med import identify
from hub_model.isolated_reading_omniv_med import IsolatedReader

if TYPE_CHECKING:
    from clinic.structured_report import ModelIdentity, QuestionAnswered
    from hub_model.processing_omniv_med import ProcessedClip

DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "hub_model"
DEFAULT_NAME = "OmniV-Med-Nano"
READING_SECONDS = 600.0
"""After which a series is given up; a whole examination on a slow disk takes minutes."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; raises `UsageError` for what can be refused before anything is loaded."""
    parser = OneLineParser(
        prog="python -m clinic.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, metavar="SERIES", help="folder with a DICOM series, one DICOM file, or one NIfTI file"
    )
    parser.add_argument("--question", action="append", required=True, dest="questions", help="may be given repeatedly")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--series", help="number or UID of the series, where the folder holds several")
    parser.add_argument("--plane", choices=[*PLANES, "automatic"], default="axial", help="(default: %(default)s)")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder or Hub id (default: %(default)s)")
    parser.add_argument(
        "--keep-ids", action="store_true", help="write the patient and the study of the images into SR and SEG"
    )
    options = parser.parse_args(arguments)
    if not all(question.strip() for question in options.questions):
        raise UsageError("A question is empty; write one after --question.")
    return options


def identify_model(model_id: str, model: Any) -> ModelIdentity:
    """Name and version of a loaded model: a digest of its weights and settings, or its commit on the Hub."""
    from clinic.structured_report import ModelIdentity
    from train.checkpoints.fingerprint import fingerprint

    folder = Path(model_id)
    if not folder.is_dir():
        return ModelIdentity(model_id, str(getattr(model.config, "_commit_hash", None) or "unknown"))
    name = DEFAULT_NAME if folder.resolve() == DEFAULT_MODEL else folder.name
    return ModelIdentity(name, f"sha256:{fingerprint(folder)[:16]}")


def ask_all(
    processor: Any, model: Any, processed: ProcessedClip, questions: Sequence[str]
) -> Iterator[QuestionAnswered]:
    """Asks each question about a clip by itself, greedily."""
    from clinic.structured_report import QuestionAnswered
    from hub_model.answering_omniv_med import answer

    clip = processed.clip
    for question in questions:
        content = [{"type": clip.kind, clip.kind: clip}, {"type": "text", "text": question}]
        given = answer(model, processor, [{"role": "user", "content": content}])
        yield QuestionAnswered(question, given.text, given.confidence, given.declined)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place for a file's content; the file appears when that is complete. The ending stays, as nibabel goes by it."""
    unfinished = path.with_name(f".unfinished.{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_layers(
    processed: ProcessedClip, series: SourceSeries | SourceVolume, model: ModelIdentity, folder: Path
) -> tuple[list[str], list[str]]:
    """Writes what lies over the images: SEG, and NIfTI of labels and reconstruction.

    Returns:
        The names of the files, and a sentence for each that this series does not allow.
    """
    from clinic.segmentation import build_segmentation, reconstruction, token_labels, write_nifti

    written, refused = [], []

    def attempt(name: str, write: Callable[[Path], None]) -> None:
        try:
            with written_whole(folder / name) as path:
                write(path)
            written.append(name)
        except SeriesError as error:
            refused.append(f"{name} is not written: {error}")

    if processed.clip.kind != "volume":
        return [], [f"Only volumes are pruned and laid over their images, and this is one {processed.clip.kind}."]
    try:
        labels = token_labels(processed, series)
    except SeriesError as error:
        return [], [str(error)]
    settings = f"threshold {processed.pruned.threshold:.3g}"
    if isinstance(series, SourceSeries):
        segmentation = partial(build_segmentation, labels, series, model, settings)
        attempt("tokens.dcm", lambda path: save_result(segmentation(), path))
    attempt("tokens.nii.gz", lambda path: write_nifti(labels, series, path))
    attempt("reconstruction.nii.gz", lambda path: write_nifti(reconstruction(processed, series), series, path))
    return written, refused


def read_source(options: argparse.Namespace) -> SourceSeries | SourceVolume:
    """Where what is asked about lies.

    Raises:
        SeriesError: it cannot be told.
    """
    if options.source.is_file() and identify(options.source) == "nifti":
        return read_volume(options.source)
    return read_series(options.source, options.series, options.keep_ids)


def run(options: argparse.Namespace) -> None:
    """Reads, asks, writes."""
    series = read_source(options)
    # Imported here: it takes seconds, and a wrong argument should be told at once.
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    from clinic.structured_report import build_report
    from hub_model.number_format_omniv_med import preferred_dtype

    warnings.simplefilter("ignore")  # of libraries, and nothing that a user of this command could act on
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        load_processor: Callable[..., Any] = AutoProcessor.from_pretrained
        processor = load_processor(options.model, trust_remote_code=True)
        with IsolatedReader(READING_SECONDS, processes=1) as reader:
            files = [str(file) for file in series.files] if isinstance(series, SourceSeries) else str(options.source)
            clip = reader.load_clip(files, max_frames=processor.max_frames, fps=processor.fps, plane=options.plane)
        dtype = torch.float32 if torch.cuda.is_available() else preferred_dtype()
        load_model: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained
        model = load_model(options.model, trust_remote_code=True, dtype=dtype)
        model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    except OSError:
        raise SeriesError(f"The model {options.model} cannot be loaded; 'make model' assembles the default.") from None
    processed = processor.process_clip(clip)
    answers = []
    for number, answered in enumerate(ask_all(processor, model, processed, options.questions), 1):
        print(
            f"{number} of {len(options.questions)}: {answered.answer} (confidence {answered.confidence:.0%})",
            flush=True,
        )
        answers.append(answered)
    identity = identify_model(options.model, model)
    options.out.mkdir(parents=True, exist_ok=True)
    report_name = []
    if isinstance(series, SourceSeries):
        settings = [f"{processed.tokens_before} visual tokens, {int(processed.pruned.keep_mask.sum())} of them kept"]
        report = build_report(series, answers, identity, [*settings, *processed.notes])
        with written_whole(options.out / "answers.dcm") as path:
            save_result(report, path)
        report_name = ["answers.dcm"]
    written, refused = write_layers(processed, series, identity, options.out)
    for sentence in refused:
        print(sentence, file=sys.stderr)
    print(f"Written to {options.out}: {', '.join([*report_name, *written]) or 'nothing'}.")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 for wrong input with one line on stderr."""
    try:
        run(parse_arguments(arguments))
    except (OSError, RuntimeError, ValueError) as error:  # the reader's and the processor's errors are ValueErrors
        said = error.strerror if isinstance(error, OSError) else str(error)
        print("export:", " ".join(str(said).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
