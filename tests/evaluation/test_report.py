# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The report on runs: it holds their figures, their examples with media, and their faults, and trusts no text."""

from __future__ import annotations

import html
import json
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from data_engine.adapters.base import MediaStore
from data_engine.generated import SamplePlan, records_of
from data_engine.intervals import wilson_interval
from data_engine.ledger import Ledger
from data_engine.records import write_jsonl
from evaluation.benchmarks import BenchmarkQuestion, read_benchmark
from evaluation.compare import compare
from evaluation.report import write as report
from evaluation.report.figures import NAME_OF, read_run, right_interval
from evaluation.report.page import Section, Table, escape_markdown, write_html, write_markdown
from evaluation.report.write import choose_examples, make_sections
from evaluation.run import finish
from evaluation.score import KEYS, Scored
from tests.helpers.paths import HUB_MODEL

SAMPLES = 9
"""The first and every fourth after it are volumes or videos."""
BROKEN_ROW = {"where": "test.json, entry 3", "reason": "'answer' is missing or empty."}
HOSTILE = '</td></table><script>alert(1)</script><img src="https://example.org/x.png" onerror="x()">|`**_![a](http://b)'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page's tables by title, the tags it holds, and the addresses it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self._caption, self._rows = "", []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = dict(attributes)
        self.addresses += [named[name] or "" for name in ("src", "href", "action", "data") if name in named]
        assert not any(name.startswith("on") for name in named)
        assert tag != "img" or named["alt"]
        assert tag != "th" or named["scope"] in ("row", "col")
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ("rect", "line")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["caption"]:
            self._caption += data
        elif {"th", "td"} & set(self._open):
            # A figure and the interval below it, told apart by a bar.
            self._rows[-1][-1] += f"|{data}" if self._open[-1] == "small" else data.strip()
        self.words += data


