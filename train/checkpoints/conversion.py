# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Converts another project's model into a folder of ours, file by file.

The tensors keep their values; names, configuration, processor, chat template and card are written anew. A file of
weights is finished before the next is begun, and one tensor at a time is in memory, so a model of any size passes. What
was finished stays when the conversion is stopped, and started again it goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
import yaml
from huggingface_hub import snapshot_download

from data_engine.files import write_atomically
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from train.checkpoints.assemble import write_configuration
from train.checkpoints.foreign_layouts import our_config, rename
from train.checkpoints.foreign_processor import (
    TakenOptions,
    take_generation,
    take_options,
    take_template,
    take_tokenizer,
)
from train.checkpoints.shards import CODES, StoredTensor, stored_tensors, write_index, write_shard
from train.checkpoints.vision_encoder import CheckpointError, read_config

NEEDED_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*", "NOTICE*"]
"""What is downloaded of a model on the Hub: weights, settings, tokenizer and licence, never code."""
LEGAL_FILES = ("LICENSE*", "NOTICE*")
RECORD = ".conversion.json"
"""What an unfinished folder is being made of."""
SINGLE_FILE = "model.safetensors"


def convert(source: str, out: Path, dtype: torch.dtype | None, report: Callable[[str], None]) -> None:
    """Converts a model.

    Args:
        source: a folder, or a model's name on the Hub.
        out: not there yet, empty, or left by a conversion of the same source that was stopped.
        dtype: of all weights; None leaves them as they are.
        report: called with a sentence when a file is written, or found finished.

    Raises:
        CheckpointError: for what cannot be converted, before anything is written.
    """
    folder = fetch(source)
    fields = read_config(folder)
    config = our_config(fields)
    stored = stored_tensors(folder)
    names = rename({name: tensor.shape for name, tensor in stored.items()}, config)
    tokenizer, placeholder = take_tokenizer(folder, config)
    config.image_token_id = tokenizer.convert_tokens_to_ids(MEDIA_TOKEN)
    taken = take_options(folder, config)
    template = take_template(folder, placeholder)
    begin(out, [folder], stored, dtype)
    write_weights(out, names, stored, dtype, report)
    kind = dtype or CODES[next(stored[name].code for name in names)]
    config.dtype = str(kind).removeprefix("torch.")
    with torch.device("meta"):
        model = OmniVMedForConditionalGeneration(config)
    model.generation_config = take_generation(folder, tokenizer)
    write_configuration(out, model, tokenizer, taken.options, template)
    write_card(out, folder, source, fields.get("_name_or_path"), taken)
    copy_legal_files(folder, out)
    (out / RECORD).unlink()


def copy_legal_files(folder: Path, out: Path) -> None:
    """Licences and notices go wherever the weights go."""
    for pattern in LEGAL_FILES:
        for file in folder.glob(pattern):
            shutil.copy(file, out)


def fetch(source: str) -> Path:
    """A folder as it is, or a model of the Hub, downloaded."""
    folder = Path(source)
    return folder if folder.is_dir() else Path(snapshot_download(source, allow_patterns=NEEDED_FILES))


def begin(out: Path, sources: Iterable[Path], stored: Mapping[str, StoredTensor], dtype: torch.dtype | None) -> None:
    """Notes in the folder what it is made of: the weights, and the settings in the sources' folders.

    Raises:
        CheckpointError: where it holds something else already.
    """
    settings = {file for folder in sources for file in folder.glob("*.json")}
    files = {tensor.file for tensor in stored.values()} | settings
    facts = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    digest = hashlib.sha256(json.dumps([facts, str(dtype)]).encode()).hexdigest()
    record = out / RECORD
    if record.is_file():
        if json.loads(record.read_text(encoding="utf-8")) != {"source": digest}:
            raise CheckpointError(f"{out} holds an unfinished conversion of other weights or types; name a new folder.")
    elif out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty; name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    with write_atomically(record) as part:
        part.write_text(json.dumps({"source": digest}) + "\n", encoding="utf-8")


def write_weights(
    out: Path,
    names: Mapping[str, str],
    stored: Mapping[str, StoredTensor],
    dtype: torch.dtype | None,
    report: Callable[[str], None],
) -> None:
    """Writes one file for each of the source's that holds weights of the model; those that are there stay."""
    by_file: dict[Path, dict[str, str]] = {}
    for theirs, ours in names.items():
        by_file.setdefault(stored[theirs].file, {})[theirs] = ours
    places: dict[str, str] = {}
    size = 0
    for number, renamed in enumerate(by_file.values(), 1):
        name = SINGLE_FILE if len(by_file) == 1 else f"model-{number:05d}-of-{len(by_file):05d}.safetensors"
        if (out / name).is_file():
            report(f"{name} is finished already.")
        else:
            write_shard(out / name, renamed, stored, dtype)
            report(f"{name} written, {len(renamed)} tensors.")
        places |= dict.fromkeys(renamed.values(), name)
        size += (out / name).stat().st_size
    if len(by_file) > 1:
        write_index(out, places, size)


def card_fields(folder: Path) -> dict[str, object]:
    """What the front matter of the source's card says; nothing where there is none."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}
    fields = yaml.safe_load(text[4 : text.index("\n---", 4)])
    return fields if isinstance(fields, dict) else {}


def write_card(out: Path, folder: Path, source: str, name_in_config: object, taken: TakenOptions) -> None:
    """Writes the model's card: whose weights they are, under which licence, and what differs from the source."""
    theirs = card_fields(folder)
    base = source
    if Path(source).is_dir():
        named = name_in_config if isinstance(name_in_config, str) and name_in_config.count("/") == 1 else None
        base = str(named or theirs.get("base_model") or Path(source).resolve().name)
    fields = {
        "license": theirs.get("license", "other"),
        **{name: theirs[name] for name in ("license_name", "license_link", "language") if name in theirs},
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "base_model": base,
        "tags": ["medical", "custom_code", "omniv-med"],
    }
    licence = (
        f"The licence is the source's: {fields['license']}."
        if "license" in theirs
        else "The source's card names no licence; ask its authors before you pass the weights on."
    )
    rows = "\n".join(f"| `{name}` | {json.dumps(value)} |" for name, value in taken.options.items())
    notes = "".join(f"- {note}\n" for note in taken.notes)
    text = f"""---
{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---

# {Path(base).name} in OmniV-Med's format

The weights of `{base}`, unchanged but for the names of the tensors and, where it was asked for, their number format.
{licence} **Research only; not a medical device.**

```python
from transformers import AutoModelForImageTextToText, AutoProcessor
processor = AutoProcessor.from_pretrained("PATH", trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained("PATH", trust_remote_code=True, dtype="auto")
```

## What differs from the source

- Images, volumes and videos are read by OmniV-Med's readers, several in a message and several conversations in a batch.
- Tokens that repeat are pruned before the prompt is written (`prune_rule="none"` keeps all), a frame that keeps none
  leaves the prompt, and the threshold is on pixel values in [-1, 1].
- The prompt has the source's wording; the system prompt is the source's, and is written when the source writes it.
{notes}
## Processor

| option | value |
| --- | --- |
{rows}

What this model answers was not measured by OmniV-Med; see the source's card.
"""
    with write_atomically(out / "README.md") as part:
        part.write_text(text, encoding="utf-8")
