# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The conversation behind the page: what is sent to the model, shown, suggested and saved; and what sessions leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image
from pydicom.data import get_testdata_file

from data_engine.questions import CAPTION_REQUESTS, LESION_PRESENT, OPEN_WORDINGS, SIDE_OF_BREAST, SIDE_OF_EYE
from demo.panels.answers import WAITING, exchange_at, messages
from demo.service.assistant import Assistant
from demo.service.bounded_memory import BoundedMemory
from demo.service.conversation import Conversation
from demo.service.dialogue import PRUNED, UNPRUNED, Answer, Exchange
from demo.service.export import as_json, as_markdown, figures
from demo.service.measured import read_measured
from demo.service.sessions import LoadedFile, Session, Sessions
from demo.service.suggestions import suggestions
from demo.service.uploads import media_of, names_of_copies, uploaded_file
from tests.helpers.media_files import make_body, nifti

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sessions():
    sessions = Sessions()
    yield sessions
    sessions.close()


@pytest.fixture(scope="module")
def assistant(tiny: Path, sessions: Sessions) -> Assistant:
    assistant = Assistant(str(tiny), is_present=sessions.is_open)
    yield assistant
    assistant.reader.close()


@pytest.fixture
def conversation(assistant: Assistant, sessions: Sessions) -> Conversation:
    return Conversation(assistant, sessions)


@pytest.fixture
def session(sessions: Sessions, assistant: Assistant) -> Session:
    yield sessions.open("visitor")
    sessions.end("visitor")
    assistant.memory.drop("visitor")


@pytest.fixture
def load(sessions: Sessions, assistant: Assistant, session: Session, film: Callable[..., np.ndarray], tmp_path: Path):
    """Loads films that differ by their seed into the session."""

    def load(seed: int) -> LoadedFile:
        np.save(tmp_path / f"DOE_{seed}.npy", film(seed, frames=6))
        return sessions.load(session, [tmp_path / f"DOE_{seed}.npy"], assistant.read)

    return load


def ask(conversation: Conversation, session: Session, question: str, compare: bool = False) -> Exchange:
    exchange = conversation.begin(session, question, conversation.assistant.defaults)
    for arm in (PRUNED, UNPRUNED) if compare else (PRUNED,):
        for _ in conversation.run(session, exchange, arm):
            pass
    return exchange


def test_files_come_with_the_next_question_and_stay_in_the_conversation(conversation, session, load):
    load(0), load(1)
    first = ask(conversation, session, "Which one moves?")
    load(2)
    second = ask(conversation, session, "And this one?")
    assert (first.files, second.files) == ((1, 2), (3,))
    turns = conversation.turns(session, second, PRUNED)
    assert [[medium.key for medium in turn.media] for turn in turns] == [["1", "2"], ["3"]]
    assert second.answers[PRUNED].complete and second.answers[PRUNED].reused_tokens > 0
    shown = messages(session.exchanges, ())
    assert [message["role"] for message in shown] == ["user", "user", "assistant"] * 2
    assert exchange_at(session.exchanges, 4) == (1, True) and exchange_at(session.exchanges, 3) == (1, False)


def test_a_file_that_is_loaded_while_a_question_waits_belongs_to_the_next_one(conversation, session, load):
    load(0)
    first = conversation.begin(session, "Which one moves?", conversation.assistant.defaults)
    load(1)
    second = conversation.begin(session, "And this one?", conversation.assistant.defaults)
    assert [message["content"] for message in messages(session.exchanges, ()) if message["role"] == "user"] == [
        "*File 1: video, 6 frames*", "Which one moves?", "*File 2: video, 6 frames*", "And this one?"
    ]  # fmt: skip
    assert conversation.waiting(session) is first
    steps = conversation.run(session, first)
    next(steps)
    load(2)
    list(steps)
    assert [[medium.key for medium in turn.media] for turn in conversation.turns(session, first, PRUNED)] == [["1"]]
    assert conversation.waiting(session) is second
    list(conversation.run(session, second))
    turns = conversation.turns(session, second, PRUNED)
    assert [[medium.key for medium in turn.media] for turn in turns] == [["1"], ["2"]]
    assert conversation.waiting(session) is None and [file.number for file in conversation.pending(session)] == [3]


