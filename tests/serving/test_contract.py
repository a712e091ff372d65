# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the plugin promises of its inputs, without an engine: the prompt and every tensor are those of the processor."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from tests.helpers.paths import ROOT
from tests.helpers.served_media import KINDS, MEDIA, data_uri, prompt_of

pytest.importorskip("vllm", reason="runs in the environment of `make serving`")

from omniv_med_vllm import CONNECTOR, MODALITY, media
from vllm import envs
from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.cache import MultiModalProcessorOnlyCache
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY
from vllm.plugins import load_general_plugins

load_general_plugins()

VISUAL = ("pixel_values", "grid_thw", "merge_sizes", "keep_mask", "frame_positions", "patch_spacing")


def copy_with(folder: Path, processor: dict[str, Any], config: dict[str, Any]) -> Path:
    """The model's code and settings, some of them changed, without its weights."""
    shutil.copytree(ROOT / "hub_model", folder, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    for name, changes in (("processor_config.json", processor), ("config.json", config)):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(settings | changes), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["nano", "as imported weights"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Nano, and a model with the settings of converted VideoLLaMA3 weights."""
    if request.param == "nano":
        return ROOT / "hub_model"
    processor = {"min_frame_tokens": 4, "max_frame_tokens": 40, "clip_frame_tokens": None, "clip_merge_size": 1}
    processor |= {"max_clip_tokens": 600, "resample": "bicubic", "video_label": "Time {position}s:"}
    processor |= {"frame_separator": ",", "max_labels": None}
    text = {"model_type": "qwen2", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    return copy_with(tmp_path_factory.mktemp("models") / "imported", processor, {"text_config": text})


@pytest.fixture(scope="module")
def plugin(model: Path) -> Iterator[Any]:
    """vLLM's processor of the model."""
    media._reader = None  # a process serves one model; this one serves several, one after the other
    config = ModelConfig(model=str(model), trust_remote_code=True, dtype="bfloat16", max_model_len=4096)
    yield MULTIMODAL_REGISTRY.create_processor(config)
    media._reader._isolated.close()


@pytest.fixture(scope="module")
def processor(model: Path) -> Any:
    return AutoProcessor.from_pretrained(model, trust_remote_code=True)


@pytest.fixture(scope="module")
def connect(plugin: Any) -> Callable[..., Any]:
    """Makes the connector that a request with some options gets."""

    def make(media_io_kwargs: dict[str, Any] | None = None, **allowed: Any) -> Any:
        return MEDIA_CONNECTOR_REGISTRY.load(envs.VLLM_MEDIA_CONNECTOR, media_io_kwargs=media_io_kwargs, **allowed)

    return make


@pytest.fixture(scope="module")
def process(plugin: Any, processor: Any, connect: Any, files: Any) -> Callable[..., Any]:
    """What the engine would get for a message with some files."""

    def inputs(names: list[str], reading: dict[str, Any], pruning: dict[str, Any], **arguments: Any) -> Any:
        connector = connect({"image": reading, "video": reading})
        fetch = {"image_url": connector.fetch_image, "video_url": connector.fetch_video}
        items = [fetch[files[name][0]](data_uri(files[name][1])) for name in names]
        return plugin(
            prompt_of(processor, names), plugin.info.parse_mm_data({MODALITY: items}), None, pruning, **arguments
        )

    return inputs


@pytest.mark.parametrize(
    ("names", "reading", "pruning"),
    [
        (["picture"], {}, {}),
        (["slice"], {"windows": "lung"}, {}),
        (["volume"], {}, {"prune_threshold": 0.02}),
        (["volume"], {"plane": "coronal", "windows": ["lung"], "max_frames": 6}, {"keep_ratio": 0.4}),
        (["nrrd"], {"plane": "sagittal"}, {"max_visual_tokens": 50}),
        (["series"], {"spacing": [5, 2, 2]}, {"prune_rule": "previous"}),
        (["video"], {"fps": 2}, {"prune_rule": "none"}),
        (["video", "picture", "volume", "picture"], {}, {}),
    ],
    ids=str,
)
def test_prompt_and_tensors_are_those_of_the_processor(processor, process, paths, names, reading, pruning) -> None:
    clips = [{"source": paths[name], "kind": KINDS[name], **reading} for name in names]
    expected = processor(prompt_of(processor, names), clips, **pruning)
    found = process(names, reading, pruning)
    assert found["prompt_token_ids"] == expected["input_ids"][0].tolist()
    items = [item.get_data() for item in found["mm_kwargs"][MODALITY]]
    for name in VISUAL:
        rows = [item[name] if item[name].ndim and name != "grid_thw" else item[name][None] for item in items]
        assert torch.equal(torch.cat(rows), expected[name]), name
        assert rows[0].dtype == expected[name].dtype, name
    kept = [int(item["keep_mask"].sum()) for item in items]
    assert [int(place.is_embed.sum()) for place in found["mm_placeholders"][MODALITY]] == kept


def test_what_is_cached_is_used_again_and_other_options_are_another_entry(plugin, process) -> None:
    cache = MultiModalProcessorOnlyCache(plugin.info.ctx.model_config)
    first = process(["volume"], {}, {}, cache=cache)
    again = process(["picture", "volume"], {}, {}, cache=cache)
    assert again["mm_hashes"][MODALITY][1] == first["mm_hashes"][MODALITY][0]
    span = again["mm_placeholders"][MODALITY][1]
    before = first["mm_placeholders"][MODALITY][0]
    assert (
        again["prompt_token_ids"][span.offset :][: span.length]
        == first["prompt_token_ids"][before.offset :][: before.length]
    )
    hashes = {first["mm_hashes"][MODALITY][0]}
    for reading, pruning in (({"plane": "coronal"}, {}), ({}, {"keep_ratio": 0.5}), ({}, {"prune_stage": "encoder"})):
        hashes |= set(process(["volume"], reading, pruning, cache=cache)["mm_hashes"][MODALITY])
    assert len(hashes) == 4


def test_the_prune_stage_goes_with_each_clip(process) -> None:
    stages = [
        process(["volume"], {}, pruning)["mm_kwargs"][MODALITY][0]["prunes_before_encoder"].data
        for pruning in ({}, {"prune_stage": "encoder"}, {"prune_stage": "language"})
    ]
    assert [bool(stage) for stage in stages] == [False, True, False]


@pytest.mark.parametrize(
    ("reading", "pruning", "sentence"),
    [
        ({}, {"prune_stage": "late"}, "prune_stage must be"),
        ({}, {"keep_ratio": 7}, "keep_ratio must lie"),
        ({}, {"threshold": 0.1}, "Unknown option"),
        ({"limits": {"max_voxels": 10**12}}, {}, "Unknown media option"),
        ({"plane": "oblique"}, {}, "plane must be one of"),
    ],
)
def test_an_option_that_means_nothing_is_told(process, reading, pruning, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        process(["volume"], reading, pruning)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no medium at all", "not a known medical image"),
        ((MEDIA / "xray.png").read_bytes()[:900], "damaged|cut off|truncated|broken"),
        ((MEDIA / "ct_volume.nii.gz").read_bytes()[:500], "damaged|cut off|truncated|incomplete"),
    ],
)
def test_a_broken_file_gets_its_sentence_and_the_next_one_is_read(connect, content, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        connect().fetch_video(data_uri(content))
    assert connect().fetch_video(data_uri((MEDIA / "xray.png").read_bytes()))["clip"].kind == "image"


def test_a_slow_file_ends_at_the_time_limit(plugin, processor, monkeypatch) -> None:
    monkeypatch.setenv(media.READ_SECONDS, "0.001")
    reader = media.ClipReader(plugin.info.ctx.model_config, processor)
    content = data_uri((MEDIA / "ultrasound.mp4").read_bytes()).partition(",")[2]
    with pytest.raises(ValueError, match=r"takes longer than 0\.001 s"):
        reader.read(content, {})
    reader._isolated.close()


class Counted(http.server.SimpleHTTPRequestHandler):
    """Answers with a picture, and counts how often."""

    asked = 0

    def do_GET(self) -> None:
        Counted.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write((MEDIA / "xray.png").read_bytes())

    def log_message(self, *arguments: Any) -> None:
        """Keeps the tests' output quiet."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a picture on a server of this test."""
    Counted.asked = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/xray.png"
    server.shutdown()
    server.server_close()


def test_no_address_and_no_file_is_opened_unless_the_operator_allows_it(connect, address) -> None:
    picture = (MEDIA / "xray.png").as_uri()
    Counted.asked = 0  # the server is asked for each model in turn
    for url in (address, picture, str(MEDIA / "xray.png"), "data:image/png,xyz", "ftp://127.0.0.1/x"):
        for fetch in (connect().fetch_image, connect().fetch_video):
            with pytest.raises(ValueError, match=r"opens neither|must be in base64"):
                fetch(url)
    assert Counted.asked == 0
    with pytest.raises(ValueError, match="allowed domains"):
        connect(allowed_media_domains=["example.org"]).fetch_image(address)
    assert Counted.asked == 0
    assert connect(allowed_media_domains=["127.0.0.1"]).fetch_image(address)["clip"].kind == "image"
    assert connect(allowed_local_media_path=str(MEDIA)).fetch_image(picture)["clip"].kind == "image"
    for outside in ((ROOT / "README.md").as_uri(), (MEDIA / "nothing.png").as_uri()):
        with pytest.raises(ValueError, match=r"must be a subpath|no file that the server can read"):
            connect(allowed_local_media_path=str(MEDIA)).fetch_image(outside)


def test_words_cannot_pass_for_a_medium(plugin, process, connect, files) -> None:
    item = connect().fetch_image(data_uri(files["picture"][1]))
    with pytest.raises(ValueError, match="2 media placeholders, but 1 media"):
        plugin("<|media_pad|> <|media_pad|>", plugin.info.parse_mm_data({MODALITY: [item]}))


def test_the_largest_request_that_memory_is_measured_by_fits_the_context(plugin, processor) -> None:
    largest = plugin.get_dummy_mm_inputs({MODALITY: 1})
    place = largest["mm_placeholders"][MODALITY][0]
    most = processor.max_clip_tokens or 4096
    assert most / 4 < int(place.is_embed.sum()) <= most


def test_other_models_keep_their_own_connector() -> None:
    assert "http" in MEDIA_CONNECTOR_REGISTRY.name2class
    assert MEDIA_CONNECTOR_REGISTRY.name2class[CONNECTOR] is media.IsolatedMediaConnector
