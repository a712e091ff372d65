# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Other projects' models become ours: the same logits and answers on the same pixels, and what does not fit is said.

The reference is transformers' own VideoLlama3 with the same tensors; checkpoints in other layouts are written from
these under their names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, VideoLlama3Processor
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from hub_model.configuration_omniv_med import OmniVMedConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from tests.helpers.foreign_models import SYSTEM, foreign_tokenizer, write_foreign
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import PATCH_SIZE
from tests.helpers.training_fixtures import write_set
from train.checkpoints.conversion import convert
from train.checkpoints.merge import load_base, merged, write_merged
from train.checkpoints.vision_encoder import CheckpointError
from train.config import StageConfig
from train.convert import main
from train.stage import run_stage

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = {"prune_rule": "none"}
PROJECTS = [
    ("transformers", "qwen2"),
    ("transformers", "qwen3"),
    ("videollama3", "qwen2"),
    ("hulumed", "qwen3"),
    ("older hulumed", "qwen2"),
]


def silent(sentence: str) -> None:
    """Where a conversion reports to."""


@pytest.fixture(scope="module", params=PROJECTS, ids=" ".join)
def converted(request, tmp_path_factory) -> SimpleNamespace:
    """A converted model and the reference; heads tied and not, in one file and in several."""
    layout, language = request.param
    folder = tmp_path_factory.mktemp("converted")
    tied = language == "qwen2"
    theirs = write_foreign(folder / "theirs", layout, language, tied, shards=3 if tied else 1)
    convert(str(folder / "theirs"), folder / "ours", None, silent)
    model = AutoModelForImageTextToText.from_pretrained(folder / "ours", trust_remote_code=True, dtype="auto")
    processor = AutoProcessor.from_pretrained(folder / "ours", trust_remote_code=True)
    return SimpleNamespace(theirs=theirs, model=model.eval(), processor=processor, folder=folder, layout=layout)


def conversation(*parts: Any) -> list[dict[str, Any]]:
    """One user message of texts, pictures (arrays of three axes) and videos (of four)."""
    content = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            kind = "image" if part.ndim == 3 else "video"
            content.append({"type": kind, kind: part})
    return [{"role": "user", "content": content}]


def prepare(processor: Any, conversations: list, **options: Any) -> dict[str, torch.Tensor]:
    return processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, processor_kwargs=options
    )


