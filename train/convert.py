# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Converts VideoLLaMA3, Hulu-Med, and what else has this encoder, into a folder that `from_pretrained` loads as ours.

    python -m train.convert --source ZJU-AI4H/Hulu-Med-7B --out models/hulu-med-7b
    python -m train.convert --source DAMO-NLP-SG/SigLIP-NaViT --language Qwen/Qwen2.5-1.5B-Instruct --out models/it

Stopped, it goes on when it is started again. With `--language` the source gives the encoder alone, the projector
starts untrained, and the weights are float32 for its training, unless `--dtype` says otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from train.checkpoints.conversion import convert
from train.checkpoints.joining import join
from train.checkpoints.shards import CODES

DTYPES = {str(kind).removeprefix("torch."): kind for kind in CODES.values()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="folder or Hub name of a model")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, help="number format of the weights (default: as they are)")
    parser.add_argument("--language", help="folder or Hub name of a causal language model for the source's encoder")
    arguments = parser.parse_args()
    try:
        if arguments.language is None:
            convert(arguments.source, arguments.out, DTYPES.get(arguments.dtype), print)
        else:
            dtype = DTYPES.get(arguments.dtype, torch.float32)
            join(arguments.source, arguments.language, arguments.out, dtype, {"max_frame_tokens": 256}, print)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    print(f"{arguments.out} holds the model; from_pretrained loads it.")


if __name__ == "__main__":
    main()
