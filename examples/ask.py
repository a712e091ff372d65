# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Asks the model one question about one medical image, volume or video, and says what pruning saved and cost.

python -m examples.ask examples/media/ct_volume.nii.gz "Which imaging modality is this?"
python -m examples.ask scan.zip "Is there a lesion?" --json --heatmap pruning.png
python -m examples.ask none "What is computed tomography used for?"
python -m examples.ask scan.zip "Is there a lesion?" --gguf nano-f16.gguf
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib.util
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_engine.commands import OneLineParser, UsageError
from hub_model.isolated_reading_omniv_med import IsolatedReader

if TYPE_CHECKING:
    from hub_model.answering_omniv_med import Answer
    from hub_model.processing_omniv_med import ProcessedClip

NO_MEDIUM = "none"
READING_SECONDS = 600.0
"""After which a file is given up; a whole examination on a slow disk takes minutes."""
DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "hub_model"


class AskError(Exception):
    """Wrong input; the message is one sentence for the user."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; raises `UsageError` for what can be refused before anything is loaded."""
    parser = OneLineParser(
        prog="python -m examples.ask",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="file, folder or zip with an image, a volume or a video; 'none' asks without one")
    parser.add_argument("question")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--heatmap", type=Path, metavar="OUT.png", help="draw the slices with pruned tokens dimmed")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder or Hub id (default: %(default)s)")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="let llama.cpp decode, from this language model")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not options.question.strip():
        raise UsageError("The question is empty; write one after the file.")
    if options.max_new_tokens < 1:
        raise UsageError("--max-new-tokens must be at least 1.")
    if options.file != NO_MEDIUM and not Path(options.file).exists():
        raise UsageError(f"{Path(options.file).name or 'The file'} does not exist; check the path, or give 'none'.")
    if options.heatmap is not None:
        if options.file == NO_MEDIUM:
            raise UsageError("--heatmap needs a file, and the file is 'none'.")
        if options.heatmap.suffix.lower() != ".png":
            raise UsageError("--heatmap writes PNG; give a name that ends in .png.")
        if not options.heatmap.absolute().parent.is_dir() or options.heatmap.is_dir():
            raise UsageError("--heatmap must name a file in a folder that exists.")
    if options.gguf is not None:
        if importlib.util.find_spec("llama_cpp") is None:
            raise UsageError("--gguf needs llama-cpp-python; pip install -e '.[llama-cpp]' brings it.")
        if not options.gguf.is_file():
            raise UsageError(f"{options.gguf.name} does not exist; train.checkpoints.language_model_gguf writes it.")
    folder = Path(options.model)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise UsageError(f"The folder {folder.name} holds no model weights; 'make model' assembles them.")
    return options


def classes(model: str) -> tuple[Any, Any]:
    """What loads the processor and the model: for the project's own folder the classes in it, so that its code is
    neither copied nor checked nor imported twice, otherwise transformers' auto classes."""
    if Path(model).resolve() == DEFAULT_MODEL:
        from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
        from hub_model.processing_omniv_med import OmniVMedProcessor

        return OmniVMedProcessor, OmniVMedForConditionalGeneration
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return AutoProcessor, AutoModelForImageTextToText


def load(loaded_class: Any, model: str, **options: Any) -> Any:
    """`loaded_class.from_pretrained`, with one sentence for whatever is wrong with the model's files."""
    try:
        return loaded_class.from_pretrained(model, trust_remote_code=True, **options)
    except Exception as error:  # of many classes: missing, damaged, from another project, or not reachable
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AskError(f"The model {model} cannot be loaded: {reason}") from None


def read_medium(reader: IsolatedReader, processor: Any, source: str) -> ProcessedClip:
    """Reads and prunes one file; the reader's own sentence says what is wrong with it."""
    try:
        clip = reader.load_clip(source, max_frames=processor.max_frames, fps=processor.fps)
        return processor.process_clip(clip)
    except (ValueError, RuntimeError) as error:
        raise AskError(str(error)) from None


