# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""lmms-eval asks the model its own kinds of tasks: by its command on a small local task, and request by request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import PROCESSOR_OPTIONS
from tests.helpers.waiting import PATIENCE

pytest.importorskip(
    "lmms_eval",
    reason="lmms-eval is missing: pip install --no-deps -r requirements-lmms-eval.txt",
)

from lmms_eval.api.instance import Instance
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from PIL import Image

from data_engine.adapters.base import MediaStore
from data_engine.generated import SamplePlan, records_of
from data_engine.records import Record
from evaluation.lmms_eval_adapter import OmniVMedChat, OmniVMedSimple, StopStrings, generation_options, stop_strings
from train.checkpoints.assemble import write_configuration

CHOICES = ["CT", "MRI", "ultrasound"]
TASK = {
    "dataset_path": "json",
    "test_split": "test",
    "doc_to_visual": "media",
    "doc_to_text": "question",
    "doc_to_target": "answer",
}
GENERATED_TASK = TASK | {
    "task": "generated_answers",
    "output_type": "generate_until",
    "generation_kwargs": {"max_new_tokens": 6, "temperature": 0, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOICE_TASK = TASK | {
    "task": "generated_choices",
    "output_type": "multiple_choice",
    "doc_to_choice": CHOICES,
    "doc_to_target": "choice",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, make_model, tokenizer) -> Path:
    """A tiny model's folder."""
    folder = tmp_path_factory.mktemp("tiny")
    model = make_model()
    write_configuration(folder, model, tokenizer, PROCESSOR_OPTIONS | {"max_frame_tokens": 16, "max_frames": 4})
    model.save_pretrained(folder)
    return folder


def row(record: Record, folder: Path) -> dict:
    return {
        "question": record.question,
        "answer": record.answer,
        "media": str(folder / record.media[0].path),
    }


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> list[dict]:
    """Questions about a generated volume, pictures and a film, each in a file."""
    folder = tmp_path_factory.mktemp("media")
    store = MediaStore(folder)
    kinds = {"image": 2, "volume": 1, "video": 1}
    found = []
    for index in range(100):
        drawn = SamplePlan(1, "test", index)
        if kinds[drawn.kind_of[1]]:
            kinds[drawn.kind_of[1]] -= 1
            found.append(row(records_of(drawn, store)[0], folder))
    assert {Path(one["media"]).suffix for one in found} == {".png", ".gz", ".mp4"}
    return found


@pytest.fixture(scope="module")
def simple(tiny, documents) -> OmniVMedSimple:
    return prepared(OmniVMedSimple(str(tiny), batch_size=3), documents)


@pytest.fixture(scope="module")
def chat(tiny, documents) -> OmniVMedChat:
    return prepared(OmniVMedChat(str(tiny), batch_size=3), documents)


def prepared(model: OmniVMedSimple, documents: list[dict]) -> OmniVMedSimple:
    """As lmms-eval's evaluator leaves it: with the documents of the tasks."""
    model.task_dict = {"local": {"test": documents}}
    return model


def instance(kind: str, number: int, *arguments) -> Instance:
    metadata = {"task": "local", "doc_id": number, "repeats": 1}
    return Instance(kind, (*arguments, number, "local", "test"), 0, metadata)


def media(document: dict) -> list:
    return [document["media"]]


def asked(documents: list[dict], doc_to_visual: Callable = media, **options) -> list[Instance]:
    """Requests of a simple task that generates."""
    options = {"max_new_tokens": 8, **options}
    return [instance("generate_until", n, one["question"], options, doc_to_visual) for n, one in enumerate(documents)]


def compared(documents: list[dict], choices: list[str]) -> list[Instance]:
    """Requests of a simple task that compares choices."""
    return [
        instance("loglikelihood", number, one["question"], choice, media)
        for number, one in enumerate(documents)
        for choice in choices
    ]


def chat_arguments(content: list[dict]) -> tuple:
    """The arguments of a chat task's request."""
    return ("", lambda document: [{"role": "user", "content": content}], {}, 0, "local", "test")


def texts(results) -> list[str]:
    return [one.text for one in results]


def scores(model: OmniVMedSimple, requests: list[Instance]) -> list[tuple[float, bool]]:
    return [one.text for one in model.loglikelihood(requests)]


def write_task(folder: Path, task: dict, documents: list[dict]) -> None:
    """A task of lmms-eval's in `folder`: its documents as JSON Lines and its YAML."""
    (folder / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")
    data = {"dataset_kwargs": {"data_files": {"test": str(folder / "test.jsonl")}}}
    (folder / "task.yaml").write_text(yaml.safe_dump(task | data), encoding="utf-8")


@pytest.mark.slow
def test_lmms_evals_command_scores_answers_to_a_chat_task(tmp_path, tiny, documents):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n")
    model = prepared(OmniVMedSimple(str(tiny), keep_ratio=0.9), documents)
    expected = [*texts(model.generate_until(asked(documents, max_new_tokens=6))), ""]
    held = [*documents, documents[0] | {"media": str(damaged)}]
    held[0] = held[0] | {"answer": expected[0]}
    write_task(tmp_path, GENERATED_TASK, held)
    arguments = {
        "--model": "omniv_med",
        "--model_args": f"pretrained={tiny},keep_ratio=0.9",
        "--tasks": "generated_answers",
        "--include_path": tmp_path,
        "--batch_size": 3,
        "--output_path": tmp_path / "out",
        "--verbosity": "DEBUG",  # else lmms-eval ends with success after an error
    }
    command = [sys.executable, "-m", "evaluation.lmms_eval_adapter", "--log_samples"]
    command += [str(word) for pair in arguments.items() for word in pair]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "damaged.png" in done.stdout
    [samples] = tmp_path.glob("out/**/*_samples_generated_answers.jsonl")
    answers = {one["doc_id"]: one["filtered_resps"] for one in map(json.loads, samples.read_text().splitlines())}
    assert [answers[number] for number in range(len(held))] == expected
    [figures] = tmp_path.glob("out/**/*_results.json")
    results = json.loads(figures.read_text())["results"]["generated_answers"]
    assert results["exact_match,none"] == pytest.approx(1 / len(held))


def test_lmms_eval_scores_choices_by_likelihood(tmp_path, simple, tiny, documents, monkeypatch):
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    losses = torch.tensor([loss for loss, _ in scores(simple, compared(documents, CHOICES))])
    chosen = losses.view(-1, len(CHOICES)).argmin(dim=1).tolist()
    targets = [chosen[0], *((choice + 1) % len(CHOICES) for choice in chosen[1:])]
    held = [one | {"choice": target} for one, target in zip(documents, targets, strict=True)]
    write_task(tmp_path, CHOICE_TASK, held)
    results = simple_evaluate(
        model=OmniVMedSimple(str(tiny), batch_size=3),
        tasks=["generated_choices"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
    )
    assert results["results"]["generated_choices"]["acc,none"] == pytest.approx(1 / len(documents))


def test_an_answer_is_the_models_own(simple, documents):
    [result] = simple.generate_until(asked(documents[:1]))
    content = [{"type": "volume", "volume": documents[0]["media"]}, {"type": "text", "text": documents[0]["question"]}]
    inputs = simple.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    length = inputs["input_ids"].shape[1]
    output = simple.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, length:]
    assert result.text == simple.processor.decode(output, skip_special_tokens=True).strip()
    assert result.token_counts.input_tokens == length


def test_answers_do_not_depend_on_the_batch(simple, documents):
    together = simple.generate_until(asked(documents))
    alone = [simple.generate_until([request])[0] for request in asked(documents)]
    assert len(set(texts(alone))) > 1
    assert together == alone


def test_requests_with_other_options_get_their_own_batch_and_place(simple, documents):
    short, long = asked(documents[:1], max_new_tokens=2), asked(documents[1:2], max_new_tokens=8)
    results = simple.generate_until([*long, *short])
    assert [one.token_counts.output_tokens for one in results] == [8, 2]
    assert results == [*simple.generate_until(long), *simple.generate_until(short)]


def test_an_answer_ends_before_the_first_stop_string(simple, documents):
    [whole] = simple.generate_until(asked(documents[:1], max_new_tokens=12))
    stop = whole.text[len(whole.text) // 2 :][:3]
    [cut] = simple.generate_until(asked(documents[:1], max_new_tokens=12, until=[stop, "<never>"]))
    assert cut.text == whole.text.partition(stop)[0].strip()
    assert cut.token_counts.output_tokens < whole.token_counts.output_tokens


def test_a_stop_string_in_the_prompt_ends_nothing(simple, documents):
    requests = asked(documents[:1])
    assert simple.generate_until(asked(documents[:1], until=["assistant", "user"])) == simple.generate_until(requests)


def test_a_stop_string_is_not_put_together_from_prompt_and_answer(tokenizer):
    ids = tokenizer("assistant\n", add_special_tokens=False, return_tensors="pt").input_ids
    criterion = StopStrings(tokenizer, ["\n\nA"], prompt_length=ids.shape[1])
    answer = tokenizer("\nA", add_special_tokens=False, return_tensors="pt").input_ids
    assert not criterion(torch.cat([ids, answer], dim=1), None).any()
    answer = tokenizer("\n\nA", add_special_tokens=False, return_tensors="pt").input_ids
    assert criterion(torch.cat([ids, answer], dim=1), None).all()


def test_unreadable_media_leave_the_others_answers_alone(simple, documents, tmp_path):
    def broken(document: dict) -> list:
        return [str(tmp_path / "missing.png")] if document is documents[1] else media(document)

    results = texts(simple.generate_until(asked(documents, broken)))
    expected = texts(simple.generate_until(asked(documents)))
    assert results == [*expected[:1], "", *expected[2:]]
    with pytest.raises(ValueError, match=r"missing\.png"):
        simple.loglikelihood([instance("loglikelihood", 1, "What is it?", "CT", broken)])


def test_a_likelihood_is_the_models_loss_on_the_continuation(simple, documents):
    [(loss, _)] = scores(simple, compared(documents[:1], [" magnetic resonance"]))
    inputs = simple.encode([simple.conversation(compared(documents[:1], ["x"])[0].args)])
    target = simple.processor.tokenizer("magnetic resonance", return_tensors="pt").input_ids
    ids = torch.cat([inputs["input_ids"], target], dim=1)
    labels = ids.clone()
    labels[:, : inputs["input_ids"].shape[1]] = -100
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert loss == pytest.approx(simple.model(**inputs, labels=labels).loss.item(), rel=1e-4)


def test_likelihoods_do_not_depend_on_the_batch(simple, documents):
    requests = compared(documents, ["CT", "magnetic resonance imaging"])
    together = scores(simple, requests)
    alone = [scores(simple, [request])[0] for request in requests]
    assert [loss for loss, _ in together] == pytest.approx([loss for loss, _ in alone], rel=1e-4)
    assert [greedy for _, greedy in together] == [greedy for _, greedy in alone]


def test_the_greedy_answer_is_told_from_another(simple, documents):
    [wanted] = simple.processor.tokenizer("n", add_special_tokens=False).input_ids

    def prefer(module, arguments, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([wanted]), 1e4)

    hook = simple.model.lm_head.register_forward_hook(prefer)
    try:
        no, yes = scores(simple, compared(documents[:1], ["n", "y"]))
    finally:
        hook.remove()
    assert no == (pytest.approx(0), True)
    assert yes[0] > 1
    assert yes[1] is False


def test_a_conversation_keeps_the_order_of_words_and_media(chat, documents):
    first, second = (one["media"] for one in documents if one["media"].endswith(".png"))
    conversation = chat.conversation(
        chat_arguments(
            [
                {"type": "image", "url": first},
                {"type": "text", "text": "was before, and"},
                {"type": "image", "url": Image.open(second)},
                {"type": "text", "text": "is now. What changed?"},
            ]
        )
    )
    [turn] = conversation
    assert [part["type"] for part in turn["content"]] == ["image", "text", "image", "text"]
    reread = chat.processor.load(second)
    assert (turn["content"][2]["image"].frames == reread.frames).all()


def test_a_volume_stays_one_where_lmms_eval_takes_every_file_for_a_video(chat, documents):
    volume = next(one["media"] for one in documents if one["media"].endswith(".nii.gz"))
    [turn] = chat.conversation(chat_arguments([{"type": "video", "url": volume}]))
    assert turn["content"][0]["type"] == "volume"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "audio", "url": {"array": [0.0, 0.5], "sampling_rate": 2}},
        {"type": "video", "url": {"url": "film.mp4", "video_start": 1.0, "video_end": 2.0}},
        {"type": "video", "url": "film.mp4", "start_time": 1.0},
    ],
)
def test_sound_and_parts_of_videos_are_refused_in_words(chat, part):
    with pytest.raises(ValueError, match="whole videos"):
        chat.conversation(chat_arguments([part]))


@pytest.mark.parametrize(
    ("asked_for", "expected"),
    [
        ({}, {"max_new_tokens": 1024, "num_beams": 1, "do_sample": False}),
        ({"max_new_tokens": 5, "temperature": 0.0, "top_p": 0.9, "image_aspect_ratio": "pad"}, {"do_sample": False}),
        ({"temperature": 0.7, "top_p": 0.9}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}),
        ({"temperature": 0.7, "do_sample": False}, {"do_sample": False}),
        ({"num_beams": 3, "top_p": None}, {"num_beams": 3, "do_sample": False}),
    ],
)
def test_generation_options_are_those_that_generate_takes(asked_for, expected):
    defaults = {"max_new_tokens": asked_for.get("max_new_tokens", 1024), "num_beams": 1}
    assert generation_options(asked_for) == defaults | expected


@pytest.mark.parametrize(
    ("until", "expected"),
    [(None, []), ("Q:", ["Q:"]), (["Q:", ""], ["Q:"]), (["\n\n"], []), (["\n\n", "\n"], ["\n"])],
)
def test_the_empty_line_that_no_task_asked_for_ends_nothing(until, expected):
    assert stop_strings({"until": until}) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_size": "auto"}, "whole number"), ({"batch_size": 0}, "whole number"), ({"colour": "red"}, "'colour'")],
)
def test_impossible_settings_are_told_in_one_sentence(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        OmniVMedSimple(str(tiny), **options)


def test_what_cannot_be_scored_is_told_in_one_sentence(simple):
    with pytest.raises(ValueError, match="acc_mutual_info"):
        simple.loglikelihood([Instance("loglikelihood", ("", "CT"), 0, {"task": "local", "doc_id": 0, "repeats": 1})])
    with pytest.raises(ValueError, match="empty choice"):
        simple.loglikelihood([instance("loglikelihood", 0, "What is it?", " ", media)])
    with pytest.raises(NotImplementedError, match="one round"):
        simple.generate_until_multi_round([])