def html_page(sections: list[Section], folder: Path) -> Page:
    write_html(folder / "report.html", "Report", sections)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A built test split of the generated source."""
    folder = tmp_path_factory.mktemp("built")
    store = MediaStore(folder)
    plans = [SamplePlan(1, "test", index) for index in range(SAMPLES)]
    write_jsonl((record for plan in plans for record in records_of(plan, store)), folder / "test.jsonl")
    return folder


@pytest.fixture(scope="module")
def questions(data) -> list[BenchmarkQuestion]:
    return read_benchmark("generated", data, data, None)[0]


def write_run(folder: Path, questions: list[BenchmarkQuestion], wrong_every: int, pruning: dict[str, Any]) -> Path:
    """A finished run that is wrong at every third or so question, and whose last medium could not be read."""
    settings = {"model": "models/nano", "benchmark": "generated", "questions": len(questions), "pruning": pruning}
    with Ledger(folder / "part-000.jsonl", settings) as ledger:
        for number, one in enumerate(questions[:-1]):
            prediction = "something else" if number % wrong_every == 0 else one.answer
            ledger.append(one.row() | {"prediction": prediction, "prompt_tokens": 100 + number})
        ledger.append(questions[-1].row() | {"prediction": "", "error": "the file is cut short; copy it again."})
    finish(folder, questions, [BROKEN_ROW])
    return folder


def changed(run: Path, folder: Path, **fields: Any) -> Path:
    """A copy of a run with other values in all rows of its predictions."""
    copy = shutil.copytree(run, folder)
    settings, *rows = (copy / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [settings, *(json.dumps(json.loads(row) | fields) for row in rows)]
    (copy / "predictions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def pruned(tmp_path_factory, questions) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "pruned", questions, 3, {})


@pytest.fixture(scope="module")
def unpruned(tmp_path_factory, questions) -> Path:
    options = {"prune_rule": "none", "prune_stage": "language"}
    return write_run(tmp_path_factory.mktemp("runs") / "unpruned", questions, 4, options)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory, pruned, data) -> Page:
    """The page about one run, without a model."""
    return html_page(make_sections([read_run(1, pruned)], [data]), tmp_path_factory.mktemp("page"))


def test_every_figure_of_a_run_is_on_its_page_with_its_interval_and_counts(one_run, pruned):
    scores = json.loads((pruned / "scores.json").read_text(encoding="utf-8"))
    shown = {row[0]: row[1] for row in one_run.tables["Figures of the runs, with 95 % intervals"]}
    for key in [*KEYS["standard"]["open"], "closed_accuracy"]:
        low, high = scores["intervals"][key]
        assert shown[NAME_OF[key]] == f"{100 * scores[key]:.1f} %|{100 * low:.1f}–{100 * high:.1f}"
    assert "Multiple-choice accuracy" not in shown and scores["choice_accuracy"] is None
    assert [shown[f"Questions, {kind}"] for kind in ("open", "closed", "choice")] == [
        str(scores[name]) for name in ("n_open", "n_closed", "n_choice")
    ]
    assert shown["Replies that could not be read"] == str(scores["n_unread"])
    assert shown["Tokens of a prompt, mean"] == "112"
    settings = dict(zip(*one_run.tables["Settings of the runs"], strict=True))
    assert (settings["model"], settings["pruning"]) == ("models/nano", "the model's own")


def test_groups_have_counts_intervals_and_the_most_frequent_answer(one_run, questions, pruned):
    header, *rows = one_run.tables["Right answers by dimension"]
    assert header == ["Dimension", "Questions", "Most frequent answer", "1: pruned"]
    assert [row[0] for row in rows] == sorted({one.dimension for one in questions})
    scored = read_run(1, pruned).scored
    for name, count, frequent, share in rows:
        members = [one for one in scored if one.row["dimension"] == name]
        answers = [one.row["answer"].lower().rstrip(".") for one in members]
        assert int(count) == len(members)
        assert frequent == f"{100 * max(map(answers.count, answers)) / len(answers):.1f} %"
        assert share.startswith(f"{100 * sum(one.right for one in members) / len(members):.1f} %|")
    for title in ("task", "modality", "kind of question"):
        assert sum(int(row[1]) for row in one_run.tables[f"Right answers by {title}"][1:]) == len(questions)


def scored_of(rights: list[bool], media: list[int]) -> list[Scored]:
    kinds = [{"closed_accuracy": float(right)} for right in rights]
    return [Scored(i, str(i), {}, "closed", group, kinds[i], None) for i, group in enumerate(media)]


def test_an_interval_has_a_width_where_all_answers_agree():
    assert right_interval(scored_of([True] * 6, [0, 0, 1, 1, 2, 2])) == pytest.approx(wilson_interval(3, 3))
    assert right_interval(scored_of([False] * 2, [0, 1])) == pytest.approx(wilson_interval(0, 2))
    low, high = right_interval(scored_of([True, False] * 8, list(range(16))))
    assert 0 < low < 0.5 < high < 1


def test_examples_are_right_and_wrong_seeded_and_of_all_dimensions(pruned):
    scored = read_run(1, pruned).scored
    chosen = choose_examples(scored, 3, seed=0)
    assert {one.row["dimension"] for one in chosen} == {"2d", "3d", "video"}
    assert chosen == choose_examples(scored, 3, seed=0)
    assert chosen != choose_examples(scored, 3, seed=1)
    assert not any(one.row.get("error") for one in choose_examples(scored, len(scored), seed=0))


def test_pictures_are_in_the_page_which_loads_nothing(one_run):
    pictures = [address for address in one_run.addresses if not address.startswith("#section-")]
    assert len(pictures) == 12
    assert all(address.startswith("data:image/webp;base64,") for address in pictures)
    assert "script" not in one_run.tags
    assert "as --model named no model" in one_run.words


def test_faults_are_listed(one_run):
    faults = {title: rows[1] for title, rows in one_run.tables.items() if title.startswith("Run 1")}
    media = faults["Run 1: pruned: 1 media that the model could not be shown; counted as wrong"]
    assert media[1:] == ["media/phantoms/test/000/000008.mp4", "the file is cut short; copy it again."]
    assert faults["Run 1: pruned: 1 broken rows of the benchmark, not asked"] == list(BROKEN_ROW.values())


def test_broken_predictions_are_listed_and_shown_as_no_example(tmp_path, pruned, data):
    copy = tmp_path / "some.jsonl"
    text = (pruned / "predictions.jsonl").read_text(encoding="utf-8")
    row = json.loads(text.splitlines()[1])
    broken = json.dumps(row | {"id": "no prediction", "prediction": None}) + "\nno JSON\n"
    copy.write_text(text + broken, encoding="utf-8")
    page = html_page(make_sections([read_run(1, copy)], [data], count=100), tmp_path)
    header, first, second = page.tables["Run 1: some: 2 broken predictions"]
    assert header == ["Line", "Question", "Fault", "Counted as"]
    assert (first[1], first[3]) == ("no prediction", f"wrong, {row['answer_type']}")
    assert second[2:] == ["is no JSON object", "not counted"]
    assert "No scores.json says" in page.words
    assert "Question no prediction" not in page.words


def test_runs_of_the_same_questions_stand_side_by_side_with_their_paired_differences(tmp_path, pruned, unpruned, data):
    first, second = read_run(1, pruned), read_run(2, unpruned)
    page = html_page(make_sections([first, second], [data], count=1), tmp_path)
    compared = compare(first.predictions, second.predictions)
    rows = {row[0]: row[1:] for row in page.tables["generated, run 2 less run 1"]}
    right = compared["right"]
    low, high = right["interval"]
    assert rows["All right answers"] == [
        f"{100 * right['a']:.1f} %",
        f"{100 * right['b']:.1f} %",
        f"{100 * right['difference']:+.1f}|{100 * low:+.1f} to {100 * high:+.1f}".replace("-", "−"),
        str(right["n"]),
    ]
    changed = dict(page.tables["generated, run 2 less run 1: how many changed"])
    assert changed["Right, then wrong"] == str(compared["n_right_to_wrong"])
    flips = compared["n_right_to_wrong"] + compared["n_wrong_to_right"]
    assert len(page.tables[f"generated, run 2 less run 1: {flips} changed answers"]) == flips + 1
    assert page.tables["Right answers by task"][0][3:] == ["1: pruned", "2: unpruned"]


def test_runs_of_other_questions_stand_alone_and_share_no_difference_without_a_common_one(tmp_path, questions, data):
    half = len(questions) // 2
    runs = [
        read_run(number, write_run(tmp_path / name, part, 3, {}))
        for number, (name, part) in enumerate({"a": questions[:half], "b": questions[half:]}.items(), start=1)
    ]
    sections = make_sections(runs, [data], count=1)
    assert [one.heading for one in sections if "groups" in one.heading] == [
        "generated, run 1: groups",
        "generated, run 2: groups",
    ]
    differences = next(one for one in sections if one.heading == "Differences")
    assert "no question in common" in differences.tables[0].rows[0][0]


def test_pruning_is_drawn_for_runs_of_the_model_with_their_own_options(pruned, unpruned, data, processor):
    runs = [read_run(1, pruned), read_run(2, unpruned)]
    shown = make_sections(runs, [data], processor, "elsewhere/nano", count=3)
    examples = [one for section in shown for group in section.examples.values() for one in group]
    clips = [one for one in examples if not one.facts.endswith("2d")]
    assert clips
    for one in clips:
        assert [picture.words.split(":")[0] for picture in one.pictures if picture.detailed] == ["Run 1"]
        assert any(note.startswith("Run 2: all ") for note in one.notes)
    assert all(len(one.pictures) == 1 for one in examples if one.facts.endswith("2d"))
    of_another = make_sections(runs, [data], processor, "another", count=3)
    assert not any(
        p.detailed for s in of_another for group in s.examples.values() for one in group for p in one.pictures
    )


def test_pruning_options_that_do_not_fit_are_said(tmp_path, questions, data, processor):
    run = read_run(1, write_run(tmp_path / "odd", questions, 3, {"keep_ratio": 7}))
    sections = make_sections([run], [data], processor, "nano", count=3)
    notes = [note for s in sections for group in s.examples.values() for one in group for note in one.notes]
    assert any("pruning options do not fit" in note and "keep_ratio" in note for note in notes)


def test_media_that_are_missing_or_lie_elsewhere_are_said_and_not_read(tmp_path, pruned):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "media").mkdir()
    for name, medium in {"gone": "media/none.png", "outside": "../secret.png"}.items():
        run = read_run(1, changed(pruned, tmp_path / name, image=medium))
        page = html_page(make_sections([run], [tmp_path / "media"], count=1), tmp_path)
        assert f"The medium {medium} was not found; name the folder that holds it with --media." in page.words
        assert "img" not in page.tags


def test_damaged_media_are_said(tmp_path, pruned, data):
    copy = shutil.copytree(data, tmp_path / "data")
    for file in (copy / "media").rglob("*.*"):
        file.write_bytes(file.read_bytes()[:100])
    page = html_page(make_sections([read_run(1, pruned)], [copy], count=1), tmp_path)
    assert "could not be read: " in page.words
    assert "img" not in page.tags


def test_text_of_data_and_models_is_shown_and_never_obeyed(tmp_path, pruned, data):
    hostile = {"question": f"{HOSTILE}\x00\ud800", "prediction": HOSTILE, "task": HOSTILE, "modality": HOSTILE}
    run = read_run(1, changed(pruned, tmp_path / "hostile", **hostile))
    sections = make_sections([run], [data], count=2)
    page = html_page(sections, tmp_path)
    assert not {"script", "iframe"} & page.tags
    assert all(address.startswith(("data:", "#section-")) for address in page.addresses)
    assert HOSTILE in page.words
    assert f"{HOSTILE}\ufffd\ufffd" in page.words
    write_markdown(tmp_path / "report.md", "Report", sections)
    shown = MarkdownIt().enable("table").render((tmp_path / "report.md").read_text(encoding="utf-8"))
    assert html.escape(HOSTILE) in shown
    assert "<script" not in shown and "example.org/x.png&quot;" in shown and 'href="' not in shown


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\\`*_{}[]<>()#+-.!|~&=:12 \n"), min_size=1))
def test_markdown_shows_any_text_literally(text):
    words = " ".join(text.split())
    shown = MarkdownIt().enable(["table", "strikethrough"]).render(str(escape_markdown(text))).strip()
    printable = html.escape("".join("\ufffd" if c < " " or "\x7f" <= c < "\xa0" else c for c in words), quote=False)
    assert html.unescape(shown) == html.unescape(f"<p>{printable}</p>") if words else shown == ""


def test_markdown_holds_the_tables_and_its_pictures_lie_beside_it(tmp_path, pruned, data):
    sections = make_sections([read_run(1, pruned)], [data], count=2)
    write_markdown(tmp_path / "my report.md", "Report", sections)
    text = (tmp_path / "my report.md").read_text(encoding="utf-8")
    rendered = MarkdownIt().enable("table").render(text)
    assert rendered.count("<table>") == sum(len(section.tables) for section in sections)
    assert rendered.count("<tr>") == sum(len(table.rows) + 1 for section in sections for table in section.tables)
    pictures = [one.split('"')[0].replace("%20", " ") for one in rendered.split('<img src="')[1:]]
    assert len(pictures) == 4
    for name in pictures:
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "WEBP"


def test_an_empty_table_keeps_its_header(tmp_path):
    sections = [Section("Heading", tables=[Table("Title", ["a|b", "c"], [])])]
    assert html_page(sections, tmp_path).tables == {"Title": [["a|b", "c"]]}
    write_markdown(tmp_path / "report.md", "Report", sections)
    assert "| a\\|b | c |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_command_writes_a_page_with_what_the_processor_of_a_model_prunes(tmp_path, pruned, data, monkeypatch):
    run = shutil.copytree(pruned, tmp_path / "run")
    predictions = run / "predictions.jsonl"
    predictions.write_text(
        predictions.read_text(encoding="utf-8").replace("models/nano", "hub_model"), encoding="utf-8"
    )
    out = tmp_path / "new" / "report.html"
    arguments = [run, "--media", data, "--out", out, "--model", HUB_MODEL, "--examples", 3]
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    report.main()
    assert "visual tokens kept" in Page(out.read_text(encoding="utf-8")).words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--out", "report.pdf"], "must end in .html or .md"),
        (["nowhere", "--out", "report.html"], "nowhere holds no predictions.jsonl"),
        (["RUN", "--out", "report.html", "--media", "nowhere"], "--media names no folder: nowhere"),
        (["RUN", "--out", "report.html", "--model", "./nowhere"], "The processor of ./nowhere cannot be loaded"),
        (["RUN", "--out", "report.html", "--examples", "-1"], "--examples must be 0 or more"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_sentence(pruned, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", *(str(pruned) if one == "RUN" else one for one in arguments)])
    with pytest.raises(SystemExit) as caught:
        report.main()
    assert message in str(caught.value)


def test_a_damaged_scores_file_is_said(tmp_path, pruned):
    copy = shutil.copytree(pruned, tmp_path / "run")
    (copy / "scores.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"scores\.json is no result of evaluation\.run"):
        read_run(1, copy)
