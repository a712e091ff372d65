# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What a model's language weights lose and save in int8 and int4, by transformers' own torchao quantiser, on a CPU.

    pip install -e '.[quantization]'
    python -m benchmarks.quantization PICTURES --json benchmarks/results/quantization.json

Every number format is asked the same questions about the same pictures, greedily, and all take turns at each question,
so that a busy machine slows them alike. Given are the bytes of the weights, the speed beside float32, and the share of
answers that are word for word those of float32. bfloat16 changes answers too, so it is the yardstick: a format that
keeps fewer than nine tenths of what bfloat16 keeps is refused. The encoder, the projector and the embeddings are not
quantised: they are a small part of a large model, and int8 of what sees the picture is another question.
PyTorch's older `torch.ao` is measured beside torchao, as many guides for CPUs still name it.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.ao.nn.quantized.dynamic import Linear as DynamicQuantizedLinear
from torch.ao.quantization import quantize_dynamic
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList, TorchAoConfig

from benchmarks.report import share_with_interval, write_json
from benchmarks.timing import Clock
from data_engine.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = ("Which imaging modality is this?", "Which part of the body is shown?", "What abnormality is seen?")
SUFFIXES = (".jpg", ".jpeg", ".png")
KEPT = ["vision_model", "projector", "lm_head"]
"""Modules that are not quantised."""
REFERENCE, YARDSTICK = "float32", "bfloat16"
ENOUGH = 0.9
"""Share of the yardstick's agreement under which a format is refused."""


def unquantised(model: str, dtype: torch.dtype, **options: Any) -> Any:
    """The model with all that is not quantised in this type."""
    return AutoModelForImageTextToText.from_pretrained(model, trust_remote_code=True, dtype=dtype, **options).eval()


def by_torchao(model: str, dtype: torch.dtype, make: Callable[[], Any]) -> Any:
    """The model with its language weights quantised as a configuration of torchao says."""
    return unquantised(model, dtype, quantization_config=TorchAoConfig(make(), modules_to_not_convert=KEPT))


