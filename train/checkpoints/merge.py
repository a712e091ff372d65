# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Merges LoRA factors into a model's weights.

    python -m train.checkpoints.merge --model BASE --adapter LORA --out FOLDER

The result is a folder of its own that `from_pretrained` loads with trust_remote_code and without peft, as fast as the
model was before (Hu et al., LoRA, arXiv 2106.09685, section 4.1).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from peft import PeftModel

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.checkpoints.assemble import AUTO_MAP, HUB_MODEL, STAMP
from train.checkpoints.trained_tensors import load_parts, merge_lora, read_trained_tensors

PEFT_CONFIG = "adapter_config.json"
TRAINED_FILE = "trained.safetensors"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.gguf", "adapter_*", STAMP, "*.part", "__pycache__")
"""What is not taken over from the base model's folder."""


def load_base(folder: Path) -> OmniVMedForConditionalGeneration:
    """The base model in the number format of its weights.

    Raises:
        ValueError: where the folder holds no OmniV-Med model.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"{folder} is no folder of a model: it holds no config.json.")
    if json.loads(config.read_text(encoding="utf-8")).get("model_type") != "omniv_med":
        raise ValueError(f"{folder} holds another kind of model; name a folder with an OmniV-Med model.")
    if (folder / PEFT_CONFIG).exists():
        raise ValueError(f"{folder} holds an adapter itself; name the folder of the model it was trained on.")
    try:
        return OmniVMedForConditionalGeneration.from_pretrained(folder, dtype="auto")
    except OSError as error:
        raise ValueError(f"{folder} holds no weights that can be read: {error}") from None


def merged(model: OmniVMedForConditionalGeneration, adapter: Path) -> OmniVMedForConditionalGeneration:
    """Adds an adapter to the model's weights, in place.

    Args:
        adapter: a folder that PEFT saved, or what a stage of the recipe left: `trained.safetensors` or its folder.

    Raises:
        ValueError: where the adapter cannot be read or belongs to another model.
    """
    file = adapter / TRAINED_FILE if adapter.is_dir() else adapter
    if (adapter / PEFT_CONFIG).is_file():
        try:
            return PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(f"{adapter} does not fit this model: {str(error).splitlines()[0]}") from None
    if not file.is_file():
        raise ValueError(f"{adapter} holds neither {PEFT_CONFIG} (as PEFT saves) nor {TRAINED_FILE} (as train.run).")
    tensors, scaling = read_trained_tensors(file)
    load_parts(model, tensors)
    try:
        merge_lora(model, tensors, scaling)
    except (AttributeError, RuntimeError):
        raise ValueError(f"{file} holds LoRA factors of other layers than this model has.") from None
    return model


def write_merged(model: OmniVMedForConditionalGeneration, base: Path, out: Path) -> None:
    """Writes weights, and all else from the base model's folder; the code and its registration are always complete.

    Written beside its place and renamed when whole, so that an interrupted run leaves no half model.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(base, part, ignore=shutil.ignore_patterns(*WEIGHTS))
    for code in HUB_MODEL.glob("*_omniv_med.py"):
        if not (part / code.name).exists():
            shutil.copy(code, part)
    model.config.auto_map = AUTO_MAP
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(part)
    path = part / "config.json"  # save_pretrained keeps only the last of the classes in auto_map
    config = json.loads(path.read_text(encoding="utf-8")) | {"auto_map": AUTO_MAP}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that the adapter was trained on")
    parser.add_argument(
        "--adapter", type=Path, required=True, help="folder that PEFT saved, or that of a finished stage of train.run"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    arguments = parser.parse_args()
    try:
        if arguments.out.exists():
            raise ValueError(f"{arguments.out} exists already; name a new folder.")
        model = merged(load_base(arguments.model), arguments.adapter)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_merged(model, arguments.model, arguments.out)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    print(f"{arguments.out} holds the merged model.")


if __name__ == "__main__":
    main()
