# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Sends a model's folder to the Hugging Face Hub, and the page as a Space.

    python -m train.publish --repo USER/NAME --dry-run                    # what would go, with sizes
    python -m train.publish --repo USER/NAME --space USER/NAME-demo

Only what two lists name can go (`train/checkpoints/publication.py`). The Hub knows you by `hf auth login`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from train.checkpoints.assemble import HUB_MODEL, ROOT
from train.checkpoints.publication import MODEL_VARIABLE, listing, model_parcel, send, space_parcel


def repository(text: str) -> str:
    """A name on the Hub with its owner's."""
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if text.count("/") != 1:
        raise argparse.ArgumentTypeError(f"write USER/NAME, not {text!r}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=repository, required=True, help="USER/NAME of the model on the Hub")
    parser.add_argument("--model", type=Path, default=HUB_MODEL, help="folder of the model (default: hub_model)")
    parser.add_argument("--space", type=repository, help="USER/NAME of a Space that shows the page with this model")
    parser.add_argument("--private", action="store_true", help="where they are created, only you see them")
    parser.add_argument("--dry-run", action="store_true", help="list what would go, and send nothing")
    arguments = parser.parse_args()
    try:
        model = model_parcel(arguments.model, arguments.repo)
        space = space_parcel(ROOT) if arguments.space else {}
        print(listing(f"Model {arguments.repo}", model))
        if space:
            print(listing(f"Space {arguments.space}", space))
        if arguments.dry_run:
            print("Nothing was sent.")
            return
        api = HfApi()
        print(send(api, arguments.repo, model, "model", arguments.private, {}))
        if space:
            variables = {MODEL_VARIABLE: arguments.repo}
            print(send(api, arguments.space, space, "space", arguments.private, variables))
    except LocalTokenNotFoundError:
        sys.exit("Error: the Hub does not know you yet; run `hf auth login` first.")
    except (ValueError, HfHubHTTPError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