def test_the_place_in_line_counts_the_questions_of_all_visitors(conversation, sessions, session):
    other, defaults = sessions.open("other"), conversation.assistant.defaults
    asked = conversation.begin(other, "Mine?", defaults)
    conversation.begin(session, "And mine?", defaults)
    assert conversation.place(session) == 2
    list(conversation.run(other, asked))
    assert conversation.place(session) == 1
    conversation.stop(session)
    assert conversation.waiting(session) is None and "(stopped)" in messages(session.exchanges, ())[-1]["content"]
    conversation.begin(session, "And now?", defaults)
    conversation.refuse(session, "The server is busy.")
    assert (
        conversation.waiting(session) is None
        and "The server is busy." in messages(session.exchanges, ())[-1]["content"]
    )
    sessions.end("other")
    conversation.assistant.memory.drop("other")


def test_a_question_without_an_answer_is_left_out_and_its_file_goes_to_the_next(conversation, session, load):
    load(0)
    stopped = conversation.begin(session, "Stopped?", conversation.assistant.defaults)
    run = conversation.run(session, stopped)
    next(run)
    run.close()
    assert stopped.stopped and "(stopped)" in messages(session.exchanges, ())[-1]["content"]
    following = ask(conversation, session, "Which modality?")
    turns = conversation.turns(session, following, PRUNED)
    assert [turn.question for turn in turns] == ["Which modality?"]
    assert [medium.key for medium in turns[0].media] == ["1"]
    assert following.answers[PRUNED].visual_tokens > 0


def test_both_answers_of_a_comparison_have_their_own_history_and_figures(conversation, session, load):
    load(0)
    first = ask(conversation, session, "Which modality?", compare=True)
    assert first.answers[PRUNED].visual_tokens < first.answers[UNPRUNED].visual_tokens
    session.exchanges[0].answers[UNPRUNED] = replace(first.answers[UNPRUNED], text="another answer")
    second = ask(conversation, session, "Sure?", compare=True)
    assert conversation.turns(session, second, UNPRUNED)[0].answer == "another answer"
    assert conversation.turns(session, second, PRUNED)[0].answer == first.answers[PRUNED].text
    for answer in second.answers.values():
        assert answer.reused_tokens > answer.visual_tokens, "each of the two has its own cache"
        assert re_figures(answer)


def re_figures(answer: Answer) -> bool:
    words = figures(answer)
    return f"{len(answer.token_ids)} tokens in" in words and f"{answer.reused_tokens} computed before" in words


def test_an_edited_question_forgets_what_came_after_it(conversation, session, load):
    load(0)
    ask(conversation, session, "One?"), ask(conversation, session, "Two?"), ask(conversation, session, "Three?")
    exchange = conversation.again(session, 1, "Another?", conversation.assistant.defaults)
    assert [each.question for each in session.exchanges] == ["One?", "Another?"]
    list(conversation.run(session, exchange))
    assert exchange.answers[PRUNED].complete


def test_a_failure_is_a_sentence_in_the_chat_and_not_in_the_next_prompt(conversation, session, load, monkeypatch):
    file = load(0)
    conversation.sessions.clips.drop("visitor")
    file.paths[0].write_bytes(b"damaged")
    failed = ask(conversation, session, "Which modality?")
    assert "not a known medical image" in messages(session.exchanges, ())[-1]["content"]
    assert not failed.answers[PRUNED].complete


def test_saved_conversations_have_settings_and_figures_but_no_paths_or_names(conversation, session, load):
    load(0)
    ask(conversation, session, "Which *modality*?", compare=True)
    ask(conversation, session, "And | then?")
    saved = json.loads(as_json(session, "OmniV-Med-Nano"))
    assert saved["conversation"][0]["pruning"]["threshold"] == 0.1
    assert set(saved["conversation"][0]["answers"]) == {PRUNED, UNPRUNED}
    assert saved["conversation"][1]["answers"][PRUNED]["text"] == session.exchanges[1].answers[PRUNED].text
    assert saved["files"][0] == {"number": 1, "kind": "video", "frames": 6, "notes": saved["files"][0]["notes"]}
    markdown = as_markdown(session, "OmniV-Med-Nano")
    assert "## Which *modality*?" in markdown and "rule none" in markdown and "research only" in markdown
    for text in (as_json(session, "m"), markdown):
        assert "DOE" not in text and str(session.folder) not in text and "/tmp" not in text


MEASURED = {"modality named": True}


def test_only_questions_are_suggested_that_the_model_answers_better_than_blind():
    image = LoadedFile(1, (), "image", 1, "", ())
    everything = suggestions(image, MEASURED)
    assert "Is there a lesion?" in everything
    asked = suggestions(image, MEASURED | {"abnormality detection, yes/no": False})
    assert "Is there a lesion?" not in asked
    assert [one for one in everything if one != "Is there a lesion?"] == asked[: len(everything) - 1]


