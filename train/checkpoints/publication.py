# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What of a model's folder, and of this repository, goes to the Hugging Face Hub, and sends it.

Two lists of names say what may go. Caches, runs, keys, and data of others have no name in them, so they cannot,
wherever they lie; nor can a link, which could lead to any of these. Of the repository only files that git tracks go.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, EvalResult, HfApi, ModelCard

from train.checkpoints.assemble import AUTO_MAP
from train.checkpoints.fingerprint import fingerprint

CODE = "*_omniv_med.py"
NEEDED_OF_MODEL = ("README.md", "config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
MODEL_FILES = (
    *NEEDED_OF_MODEL,
    CODE,
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "metrics.json",
    "evidence.json",
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
    "LICENSE*",
    "NOTICE*",
)
"""Names at the top of a model's folder that may go; nothing below it does."""
SPACE_FILES = (
    "README.md",
    "LICENSE",
    "app.py",
    "requirements.txt",
    "demo/*",
    f"hub_model/{CODE}",
    "examples/media/*",
    "docs/page.png",
)
"""Paths in the repository that the Space needs, if git tracks them; the model comes from its own place on the Hub."""
PLACEHOLDER = '"PATH"'
"""What a card writes where the model's name on the Hub belongs."""
HEADLINES = {
    "SLAKE, English test questions": ("real_pictures", "sources", "slake", "all"),
    "VQA-RAD, official test questions": ("real_pictures", "sources", "vqa-rad", "all"),
    "generated test questions": ("test", "all"),
    "real files, modality": ("real_files",),
}
"""What the card gives the accuracy of, and where metrics.json holds it."""
MODEL_VARIABLE = "OMNIV_MED_MODEL"
"""By which the Space learns its model, see `app.py`."""

Parcel = dict[str, Path | bytes]
"""What goes: its path in the repository on the Hub, and the file, or the content that is written for it."""


class PublicationError(ValueError):
    """What keeps a folder from being published, in one sentence."""


def model_parcel(folder: Path, repo: str) -> Parcel:
    """All of a model's folder that goes to the Hub, its card completed.

    Raises:
        PublicationError: where the folder is no whole model, or its figures are of other weights.
    """
    if not folder.is_dir():
        raise PublicationError(f"{folder} is no folder; name that of a model.")
    files = {
        path.name: path for path in sorted(folder.iterdir()) if path.is_file() and _allowed(path.name, MODEL_FILES)
    }
    for path in files.values():
        if path.is_symlink():
            raise PublicationError(f"{path.name} is a link; put the file itself into {folder}.")
    _check_whole(folder, files)
    return {**files, "README.md": card(folder, repo).encode()}


def _allowed(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _check_whole(folder: Path, files: Mapping[str, Path]) -> None:
    """Raises `PublicationError` unless a user could load the model from these files alone."""
    if missing := [name for name in NEEDED_OF_MODEL if name not in files]:
        raise PublicationError(f"{folder} lacks {', '.join(missing)}; assemble or convert the model again.")
    config = json.loads(files["config.json"].read_text(encoding="utf-8"))
    if config.get("model_type") != "omniv_med" or config.get("auto_map") != AUTO_MAP:
        raise PublicationError(f"{folder} holds no model that trust_remote_code loads; assemble or convert it again.")
    weights = {"model.safetensors"}
    if "model.safetensors.index.json" in files:
        index = json.loads(files["model.safetensors.index.json"].read_text(encoding="utf-8"))
        weights = set(index["weight_map"].values())
    if missing := sorted(weights - files.keys()):
        raise PublicationError(f"{folder} lacks {', '.join(missing)}; the weights are not whole.")
    code = [path for name, path in files.items() if fnmatch.fnmatchcase(name, CODE)]
    imported = {f"{module}.py" for path in code for module in _relative_imports(path)}
    imported |= {f"{entry.partition('.')[0]}.py" for entry in AUTO_MAP.values()}
    if missing := sorted(imported - files.keys()):
        raise PublicationError(f"{folder} lacks {', '.join(missing)}, which its code imports.")


def _relative_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level and node.module}


def card(folder: Path, repo: str) -> str:
    """The folder's card with the model's name on the Hub, and with its figures as the Hub reads them.

    Raises:
        PublicationError: where metrics.json was measured on other weights.
    """
    text = (folder / "README.md").read_text(encoding="utf-8").replace(PLACEHOLDER, f'"{repo}"')
    metrics_file = folder / "metrics.json"
    if not metrics_file.is_file():
        return text
    metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    if metrics.get("weights_and_configuration_sha256") != fingerprint(folder):
        raise PublicationError(
            f"The figures in {metrics_file} were measured on other weights; measure again, or take the file away."
        )
    completed = ModelCard(text)
    completed.data["model_name"] = repo.partition("/")[2]
    completed.data["eval_results"] = figures(metrics)
    return str(completed)


def figures(metrics: Mapping[str, object]) -> list[EvalResult]:
    """The headline figures of metrics.json with their numbers of questions; what it does not hold is left out."""
    found = []
    for name, place in HEADLINES.items():
        measured: object = metrics
        for key in place:
            measured = measured.get(key, {}) if isinstance(measured, Mapping) else {}
        if isinstance(measured, Mapping) and "accuracy" in measured:
            found.append(
                EvalResult(
                    task_type="image-text-to-text",
                    dataset_type="omniv-med-" + "-".join(place),  # the Hub joins what has one type
                    dataset_name=f"{name} (n = {measured['count']})",
                    metric_type="accuracy",
                    metric_value=round(float(measured["accuracy"]), 4),
                )
            )
    return found


def space_parcel(root: Path) -> Parcel:
    """What of the repository the Space needs.

    Raises:
        PublicationError: where `root` is no clone of the repository.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    tracked = [name for name in listed.stdout.split("\0") if name] if listed.returncode == 0 else []
    parcel: Parcel = {}
    for name in tracked:
        path = root / name
        if _allowed(name, SPACE_FILES) and path.is_file() and not path.is_symlink():
            parcel[name] = path
    if "app.py" not in parcel:
        raise PublicationError(f"{root} is no clone of OmniV-Med's repository, from which the Space is made.")
    return parcel


def size_of(content: Path | bytes) -> int:
    """Bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def listing(title: str, parcel: Parcel) -> str:
    """All that goes, with sizes in bytes, and their sum."""
    sizes = {name: size_of(content) for name, content in sorted(parcel.items())}
    lines = [f"{size:>15,}  {name}" for name, size in sizes.items()]
    return "\n".join([title, *lines, f"{sum(sizes.values()):>15,}  in {len(sizes)} files"])


def send(api: HfApi, repo: str, parcel: Parcel, kind: str, private: bool, variables: Mapping[str, str]) -> str:
    """Creates the repository where there is none, and sends all in one commit.

    What a publication before this one left and this one does not hold, such as weights in more files, is removed.

    Args:
        kind: "model" or "space".
        private: where it is created, only its owner sees it.
        variables: of the Space.

    Returns:
        The commit's address.
    """
    is_space = kind == "space"
    sdk = "gradio" if is_space else None
    api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True, space_sdk=sdk)
    patterns = SPACE_FILES if is_space else MODEL_FILES
    stale = [name for name in api.list_repo_files(repo, repo_type=kind) if _allowed(name, patterns)]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in sorted(parcel.items())
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in stale if name not in parcel]
    for name, value in variables.items():
        api.add_space_variable(repo, name, value)
    commit = api.create_commit(repo, operations, commit_message="OmniV-Med", repo_type=kind)
    return str(commit.commit_url)