def for_transformers(inputs: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """The same inputs for transformers' class, which keeps pictures and videos apart; a clip of one frame is one."""
    ids = inputs["input_ids"].clone()
    patches = inputs["grid_thw"].prod(dim=1)
    tokens = patches // inputs["merge_sizes"] ** 2
    is_video = inputs["merge_sizes"] == 2
    kept = torch.tensor([int(part.sum()) for part in inputs["keep_mask"].split(tokens.tolist())])
    places = (ids == model.config.image_token_id).nonzero()
    video_places = places[is_video.repeat_interleave(kept)]
    ids[tuple(video_places.T)] = model.config.video_token_id
    found = {"input_ids": ids, "attention_mask": inputs["attention_mask"]}
    for chosen, pixels, kind in ((~is_video, "pixel_values", "image"), (is_video, "pixel_values_videos", "video")):
        if chosen.any():
            found[pixels] = inputs["pixel_values"][chosen.repeat_interleave(patches)]
            found[f"{kind}_grid_thw"] = inputs["grid_thw"][chosen]
            found[f"{kind}_merge_sizes"] = inputs["merge_sizes"][chosen]
    if is_video.any():
        found["video_compression_mask"] = inputs["keep_mask"][is_video.repeat_interleave(tokens)]
    return found


def cases(picture: Any, film: Any) -> dict[str, list]:
    return {
        "one picture": [conversation(picture(1), "What is it?")],
        "several": [conversation(picture(1), "and", picture(2, 16, 24), "What changed?")],
        "a video": [conversation(film(frames=5), "What moves?")],
        "a padded batch": [
            conversation(picture(1), "What is it?"),
            conversation(picture(2), film(frames=4), "Which is it, and why is that so?"),
            conversation("Two and two?"),
        ],
    }


CASES = ("one picture", "several", "a video", "a padded batch")


@torch.no_grad()
@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
@pytest.mark.parametrize("case", CASES)
def test_the_logits_are_those_of_transformers(converted, picture, film, case, pruned) -> None:
    inputs = prepare(converted.processor, cases(picture, film)[case], **({} if pruned else ALL))
    if pruned and "video" in case:
        assert not inputs["keep_mask"].all()
    ours = converted.model(**inputs).logits
    theirs = converted.theirs(**for_transformers(inputs, converted.theirs)).logits
    attended = inputs["attention_mask"].bool()
    assert theirs[attended].std() > 0.1
    torch.testing.assert_close(ours[attended], theirs[attended], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", ["several", "a video", "a padded batch"])
def test_greedy_answers_are_those_of_transformers(converted, picture, film, case) -> None:
    inputs = prepare(converted.processor, cases(picture, film)[case], **ALL)
    greedy = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False}
    ours = converted.model.generate(**inputs, **greedy)
    theirs = converted.theirs.generate(**for_transformers(inputs, converted.theirs), **greedy)
    start = inputs["input_ids"].shape[1]
    assert torch.equal(ours[:, start:], theirs[:, start:])
    assert ours.shape[1] == start + 32


@torch.no_grad()
def test_in_a_batch_of_mixed_media_each_answers_as_alone(converted, picture, film) -> None:
    """What users of these models miss: their own code takes one conversation at a time."""
    together = cases(picture, film)["a padded batch"]
    batch = converted.model(**prepare(converted.processor, together)).logits[:, -1]
    for row, one in zip(batch, together, strict=True):
        alone = converted.model(**prepare(converted.processor, [one])).logits[0, -1]
        torch.testing.assert_close(row, alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("lora", [True, False], ids=["factors", "in full"])
def test_a_converted_model_is_trained_with_pruning_on(tmp_path, film, lora) -> None:
    """And keeps its own wording and processor."""
    write_foreign(tmp_path / "theirs")
    convert(str(tmp_path / "theirs"), tmp_path / "ours", None, silent)
    for split in ("train", "validation"):
        write_set(tmp_path / "data", split)
    changes = [f"data.folders=[{tmp_path / 'data'}]", f"model={tmp_path / 'ours'}", f"output={tmp_path / 'stage'}"]
    changes += ["data.cache=null", "data.workers=0", "epochs=null", "steps=1", "gradient_accumulation=1", "bf16=false"]
    changes += ["evaluation.records=2", "data.shares={2d: 0.5, video: 0.5}", "learning_rates.language=0.01"]
    changes += ["data.text_replay=null", *(["lora={rank: 2}"] if lora else [])]
    trained = run_stage(StageConfig.read(ROOT / "train" / "configs" / "7b" / "stage3.yaml", changes))
    if lora:
        write_merged(merged(load_base(tmp_path / "ours"), trained), tmp_path / "ours", tmp_path / "merged")
        trained = tmp_path / "merged"
    before = OmniVMedForConditionalGeneration.from_pretrained(tmp_path / "ours")
    after = OmniVMedForConditionalGeneration.from_pretrained(trained)
    layer = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before.state_dict()[layer], after.state_dict()[layer])
    processors = [AutoProcessor.from_pretrained(path, trust_remote_code=True) for path in (tmp_path / "ours", trained)]
    messages = conversation(film(), "What moves?")
    prompts = [prepare(processor, messages)["input_ids"].tolist() for processor in processors]
    assert prompts[0] == prompts[1]


# The prompt and the processor


def test_the_prompt_has_their_wording(converted, picture) -> None:
    messages = conversation(picture(), "What is it?")
    prompt = converted.processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt == f"<|im_start|>user\n{MEDIA_TOKEN}\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
    with_system = converted.processor.apply_chat_template(messages, add_system_prompt=True)
    assert with_system.startswith(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")


def test_a_text_part_with_empty_keys_beside_it_is_text(converted) -> None:
    """Data sets in columns give every part all keys."""
    content = [{"type": "text", "text": "What?", "image": None, "video": None}]
    assert MEDIA_TOKEN not in converted.processor.apply_chat_template([{"role": "user", "content": content}])


def test_a_video_is_written_as_transformers_writes_it(converted, film) -> None:
    clip = converted.processor.load(film(frames=5), kind="video", spacing=0.7)
    processed = converted.processor.process_clip(clip, prune_threshold=0.02)
    assert 0 < processed.pruned.keep_mask.sum() < processed.pruned.keep_mask.numel()
    kept = processed.pruned.keep_mask.clone()
    kept[:, -1] = True  # theirs keeps a token of every frame
    theirs = SimpleNamespace(video_token=MEDIA_TOKEN)
    inputs = {
        "video_grid_thw": torch.tensor([[5, processed.grid[0] * 2, processed.grid[1] * 2]]),
        "video_merge_sizes": torch.tensor([2]),
        "video_compression_mask": kept.flatten(),
        "video_metadata": [SimpleNamespace(fps=1 / 0.7, timestamps=clip.positions.tolist())],
    }
    expected = VideoLlama3Processor.replace_video_token(theirs, inputs, 0)
    pruned = type(processed.pruned)(**vars(processed.pruned) | {"keep_mask": kept})
    labels = converted.processor._labels(clip, kept)
    again = type(processed)(**vars(processed) | {"pruned": pruned, "labels": labels})
    assert converted.processor.placeholder_text(again) == expected


def test_slices_of_a_volume_are_set_apart_without_times(converted) -> None:
    volume = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    processed = converted.processor.process_clip(converted.processor.load(volume, kind="volume", spacing=(5, 1, 1)))
    text = converted.processor.placeholder_text(processed)
    assert text.replace(MEDIA_TOKEN, "") == ",,"


@pytest.mark.parametrize("size", [(24, 16), (17, 30), (21, 31)])
def test_a_picture_becomes_the_patches_of_transformers(converted, size) -> None:
    """But for Pillow's rounding to whole grey levels after either axis."""
    rows, columns = np.indices(size)
    smooth = (127 + 100 * np.sin(rows / 5) * np.cos(columns / 7)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    ours = converted.processor(text=MEDIA_TOKEN, images=[smooth])
    options = converted.processor
    area = PATCH_SIZE**2
    theirs = VideoLlama3ImageProcessorPil(
        patch_size=PATCH_SIZE,
        size={"shortest_edge": options.min_frame_tokens * area, "longest_edge": options.max_frame_tokens * area},
    )(images=[Image.fromarray(smooth)], return_tensors="pt")
    assert ours["grid_thw"].tolist() == theirs["image_grid_thw"].tolist()
    assert (ours["pixel_values"] - theirs["pixel_values"]).abs().max() <= 2.5 / 127.5


def test_the_settings_come_along(converted) -> None:
    processor = converted.processor
    assert (processor.merge_size, processor.clip_merge_size, processor.resample) == (1, 2, "bicubic")
    assert (processor.min_frame_tokens, processor.max_frame_tokens) == (4, 48)
    assert (processor.max_frames, processor.fps) == (9, 1.0)
    assert processor.max_clip_tokens == (24 if converted.layout == "transformers" else 48)
    generation = converted.model.generation_config
    assert (generation.do_sample, generation.temperature) == (True, 0.7)
    assert generation.eos_token_id == processor.tokenizer.eos_token_id
    theirs = foreign_tokenizer("<|image_pad|>" if converted.layout == "transformers" else "<image>")
    text = "An X-ray, 3 µm: 胸部<|im_end|>\n"
    assert processor.tokenizer(text).input_ids == theirs(text).input_ids
    assert processor.image_token_id == converted.model.config.image_token_id == converted.theirs.config.image_token_id


def test_the_card_names_whose_weights_they_are_and_their_licence(converted) -> None:
    text = (converted.folder / "ours" / "README.md").read_text(encoding="utf-8")
    fields = yaml.safe_load(text.split("---")[1])
    assert (fields["license"], fields["base_model"], fields["language"]) == ("cc-by-nc-4.0", "theirs", ["en", "zh"])


# Weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_number_format_is_chosen(tmp_path, dtype) -> None:
    theirs = write_foreign(tmp_path / "theirs")
    convert(str(tmp_path / "theirs"), tmp_path / "ours", dtype, silent)
    model = OmniVMedForConditionalGeneration.from_pretrained(tmp_path / "ours", dtype="auto")
    assert model.dtype == dtype
    assert model.lm_head.weight is model.get_input_embeddings().weight
    expected = theirs.get_input_embeddings().weight.to(dtype)
    assert torch.equal(model.get_input_embeddings().weight, expected)


def test_a_head_beside_the_embedding_that_it_is_tied_to_is_left_out(tmp_path) -> None:
    theirs = write_foreign(tmp_path / "theirs", shards=1)
    file = tmp_path / "theirs" / "model.safetensors"
    save_file(load_file(file) | {"lm_head.weight": theirs.lm_head.weight.detach().clone()}, file)
    convert(str(tmp_path / "theirs"), tmp_path / "ours", None, silent)
    with safe_open(tmp_path / "ours" / "model.safetensors", framework="pt") as tensors:
        assert "lm_head.weight" not in tensors.keys()  # noqa: SIM118 - it is no dictionary


def test_what_is_unknown_missing_or_misshapen_is_listed_at_once(tmp_path) -> None:
    write_foreign(tmp_path / "theirs", shards=1)
    file = tmp_path / "theirs" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.projector.readout.0.bias"]
    tensors["model.language_model.norm.weight"] = torch.zeros(3)
    tensors["audio_tower.weight"] = torch.zeros(3)
    tensors["model.language_model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(3)  # every model computes it
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as refused:
        convert(str(tmp_path / "theirs"), tmp_path / "ours", None, silent)
    message = str(refused.value)
    assert "1 unknown (audio_tower.weight)" in message
    assert "1 missing (model.projector.readout.0.bias)" in message
    assert "1 of another shape (model.language_model.norm.weight (3,), not (32,))" in message
    assert "inv_freq" not in message
    assert not (tmp_path / "ours").exists()


def test_a_conversion_that_was_stopped_goes_on(tmp_path) -> None:
    write_foreign(tmp_path / "theirs")
    finished: list[str] = []

    def stop_after_two(sentence: str) -> None:
        finished.append(sentence)
        if len(finished) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(str(tmp_path / "theirs"), tmp_path / "ours", None, stop_after_two)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "ours").glob("*.safetensors")}
    assert len(before) == 2
    sentences: list[str] = []
    convert(str(tmp_path / "theirs"), tmp_path / "ours", None, sentences.append)
    assert [sentence.endswith("finished already.") for sentence in sentences] == [True, True, False]
    convert(str(tmp_path / "theirs"), tmp_path / "at_once", None, silent)
    for file in (tmp_path / "at_once").iterdir():
        assert (tmp_path / "ours" / file.name).read_bytes() == file.read_bytes(), file.name
    assert {file.name for file in (tmp_path / "ours").iterdir()} == {f.name for f in (tmp_path / "at_once").iterdir()}
    for name, written in before.items():
        assert (tmp_path / "ours" / name).stat().st_mtime_ns == written


def test_an_unfinished_conversion_does_not_go_on_with_other_weights(tmp_path) -> None:
    write_foreign(tmp_path / "theirs")

    def stop(sentence: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(str(tmp_path / "theirs"), tmp_path / "ours", None, stop)
    with pytest.raises(CheckpointError, match="unfinished conversion of other weights"):
        convert(str(tmp_path / "theirs"), tmp_path / "ours", torch.bfloat16, silent)


def test_the_checkpoint_s_own_code_is_neither_run_nor_asked_about(tmp_path, monkeypatch) -> None:
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": questions.append(question) or "y")
    write_foreign(tmp_path / "theirs", "hulumed")
    (tmp_path / "theirs" / "configuration.py").write_text("raise AssertionError('this ran')\n")
    convert(str(tmp_path / "theirs"), tmp_path / "ours", None, silent)
    assert questions == []


def spoil_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def spoil_processor(folder: Path, **fields: Any) -> None:
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"] |= fields
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: spoil_config(folder, model_type="qwen3_vl_moe"), "of type 'qwen3_vl_moe'"),
        (lambda folder: spoil_config(folder, model_type="omniv_med"), "of this project already"),
        (lambda folder: (folder / "model-00002-of-00003.safetensors").unlink(), "lacks model-00002-of-00003"),
        (lambda folder: (folder / "model-00002-of-00003.safetensors").write_bytes(b"cut off"), "cannot be read"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].role }}"), "does not write one"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: spoil_processor(folder, image_mean=[0.48, 0.46, 0.41]), "image_mean is"),
        (lambda folder: spoil_processor(folder, temporal_patch_size=2), "temporal patches"),
    ],
)
def test_what_cannot_be_converted_is_refused_before_anything_is_written(tmp_path, spoil, sentence) -> None:
    write_foreign(tmp_path / "theirs")
    spoil(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match=sentence):
        convert(str(tmp_path / "theirs"), tmp_path / "ours", None, silent)
    assert not (tmp_path / "ours").exists()


