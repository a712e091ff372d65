# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A model's folder and the Space go to the Hub: all that is needed, nothing else; what arrives works as README says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.helpers.hub_server import hub_server
from tests.helpers.paths import HUB_MODEL, ROOT
from train.checkpoints.fingerprint import fingerprint
from train.checkpoints.publication import (
    HEADLINES,
    PublicationError,
    card,
    figures,
    listing,
    model_parcel,
    space_parcel,
)
from train.publish import main

REPO, SPACE = "someone/omniv-med-tiny", "someone/omniv-med-demo"
CARD = """---
license: apache-2.0
library_name: transformers
---

# Tiny

processor = AutoProcessor.from_pretrained("PATH", trust_remote_code=True)
"""


@pytest.fixture
def folder(tmp_path, tiny) -> Path:
    """A model's folder with figures, and with much beside it that is nobody's business."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    measured = {"test": {"all": {"accuracy": 0.8487, "count": 2545}}, "real_files": {"accuracy": 31 / 38, "count": 38}}
    measured |= {"real_pictures": {"sources": {"slake": {"all": {"accuracy": 0.69408, "count": 1059}}}}}
    measured |= {"weights_and_configuration_sha256": fingerprint(folder)}
    (folder / "metrics.json").write_text(json.dumps(measured))
    for name in (
        ".env",
        ".assembled.json",
        "id_rsa",
        "token",
        "optimizer.pt",
        "training_args.bin",
        "ct_of_somebody.nii.gz",
        "__pycache__/modeling_omniv_med.cpython-311.pyc",
        "runs/events.1",
        ".cache/huggingface/x.lock",
        "checkpoint-100/model.safetensors",
        "notes.md",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not for others")
    return folder


def test_only_what_is_listed_goes(folder):
    parcel = model_parcel(folder, REPO)
    code = {path.name for path in HUB_MODEL.glob("*_omniv_med.py")}
    assert parcel.keys() == code | {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "metrics.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_space_gets_what_the_page_needs_and_git_tracks():
    parcel = space_parcel(ROOT)
    assert {"README.md", "app.py", "requirements.txt", "LICENSE", "demo/__main__.py"} <= parcel.keys()
    assert not [name for name in parcel if name.endswith((".safetensors", ".pyc")) or name.startswith(".")]
    rooms = {name.partition("/")[0] for name in parcel if "/" in name}
    assert rooms == {"demo", "hub_model", "examples", "docs"}
    settings = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert settings["app_file"] in parcel


def test_the_space_comes_from_a_clone_only(tmp_path):
    with pytest.raises(PublicationError, match="no clone"):
        space_parcel(tmp_path)


def test_the_card_has_the_name_on_the_hub_and_the_measured_figures(folder):
    text = card(folder, REPO)
    assert f'from_pretrained("{REPO}"' in text
    (index,) = yaml.safe_load(text.split("---")[1])["model-index"]
    assert index["name"] == "omniv-med-tiny"
    measured = {one["dataset"]["name"]: one["metrics"][0]["value"] for one in index["results"]}
    assert measured == {
        "SLAKE, English test questions (n = 1059)": 0.6941,
        "generated test questions (n = 2545)": 0.8487,
        "real files, modality (n = 38)": 0.8158,
    }


def test_every_headline_of_the_card_is_in_the_nano_s_figures():
    metrics = json.loads((HUB_MODEL / "metrics.json").read_text(encoding="utf-8"))
    assert len(figures(metrics)) == len(HEADLINES)


def test_figures_of_other_weights_are_refused(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"weights_and_configuration_sha256": "0"}))
    with pytest.raises(PublicationError, match="measured on other weights"):
        model_parcel(folder, REPO)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), r"lacks model\.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"lacks tokenizer\.json"),
        (lambda folder: (folder / "clip_omniv_med.py").unlink(), r"lacks clip_omniv_med\.py, which its code imports"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no model that trust_remote_code loads"),
        (lambda folder: (folder / "LICENSE").symlink_to("/etc/hostname"), "LICENSE is a link"),
        (shutil.rmtree, "is no folder"),
    ],
)
def test_what_would_not_load_or_is_not_in_the_folder_is_refused(folder, spoil, sentence):
    spoil(folder)
    with pytest.raises(PublicationError, match=sentence):
        model_parcel(folder, REPO)


def test_a_dry_run_lists_exactly_what_would_go(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["publish", "--repo", REPO, "--model", str(folder), "--space", SPACE, "--dry-run"])
    main()
    printed = capsys.readouterr().out
    assert printed.endswith("Nothing was sent.\n")
    for title, parcel in ((f"Model {REPO}", model_parcel(folder, REPO)), (f"Space {SPACE}", space_parcel(ROOT))):
        assert listing(title, parcel) in printed
    size = (folder / "model.safetensors").stat().st_size
    assert f"{size:>15,}  model.safetensors\n" in printed


@pytest.mark.parametrize("name", ["no-owner", "a/b/c", "spaces are/bad"])
def test_a_name_without_its_owner_is_refused(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["publish", "--repo", name, "--dry-run"])
    with pytest.raises(SystemExit):
        main()
    assert "--repo" in capsys.readouterr().err


def publish(address: str, *arguments: str, token: str = "hf_test") -> subprocess.CompletedProcess:
    """Runs the command against a Hub."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token}
    line = [sys.executable, "-m", "train.publish", "--repo", REPO, *arguments]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


README_ON_THE_HUB = """
import os, sys
os.chdir({media!r})
exec(compile({code!r}, "README", "exec"), {{}})
"""


def test_what_arrives_is_what_was_listed_and_works_as_the_readme_says(folder, tmp_path):
    with hub_server(tmp_path / "hub") as hub:
        stale = hub.repository("model", REPO)
        stale.mkdir(parents=True)
        (stale / "model-00001-of-00002.safetensors").write_text("of the time before")
        (stale / "discussion.txt").write_text("of somebody else")
        done = publish(hub.address, "--model", str(folder), "--space", SPACE, "--private")
        assert done.returncode == 0, done.stderr
        assert f"/{REPO}/commit/" in done.stdout
        assert hub.files("model", REPO) == {*model_parcel(folder, REPO), "discussion.txt"}
        assert hub.files("space", SPACE) == set(space_parcel(ROOT))
        assert [(one["type"], one["visibility"], one.get("sdk")) for one in hub.created] == [
            ("model", "private", None),
            ("space", "private", "gradio"),
        ]
        assert hub.variables == {SPACE: {"OMNIV_MED_MODEL": REPO}}
    arrived = hub.repository("model", REPO)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "modeling_omniv_med.py"):
        assert (arrived / name).read_bytes() == (folder / name).read_bytes()
    # In a process that knows nothing of the project, from another folder.
    tokens = MarkdownIt().parse((ROOT / "README.md").read_text(encoding="utf-8"))
    code = "".join(token.content for token in tokens if token.type == "fence" and token.info == "python")
    code = code.replace('"hub_model"', repr(str(arrived))).replace("examples/media", str(ROOT / "examples" / "media"))
    script = README_ON_THE_HUB.format(media=str(tmp_path), code=code)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_a_hub_that_refuses_is_told_in_a_sentence(folder, tmp_path):
    with hub_server(tmp_path / "hub") as hub:
        done = publish(hub.address, "--model", str(folder), token="hf_other")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert hub.files("model", REPO) == set()
