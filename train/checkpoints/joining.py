# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Joins a vision encoder and a language model to a model of ours, file by file; the projector stays untrained.

As in a conversion, a file of weights is finished before the next is begun, one tensor at a time is in memory, and what
was finished stays when the command is stopped. `train.checkpoints.assemble` loads both models instead, for language
models whose files name the tensors otherwise than transformers, and to add trained tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from data_engine.files import write_atomically
from hub_model.configuration_omniv_med import OmniVMedConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.projector_omniv_med import OmniVMedProjector
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from train.checkpoints.assemble import end_at_turns, start_projector, teach_tokens, write_configuration
from train.checkpoints.conversion import RECORD, begin, card_fields, copy_legal_files, fetch, write_weights
from train.checkpoints.foreign_layouts import HEAD, rename
from train.checkpoints.shards import GrownTensor, StoredTensor, stored_tensors, stored_tensors_of
from train.checkpoints.vision_encoder import CheckpointError, encoder_prefix, read_config, vision_fields

ENCODER, PROJECTOR, EMBEDDING = "model.vision_model.", "model.projector.", "model.embed_tokens.weight"
PROJECTOR_FILE = ".projector.safetensors"
"""Where the untrained projector waits until its own file of weights is written."""


def join(
    vision: str, language: str, out: Path, dtype: torch.dtype, options: Mapping[str, Any], report: Callable[[str], None]
) -> None:
    """Joins two models.

    Args:
        vision, language: folders, or names on the Hub; see `train/checkpoints/vision_encoder.py` for the encoders.
        out: not there yet, empty, or left by the same command that was stopped.
        dtype: of all weights.
        options: of the processor, beside its patch size.
        report: called with a sentence when a file is written, or found finished.

    Raises:
        CheckpointError: for what does not fit, before anything is written.
    """
    vision_folder, language_folder = fetch(vision), fetch(language)
    tokenizer = AutoTokenizer.from_pretrained(language_folder)
    known = teach_tokens(tokenizer)
    config = _config(vision_folder, language_folder, len(tokenizer))
    config.image_token_id = tokenizer.convert_tokens_to_ids(MEDIA_TOKEN)
    stored = _language_tensors(language_folder, known, len(tokenizer)) | _encoder_tensors(vision_folder)
    with torch.device("meta"):
        model = OmniVMedForConditionalGeneration(config)
    untrained = {PROJECTOR + name: tensor.shape for name, tensor in model.model.projector.state_dict().items()}
    names = rename({name: tensor.shape for name, tensor in stored.items()} | untrained, config)
    begin(out, [vision_folder, language_folder], stored, dtype)
    write_projector(out / PROJECTOR_FILE, config, scale_of(stored[EMBEDDING]))
    stored |= stored_tensors_of(out / PROJECTOR_FILE)
    write_weights(out, names, stored, dtype, report)
    config.dtype = str(dtype).removeprefix("torch.")
    settings = language_folder / "generation_config.json"
    model.generation_config = (
        GenerationConfig.from_pretrained(language_folder) if settings.is_file() else GenerationConfig()
    )
    end_at_turns(model.generation_config, tokenizer)
    write_configuration(out, model, tokenizer, {"patch_size": config.vision_config.patch_size, **options})
    write_card(out, {vision: vision_folder, language: language_folder})
    for folder in (vision_folder, language_folder):
        copy_legal_files(folder, out)
    (out / PROJECTOR_FILE).unlink()
    (out / RECORD).unlink()


def _config(vision: Path, language: Path, tokens: int) -> OmniVMedConfig:
    text = AutoConfig.from_pretrained(language)
    text.vocab_size = tokens
    tied = bool(text.tie_word_embeddings)
    config = OmniVMedConfig(
        text_config=text.to_dict(), vision_config=vision_fields(read_config(vision)), tie_word_embeddings=tied
    )
    config.text_config.tie_word_embeddings = tied
    return config


def _language_tensors(folder: Path, known: int, tokens: int) -> dict[str, StoredTensor]:
    """All tensors of a language model; embedding and head with a row for each token."""
    stored = stored_tensors(folder)
    if EMBEDDING not in stored:
        raise CheckpointError(
            f"The language model in {folder} has no {EMBEDDING}; train.checkpoints.assemble loads it by transformers."
        )
    for name in (EMBEDDING, HEAD):
        if name in stored:
            one = stored[name]
            stored[name] = GrownTensor(one.file, one.name, (tokens, one.shape[1]), one.code, known)
    return stored


def _encoder_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The encoder's tensors under our names; what else the checkpoint holds is left out."""
    stored = stored_tensors(folder)
    prefix = encoder_prefix(stored, folder)
    return {ENCODER + name.removeprefix(prefix): one for name, one in stored.items() if name.startswith(prefix)}


def scale_of(tensor: StoredTensor) -> float:
    """Root mean square of a tensor."""
    squares = sum(float(piece.float().square().sum(dtype=torch.float64)) for piece in tensor.pieces())
    return (squares / (tensor.shape[0] * tensor.shape[1])) ** 0.5


def write_projector(path: Path, config: OmniVMedConfig, scale: float) -> None:
    """Writes an untrained projector, the same each time, so that a join that was stopped goes on with it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projector = OmniVMedProjector(config)
        start_projector(projector, scale)
    with write_atomically(path) as part:
        save_file({PROJECTOR + name: tensor for name, tensor in projector.state_dict().items()}, part)


def write_card(out: Path, sources: Mapping[str, Path]) -> None:
    """Writes the model's card: whose weights they are, under which licences, and that the projector is untrained."""
    cards = {
        Path(name).resolve().name if Path(name).is_dir() else name: card_fields(folder)
        for name, folder in sources.items()
    }
    licences = {name: str(fields.get("license", "not named")) for name, fields in cards.items()}
    same = set(licences.values())
    fields = {
        "license": same.pop() if len(same) == 1 and "not named" not in same else "other",
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "base_model": list(cards),
        "tags": ["medical", "custom_code", "omniv-med"],
    }
    rows = "\n".join(f"| `{name}` | {licence} |" for name, licence in licences.items())
    text = f"""---
{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---

# {out.name}

The encoder of the first and the language model of the second; **the projector between them is untrained**, so it must
be trained before it can tell anything of a picture. **Research only; not a medical device.**

| source | licence |
| --- | --- |
{rows}

```python
from transformers import AutoModelForImageTextToText, AutoProcessor
processor = AutoProcessor.from_pretrained("PATH", trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained("PATH", trust_remote_code=True)
```
"""
    with write_atomically(out / "README.md") as part:
        part.write_text(text, encoding="utf-8")