def prepare(processor: Any, question: str, processed: ProcessedClip | None) -> Any:
    """The model's inputs for one question, with the clip that was read already."""
    parts = [{"type": "text", "text": question}]
    if processed is not None:
        parts.insert(0, {"type": processed.clip.kind})
    messages = [{"role": "user", "content": parts}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(text=prompt, clips=[] if processed is None else [processed])


def answer(processor: Any, model: Any, inputs: Any, max_new_tokens: int) -> tuple[Answer, float]:
    """Generates greedily; returns the answer and the seconds from the call to the first token."""
    from transformers import LogitsProcessorList
    from transformers.generation import BaseStreamer

    from hub_model.answering_omniv_med import GreedyLogProbabilities, judge_generated

    class FirstTokenClock(BaseStreamer):
        """Notes when the first new token comes; `generate` puts the prompt first."""

        def __init__(self) -> None:
            self.start = time.perf_counter()
            self.arrivals: list[float] = []

        def put(self, value: Any) -> None:
            self.arrivals.append(time.perf_counter())

        def end(self) -> None:
            pass

    length, longest = inputs["input_ids"].shape[1], model.config.text_config.max_position_embeddings
    if length + max_new_tokens > longest:
        raise AskError(f"The prompt has {length} tokens, so an answer may have {max(longest - length, 0)} at most.")
    clock, watched = FirstTokenClock(), GreedyLogProbabilities()
    output = model.generate(
        **inputs.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        streamer=clock,
        logits_processor=LogitsProcessorList([watched]),
    )
    new = output[:, length:]
    (text,) = processor.batch_decode(new, skip_special_tokens=True)
    answered = judge_generated(model, text, new, watched, "pixel_values" in inputs)
    return answered, clock.arrivals[1] - clock.start


def report(answered: Answer, seconds: float, processed: ProcessedClip | None) -> dict[str, Any]:
    """The result under the stable names of `--json`."""
    fields: dict[str, Any] = {
        "answer": answered.text,
        "confidence": round(answered.confidence, 4),
        "declined": answered.declined,
        "likeliest": answered.likeliest,
    }
    fields |= {"kind": None, "frames": 0, "source_frames": 0}
    fields |= {"tokens_before": 0, "tokens_after": 0, "reduction_percent": None, "worst_error": None}
    fields |= {"threshold": None, "seconds_to_first_token": round(seconds, 3), "notes": []}
    if processed is not None:
        fields |= {
            "kind": processed.clip.kind,
            "frames": len(processed.clip.frames),
            "source_frames": processed.clip.source_frames,
            "tokens_before": processed.tokens_before,
            "tokens_after": processed.tokens_after,
            "reduction_percent": round(100 * processed.reduction, 2),
            "worst_error": round(processed.pruned.worst_error, 5),
            "threshold": round(processed.pruned.threshold, 5),
            "notes": list(processed.notes),
        }
    return fields


def as_lines(fields: dict[str, Any]) -> str:
    """The report for people."""
    lines = [fields["answer"]]
    if fields["declined"] and fields["likeliest"] is not None:
        lines.append(f"likeliest, but not sure enough: {fields['likeliest']}")
    lines += ["", f"confidence: {fields['confidence']:.0%}"]
    timed = "encoding and the first step of the language model"
    if fields["kind"] is not None:
        timed = f"reading, pruning, {timed}"
        lines += [
            f"{fields['kind']}: {fields['frames']} of {fields['source_frames']} frames",
            f"tokens: {fields['tokens_before']} before pruning, {fields['tokens_after']} after, position labels "
            f"counted: {fields['reduction_percent']:.1f} % fewer",
            f"worst error of a removed token: {fields['worst_error']:.4f}, threshold {fields['threshold']:.4f} "
            "(mean absolute difference of pixel values in [-1, 1])",
        ]
    lines.append(f"first token: {fields['seconds_to_first_token']:.2f} s ({timed}; not loading the model)")
    return "\n".join([*lines, *(f"note: {note}" for note in fields["notes"])])


@contextmanager
def without_collector() -> Iterator[None]:
    """Keeps the garbage collector from going through what torch and transformers make when they are imported: it all
    lives to the end, and looking through it again and again, the last time on leaving, takes a fifth of the start."""
    atexit.register(gc.freeze)
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def run(arguments: list[str] | None) -> None:
    """Reads, asks, prints; raises `UsageError` or `AskError` for wrong input."""
    options = parse_arguments(arguments)
    with ExitStack() as resources:
        reader = None
        if options.file != NO_MEDIUM:
            # A separate process, so that a file that makes a decoder crash or hang is reported like any other. It
            # imports its decoders on another core while this one imports torch and transformers.
            reader = resources.enter_context(IsolatedReader(READING_SECONDS, processes=1))
            reader.start()
        # Imported here: it takes seconds, and a wrong argument should be told at once.
        import torch
        from transformers.utils import logging

        from hub_model.number_format_omniv_med import preferred_dtype

        warnings.simplefilter("ignore")  # of libraries, and nothing that a user of this command could act on
        logging.set_verbosity_error()
        logging.disable_progress_bar()

        processor_class, model_class = classes(options.model)
        processor = load(processor_class, options.model)
        if not hasattr(processor, "process_clip"):
            raise AskError(f"The model {options.model} is not an OmniV-Med model.")
        start = time.perf_counter()
        processed = None if reader is None else read_medium(reader, processor, options.file)
    inputs = prepare(processor, options.question, processed)
    seconds = time.perf_counter() - start
    # The file comes first, so that a wrong one is told before the weights are read; only the model's time is left out.
    on_gpu = torch.cuda.is_available()
    further: dict[str, Any] = {}
    if options.gguf is not None:
        from hub_model.llama_cpp_omniv_med import OmniVMedWithLlamaCpp

        model_class, further = OmniVMedWithLlamaCpp, {"gguf": options.gguf}
    model = load(model_class, options.model, dtype=torch.float32 if on_gpu else preferred_dtype(), **further)
    model = model.to("cuda" if on_gpu else "cpu").eval()
    answered, generating = answer(processor, model, inputs, options.max_new_tokens)
    if options.heatmap is not None:
        from hub_model.pruning_heatmap_omniv_med import draw_heatmap

        try:
            draw_heatmap(processed, options.heatmap)
        except OSError as error:
            raise AskError(f"The heatmap cannot be written ({error.strerror or type(error).__name__}).") from None
    fields = report(answered, seconds + generating, processed)
    print(json.dumps(fields, ensure_ascii=False) if options.json else as_lines(fields))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; its exit code: 0, 1 where nobody reads on, or 2 with one line on stderr for wrong input."""
    try:
        with without_collector():
            run(arguments)
        sys.stdout.flush()  # here and not when Python ends, where nothing could be done about a reader that is gone
    except (AskError, UsageError) as error:
        print("ask:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Who read our output, such as `head`, has seen enough. Python would complain of it once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
