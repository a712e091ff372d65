# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Trains one stage of the recipe, on one device or, under accelerate, on several.

    python -m train.run --config train/configs/nano/stage1.yaml
    accelerate launch -m train.run --config train/configs/7b/stage3.yaml

It can be stopped at any moment, by force too; started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from train.config import StageConfig
from train.stage import run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML file of the stage; train/config.py explains it"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="fields that go before the file's, such as steps=20 or data.workers=4",
    )
    arguments = parser.parse_args()
    try:
        run_stage(StageConfig.read(arguments.config, arguments.set))
    except ValueError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