def test_quantised_weights_are_refused(tmp_path) -> None:
    write_foreign(tmp_path / "theirs", shards=1)
    file = tmp_path / "theirs" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor.to(torch.int8) for name, tensor in tensors.items()}, file)
    with pytest.raises(CheckpointError, match="quantised"):
        convert(str(tmp_path / "theirs"), tmp_path / "ours", None, silent)


def test_a_source_that_says_nothing_of_its_processor_gets_videollama3_s(tmp_path) -> None:
    write_foreign(tmp_path / "theirs", "hulumed")
    for name in ("preprocessor_config.json", "processor_config.json"):
        (tmp_path / "theirs" / name).unlink()
    convert(str(tmp_path / "theirs"), tmp_path / "ours", None, silent)
    processor = AutoProcessor.from_pretrained(tmp_path / "ours", trust_remote_code=True)
    assert (processor.merge_size, processor.clip_merge_size, processor.max_frames) == (1, 2, 180)
    assert "says nothing of its image processor" in (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")


def test_the_command_converts_and_says_what_is_wrong(tmp_path, monkeypatch, capsys) -> None:
    write_foreign(tmp_path / "theirs")
    line = ["convert", "--source", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours"), "--dtype", "bfloat16"]
    monkeypatch.setattr(sys, "argv", line)
    main()
    assert "from_pretrained loads it" in capsys.readouterr().out
    assert OmniVMedConfig.from_pretrained(tmp_path / "ours").dtype == torch.bfloat16
    with pytest.raises(SystemExit, match=r"^Error: .* is not empty; name a new folder"):
        main()