def by_torch_ao(model: str) -> Any:
    """The model with its language weights in int8, activations quantised on the way, by PyTorch's older module."""
    whole = unquantised(model, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        quantize_dynamic(whole.model.language_model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    return whole


def int8_weights() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig()


def int8_weights_and_activations() -> Any:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return Int8DynamicActivationInt8WeightConfig()


def int4_weights() -> Any:
    # torchao's own int4 has kernels for GPUs only; this one is for CPUs.
    from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig

    return PrototypeInt4WeightOnlyConfig(group_size=32)


FORMATS: dict[str, Callable[[str], Any]] = {
    REFERENCE: lambda model: unquantised(model, torch.float32),
    YARDSTICK: lambda model: unquantised(model, torch.bfloat16),
    "int8, rest float32": lambda model: by_torchao(model, torch.float32, int8_weights),
    "int8, rest bfloat16": lambda model: by_torchao(model, torch.bfloat16, int8_weights),
    "int8, activations too": lambda model: by_torchao(model, torch.bfloat16, int8_weights_and_activations),
    "int4, rest bfloat16": lambda model: by_torchao(model, torch.bfloat16, int4_weights),
    "int8 by torch.ao": by_torch_ao,
}
"""Name of each format, and what loads a model in it."""


def plain_tensors(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor, or those that a quantised one consists of."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from plain_tensors(getattr(tensor, name))


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters, tied ones counted once, and of what torch.ao packs."""
    packed = (module.weight() for module in model.modules() if isinstance(module, DynamicQuantizedLinear))
    return sum(part.nbytes for parameter in model.parameters() for part in plain_tensors(parameter.data)) + sum(
        weight.nbytes for weight in packed
    )


@dataclass
class Asked:
    """What one format answered, and how fast: seconds to the first token, and for each further one."""

    answers: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    further: list[float] = field(default_factory=list)

    def ask(self, model: Any, processor: Any, inputs: Any, longest: int) -> None:
        """Answers one question greedily."""
        clock = Clock()
        output = model.generate(
            **inputs, max_new_tokens=longest, do_sample=False, logits_processor=LogitsProcessorList([clock])
        )
        new = output[:, inputs["input_ids"].shape[1] :]
        self.answers.append(processor.batch_decode(new, skip_special_tokens=True)[0].strip())
        self.first.append(clock.times[0])
        if len(clock.times) > 1:
            self.further.append((clock.times[-1] - clock.times[0]) / (len(clock.times) - 1))


def refusal(name: str, share: float, yardstick: float) -> str | None:
    """Why a format should not be used, in a sentence, or None."""
    if share >= ENOUGH * yardstick:
        return None
    return (
        f"{name} is refused: it keeps {share:.0%} of the answers of {REFERENCE}, and {YARDSTICK} keeps {yardstick:.0%}."
    )


def measure(model: str, names: Sequence[str], pictures: list[Path], longest: int) -> dict[str, dict[str, Any]]:
    """The figures of each named format, float32 and bfloat16 among them."""
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=True)
    models = {name: FORMATS[name](model) for name in names}
    asked = {name: Asked() for name in models}
    for picture in pictures:
        for question in QUESTIONS:
            content = [{"type": "image", "path": str(picture)}, {"type": "text", "text": question}]
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
            )
            for name, one in models.items():
                if not asked[name].answers:
                    one.generate(**inputs, max_new_tokens=2, do_sample=False)  # what is only done once is not timed
                asked[name].ask(one, processor, inputs, longest)
    reference = asked[REFERENCE].answers
    rows: dict[str, dict[str, Any]] = {}
    for name, one in asked.items():
        same = sum(a == b for a, b in zip(one.answers, reference, strict=True))
        rows[name] = {
            "bytes": weight_bytes(models[name]),
            "same_answers": share_with_interval(same, len(reference)),
            "seconds_to_first_token": median(one.first),
            "seconds_of_further_tokens": median(one.further) if one.further else None,
        }
    yardstick = rows[YARDSTICK]["same_answers"]["share"]
    for name, row in rows.items():
        row["refused"] = refusal(name, row["same_answers"]["share"], yardstick)
    return rows


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The figures as Markdown; speeds are times float32's."""

    def faster(row: dict[str, Any], what: str) -> str:
        return "–" if row[what] is None else f"{rows[REFERENCE][what] / row[what]:.2f}×"

    lines = []
    for name, row in rows.items():
        same = row["same_answers"]
        lines.append(
            [
                name,
                f"{row['bytes'] / 1e6:.0f} MB",
                faster(row, "seconds_to_first_token"),
                faster(row, "seconds_of_further_tokens"),
                f"{same['share']:.0%} ({same['low']:.0%}–{same['high']:.0%})",
                "yes" if row["refused"] is None else "refused",
            ]
        )
    header = ["format", "weights", "speed to the first token", "speed of further tokens", "same answers", "usable"]
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder with real pictures (.jpg, .png), searched in depth")
    parser.add_argument("--json", type=Path, required=True, help="file to write the figures to")
    parser.add_argument("--model", default=str(ROOT / "hub_model"), help="folder or Hub id (default: %(default)s)")
    parser.add_argument("--count", type=int, default=40, help="pictures, evenly from the folder (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=16, help="longest answer (default: %(default)s)")
    others = [name for name in FORMATS if name not in (REFERENCE, YARDSTICK)]
    parser.add_argument("--formats", nargs="+", choices=others, default=others, help="some only, as each costs time")
    arguments = parser.parse_args()
    if importlib.util.find_spec("torchao") is None:
        parser.error("torchao is not installed; pip install -e '.[quantization]' brings it.")
    found = sorted(path for path in arguments.pictures.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found or arguments.count < 1:
        parser.error("Give a folder with .jpg or .png files, and a --count of at least 1.")
    count = min(arguments.count, len(found))
    pictures = [found[number * len(found) // count] for number in range(count)]
    rows = measure(arguments.model, (REFERENCE, YARDSTICK, *arguments.formats), pictures, arguments.max_new_tokens)
    write_json(arguments.json, "quantization", {"pictures": count, "questions": QUESTIONS, "rows": rows})
    print(table(rows))
    for row in rows.values():
        if row["refused"] is not None:
            print(row["refused"])


if __name__ == "__main__":
    main()