def test_a_model_of_which_nothing_was_measured_gets_questions_for_any_model(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        measured = read_measured(str(folder))
        assert measured.lines == ()
        asked = suggestions(LoadedFile(1, (), "volume", 9, "MR", ()), measured.answered)
        assert len(asked) == 4
        assert "Which contrast or sequence is this?" not in asked


def test_figures_come_from_the_model_s_folder_and_real_pictures_stand_before_generated_samples(tmp_path):
    row = {"accuracy": 0.616, "interval": [0.58, 0.65], "count": 1059, "blind": 0.285, "gain_interval": [0.3, 0.4]}
    real = {
        "sources": {"slake": {"all": row}},
        "task": {"diagnosis, open": {"gain_interval": [-0.1, 0.2]}},
        "declined": {"cannot tell": {"share": 0.844, "count": 179}, "not medical": {"share": 0.15, "count": 200}},
    }
    generated = {"task": {"diagnosis, open": {"gain_interval": [0.1, 0.2]}, "localization, open": row}}
    (tmp_path / "metrics.json").write_text(json.dumps({"real_pictures": real, "test": generated}), encoding="utf-8")
    measured = read_measured(str(tmp_path))
    assert measured.answered == {"diagnosis, open": False, "localization, open": True}
    assert "61.6% of 1,059" in measured.lines[0] and "28.5%" in measured.lines[0]
    assert "84.4% of 179" in measured.lines[1] and "15.0% of 200" in measured.lines[2]


@pytest.mark.parametrize(("measured_model", "offered"), [("one", True), ("another", False)])
def test_evidence_is_offered_where_it_was_measured_of_this_model(tmp_path, measured_model, offered):
    overlap = {"value": 0.64, "chance": 0.3, "elsewhere": 0.4}
    evidence = {
        "weights_and_configuration_sha256": "one",
        "sets": {"real polyps and masses": {"count": 216, "overlap": overlap}},
        "shows_findings": ["image"],
    }
    metrics = {"weights_and_configuration_sha256": measured_model}
    (tmp_path / "evidence.json").write_text(json.dumps(evidence), encoding="utf-8")
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    measured = read_measured(str(tmp_path))
    assert measured.shows_findings == ({"image"} if offered else set())
    assert ("64.0% of 216 real polyps and masses" in "".join(measured.lines)) is offered
    assert ("not offered there" in "".join(measured.lines)) is offered, "the page says why volumes go without"
    (tmp_path / "evidence.json").write_text(json.dumps(evidence | {"shows_findings": []}), encoding="utf-8")
    measured = read_measured(str(tmp_path))
    assert not measured.shows_findings
    assert ("does not offer it" in "".join(measured.lines)) is offered, "the page says why"


def test_suggestions_are_wordings_of_the_training_and_fit_the_file():
    known = {wording for _, wordings in OPEN_WORDINGS.values() for wording in wordings}
    known |= {*LESION_PRESENT, *CAPTION_REQUESTS, *SIDE_OF_EYE, *SIDE_OF_BREAST, "On which side is the lesion?"}
    for kind in ("image", "volume", "video"):
        for modality in ("", "CT", "MR", "US", "SM", "OP", "MG"):
            asked = suggestions(LoadedFile(1, (), kind, 2, modality, ()), MEASURED)
            assert 4 <= len(asked) == len(set(asked)) <= 6
            for question in asked:
                # Counted, measured and graded are lesions here; the training fills in what the sample has.
                wordings = {
                    wording.format(kind=kind, thing=thing) for wording in known for thing in ("lesions", "the lesion")
                }
                assert question in wordings
    assert "Which stain was used?" in suggestions(LoadedFile(1, (), "image", 1, "SM", ()), MEASURED)
    assert "What motion is seen?" in suggestions(LoadedFile(1, (), "video", 9, "US", ()), MEASURED)
    assert "In which plane is this volume?" in suggestions(LoadedFile(1, (), "volume", 9, "MR", ()), MEASURED)


def test_no_word_comes_after_a_stop(conversation, session):
    exchange = conversation.begin(session, "Describe what a CT shows.", conversation.assistant.defaults)
    steps = conversation.run(session, exchange)
    next(steps)
    conversation.stop(session)
    before = exchange.answers[PRUNED]
    assert exchange.stopped and list(steps) == [], "the model's words come too late"
    assert exchange.answers[PRUNED] is before
    assert list(conversation.run(session, exchange)) and exchange.answers[PRUNED].complete, "it can be asked again"
    conversation.stop(session)
    assert not exchange.stopped, "a complete answer is not stopped"


def test_waiting_is_shown_until_a_word_comes(assistant):
    exchange = Exchange("Which?", (), (), assistant.defaults, {PRUNED: Answer()})
    assert WAITING in messages([exchange], ())[-1]["content"]
    assert "Waiting for the model" in figures(exchange.answers[PRUNED])


def test_a_session_ends_with_its_folder_and_all_that_was_remembered(sessions, assistant, conversation, session, load):
    file = load(0)
    ask(conversation, session, "Which modality?")
    assert file.paths[0].is_relative_to(session.folder) and file.paths[0].name == "file.npy"
    assert len(assistant.memory) == 1 and len(sessions.clips) == 1
    sessions.end("visitor")
    assistant.memory.drop("visitor")
    assert not session.folder.exists() and len(assistant.memory) == 0 and len(sessions.clips) == 0
    sessions.clips.put("visitor", "1", "late", 4)
    assert len(sessions.clips) == 0, "nothing is kept for one who left"


def test_a_clip_that_is_no_longer_in_memory_is_read_again(sessions, assistant, conversation, session, load):
    file = load(0)
    before = sessions.clip(session, file, assistant.read)
    sessions.clips.drop("visitor")
    assert np.array_equal(sessions.clip(session, file, assistant.read).frames, before.frames)


def test_another_plane_takes_the_place_of_a_file_or_is_a_file_of_its_own(
    sessions, assistant, conversation, session, tmp_path
):
    nifti(tmp_path / "upload-a-00001.nii", make_body((4, 16, 20)))
    file = sessions.load(session, [tmp_path / "upload-a-00001.nii"], assistant.read)
    coronal = file.choice.changed("coronal", None, file.series)
    again = sessions.load_again(session, file, assistant.read, coronal, in_its_place=True)
    assert (again.number, again.paths, again.frames) == (1, file.paths, 16) and session.files == [again]
    sessions.clips.drop("visitor")
    assert sessions.clip(session, again, assistant.read).plane == "coronal", "read again as it was chosen"
    sagittal = again.choice.changed("sagittal", None, again.series)
    other = sessions.load_again(session, again, assistant.read, sagittal, in_its_place=False)
    assert (other.number, other.frames, other.upload) == (2, 20, "upload-a-00001.nii")
    assert session.files == [again, other] and other.paths[0].parent != again.paths[0].parent
    sessions.remove(session, other)
    assert again.paths[0].exists()
    for wrong in ({"plane": "oblique", "series": None}, {"plane": None, "series": 7}):
        with pytest.raises(ValueError, match=r"planes|series"):
            again.choice.changed(**wrong, offered=again.series)


def test_of_an_upload_only_a_made_up_name_is_remembered(sessions, assistant, session, film, tmp_path):
    for name, kept in (("upload-ab-00003.npy", "upload-ab-00003.npy"), ("DOE_JANE.npy", ""), ("upload-a-1.DOE", "")):
        np.save(tmp_path / "film.npy", film(0, frames=4))
        path = (tmp_path / "film.npy").rename(tmp_path / name)
        assert sessions.load(session, [path], assistant.read).upload == kept


@pytest.mark.parametrize(
    "endings",
    [
        ("mhd", "raw"), ("mhd", "zraw"), ("nhdr", "raw"), ("nhdr", "raw.gz"), ("hdr", "img"), ("hdr.gz", "img.gz"),
    ],
)  # fmt: skip
def test_a_header_finds_its_voxels_under_the_names_that_uploads_get(sessions, assistant, session, tmp_path, endings):
    header, voxels = (tmp_path / f"DOE.{ending}" for ending in endings)
    sitk.WriteImage(sitk.GetImageFromArray(make_body()), str(header), useCompression=endings[1] in ("zraw", "raw.gz"))
    pair = [
        header.rename(tmp_path / f"upload-a-00001.{endings[0]}"),
        voxels.rename(tmp_path / f"upload-b-00001.{endings[1]}"),
    ]
    (uploads,) = media_of(pair)
    loaded = sessions.load(session, uploads, assistant.read)
    assert loaded.frames == len(make_body())
    assert any("whose names differ" in note for note in loaded.notes)
    alike = [pair[0], pair[1].rename(tmp_path / f"upload-a-00001.{endings[1]}")]
    again = sessions.load(session, alike, assistant.read)
    assert again.frames == len(make_body())
    assert not any("whose names differ" in note for note in again.notes)
    assert len({path.name.split(".")[0] for path in again.paths}) == 1


def test_copies_of_uploads_never_meet(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    assert names_of_copies([one / "a.nii.gz"]) == ["file"]
    assert names_of_copies([one / "a.mhd", other / "a.raw"]) == ["file", "file"], "as alike as the uploads"
    for pair in (("a.mhd", "b.raw"), ("a.dcm", "a.dcm"), ("a.odd-1", "a.odd-2")):
        assert names_of_copies([one / pair[0], other / pair[1]]) == ["file_00000", "file_00001"]
    assert len(set(names_of_copies([one / f"a.{ending}" for ending in ("mhd", "raw", "txt")]))) == 3


def test_a_file_that_cannot_be_read_leaves_nothing(sessions, assistant, session, tmp_path):
    (tmp_path / "DOE.dcm").write_bytes(b"nothing" * 100)
    with pytest.raises(ValueError, match="not a known medical image") as told:
        sessions.load(session, [tmp_path / "DOE.dcm"], assistant.read)
    assert "DOE" not in str(told.value)
    assert list(session.folder.iterdir()) == [] and session.files == []


def test_memory_is_bounded_in_number_and_bytes_and_drops_the_least_recently_used():
    memory: BoundedMemory[str] = BoundedMemory(3, 100)
    for name in "abc":
        memory.put("one", name, name, 10)
    assert memory.get("one", "a") == "a"
    memory.put("two", "d", "d", 10)
    assert memory.get("one", "b") is None and memory.get("one", "a") == "a", "b was used least recently"
    memory.put("two", "e", "e", 85)
    assert len(memory) == 2 and memory.bytes == 95
    memory.put("two", "f", "f", 101)
    assert memory.get("two", "f") is None and memory.bytes <= 100
    memory.put("one", "a", "a", 1)
    memory.drop("two")
    assert memory.take("one", "a") == "a" and memory.take("one", "a") is None and memory.bytes == 0


def test_files_that_are_loaded_at_once_are_one_medium_only_where_they_belong_together(tmp_path, picture):
    def written(*names: str) -> list[Path]:
        for seed, name in enumerate(names):
            Image.fromarray(picture(seed)).save(tmp_path / name)
        return [tmp_path / name for name in names]

    pictures = written("skin.png", "eye.png")
    assert media_of(pictures) == [[pictures[0]], [pictures[1]]], "two unrelated pictures are two files"
    pair = written("a1.png", "a2.png")
    assert media_of(pair) == [[pair[0]], [pair[1]]]
    frames = written("loop_01.png", "loop_02.png", "loop_03.png")
    assert media_of([*frames, pictures[0]]) == [frames, [pictures[0]]], "a numbered row is a video"
    series = [Path(get_testdata_file(name, download=False)) for name in ("CT_small.dcm", "MR_small.dcm")]
    assert media_of([series[0], pictures[0], series[1]]) == [series, [pictures[0]]], "DICOM files are one series"
    halves = [tmp_path / "scan.mhd", tmp_path / "scan.raw"]
    for half in halves:
        half.write_bytes(b"NDims = 3")
    assert media_of(halves) == [halves]
    (tmp_path / "empty.png").touch()
    assert media_of([tmp_path / "empty.png"]) == [[tmp_path / "empty.png"]]


def test_an_upload_is_a_file_in_a_folder_named_by_its_hash_and_nothing_else(tmp_path):
    uploads = tmp_path / "uploads"
    (uploads / ("a" * 64)).mkdir(parents=True)
    file = uploads / ("a" * 64) / "scan.nii"
    file.write_bytes(b"x")
    assert uploaded_file(str(file), uploads) == file.resolve()
    assert uploaded_file({"path": str(file), "meta": {}}, uploads) == file.resolve()
    assert uploaded_file("data:;base64,AA==", uploads) == "data:;base64,AA=="
    (uploads / "deep_links").mkdir()
    (uploads / "deep_links" / "state.json").write_bytes(b"x")
    paths = [
        "/etc/passwd",
        str(uploads),
        str(file.parent),
        f"{uploads}/deep_links/state.json",
        f"{file.parent}/../../x",
    ]
    for wrong in (*paths, "", None, 3, ["/etc/passwd"], {"url": str(file)}, "http://host/x", f"file://{file}"):
        with pytest.raises(ValueError, match=r"upload|Addresses"):
            uploaded_file(wrong, uploads)


def test_equal_uploads_of_two_visitors_do_not_disturb_each_other(sessions, assistant, film, tmp_path):
    np.save(tmp_path / "same.npy", film(0, frames=6))
    one, two = sessions.open("one"), sessions.open("two")
    sessions.load(one, [tmp_path / "same.npy"], assistant.read)
    sessions.end("one")
    assert sessions.load(two, [tmp_path / "same.npy"], assistant.read).frames == 6
    sessions.end("two")
    assert list(sessions.root.iterdir()) == []
