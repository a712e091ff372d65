# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the documents say holds: their commands are accepted, their code runs, their links lead somewhere.

A command in a document is checked twice: its own program parses its arguments here, so no option can be wrong, and
`RUN_BY` names the test file that runs the program for real, or says that it is run here. A command that this file does
not know fails. Where nobody runs a block (it needs a GPU, or a download), a comment before it says so:
`<!-- not run: needs a GPU -->`; its arguments are parsed all the same.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import re
import runpy
import shlex
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pydicom
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydicom.data import get_testdata_file

from clinic.questions import Questions
from data_engine.build import BuildConfig
from data_engine.captioning.config import CaptionConfig
from evaluation.run import parse_pruning
from hub_model.media_omniv_med import load_clip
from tests.helpers.demo_server import served_here
from tests.helpers.paths import ROOT
from train.config import StageConfig

pytestmark = pytest.mark.usefixtures("one_thread")

GENERATED = {Path("docs/media_outcomes.md")}
"""Written by a command, which has tests of its own."""
LONGEST_LINE, LONGEST_README = 160, 150
DOCUMENTS = [
    path
    for path in map(
        Path,
        sorted(
            subprocess.run(
                ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.split("\n")
        ),
    )
    if path.suffix and path not in GENERATED
]

RUN_HERE = "run here"
RUN_BY = {
    "benchmarks.batch_runs": "tests/benchmarks/test_batch_runs.py",
    "benchmarks.chat_followup": "tests/benchmarks/test_chat_followup.py",
    "benchmarks.convert_memory": "tests/benchmarks/test_convert_memory.py",
    "benchmarks.data_engine": "tests/benchmarks/test_data_plan.py",
    "benchmarks.decoding": "tests/benchmarks/test_decoding.py",
    "benchmarks.encoder": "tests/benchmarks/test_benchmarks.py",
    "benchmarks.end_to_end": "tests/benchmarks/test_end_to_end.py",
    "benchmarks.evidence": "tests/benchmarks/test_evidence.py",
    "benchmarks.film_moments": "tests/benchmarks/test_long_film.py",
    "benchmarks.fuzz_media": "tests/benchmarks/test_fuzzing.py",
    "benchmarks.long_film": "tests/benchmarks/test_long_film.py",
    "benchmarks.media": "tests/hub_model/test_media_formats.py",
    "benchmarks.media_outcomes": "tests/hub_model/test_media_formats.py",
    "benchmarks.page": "tests/benchmarks/test_page.py",
    "benchmarks.pruning": "tests/benchmarks/test_pruning_comparison.py",
    "benchmarks.quantization": "tests/benchmarks/test_quantization.py",
    "benchmarks.serving": "tests/benchmarks/test_serving.py",
    "benchmarks.soak": "tests/benchmarks/test_soak.py",
    "benchmarks.start": "tests/benchmarks/test_start.py",
    "clinic.batch": "tests/clinic/test_batch.py",
    "clinic.dicomweb": "tests/clinic/test_dicomweb.py",
    "clinic.export": "tests/clinic/test_export.py",
    "data_engine.build": "tests/data_engine/test_build.py",
    "data_engine.boxed_views": "tests/data_engine/test_boxed_views.py",
    "data_engine.caption": "tests/data_engine/test_captioning.py",
    "data_engine.contact_sheet": RUN_HERE,
    "data_engine.sample_media": RUN_HERE,
    "demo": "tests/demo/test_demo.py",
    "evaluation.breakdown": "tests/evaluation/test_breakdown.py",
    "evaluation.compare": "tests/evaluation/test_compare.py",
    "evaluation.lmms_eval_adapter": "tests/evaluation/test_lmms_eval_adapter.py",
    "evaluation.nano.documents": "tests/evaluation/test_nano_documents.py",
    "evaluation.nano.real_files": "tests/evaluation/test_real_files.py",
    "evaluation.nano.real_pictures": "tests/evaluation/test_real_pictures.py",
    "evaluation.nano.sweep": "tests/evaluation/test_sweep.py",
    "evaluation.nano.text_perplexity": "tests/evaluation/test_text_perplexity.py",
    "evaluation.nano_report": "tests/evaluation/test_nano_report.py",
    "evaluation.report": "tests/evaluation/test_report.py",
    "evaluation.robustness": "tests/evaluation/test_robustness.py",
    "evaluation.run": "tests/evaluation/test_evaluation_run.py",
    "evaluation.score": "tests/evaluation/test_score.py",
    "evaluation.vlmeval_data": "tests/evaluation/test_vlmeval_data.py",
    "examples.ask": RUN_HERE,
    "examples.finetune": "tests/examples/test_finetune.py",
    "examples.other_models": "tests/examples/test_other_models.py",
    "examples.qwen_vl": "tests/examples/test_qwen_vl.py",
    "train.checkpoints.assemble": "tests/train/test_assemble_any.py",
    "train.checkpoints.language_model_gguf": "tests/train/test_language_model_gguf.py",
    "train.checkpoints.merge": "tests/train/test_merge.py",
    "train.convert": "tests/train/test_convert.py",
    "train.memory.plan": "tests/train/test_memory_plan.py",
    "train.nano.real_pictures": "tests/train/test_real_recipe.py",
    "train.publish": "tests/train/test_publish.py",
    "train.run": "tests/train/test_training.py",
    "train.scaling": "tests/train/test_scaling.py",
    "train.scaling.costs": "tests/train/test_scaling.py",
}
"""Program of this project -> the test file that runs it for real."""
MADE_BY = {
    "demo": "tests/demo/test_demo.py",
    "model": "tests/train/test_assemble.py",
    "data-mini": "tests/data_engine/test_build.py",
    "train-nano": "tests/train/test_run_nano.py",
    "requirements": "tests/repository/test_package.py",
    "test-clinic": "tests/clinic/test_dicomweb.py",
    "serving": "tests/serving/test_server.py",
    "test-serving": "tests/serving/test_server.py",
    "release-check": "tests/repository/test_release_check.py",
    "test": "tests/repository/test_documents.py",
    "venv": "Makefile",
    "clean": "Makefile",
}
"""Goal of make -> the test file that runs what it starts; the last three are what these tests run in and after."""
ARGUMENTS_OF_OTHERS = {"evaluation.lmms_eval_adapter"}
"""Programs whose command line another project parses."""
READS = {
    "clinic.batch": lambda options: Questions.read(options.questions),
    "data_engine.build": lambda options: BuildConfig.read(options.config),
    "data_engine.caption": lambda options: CaptionConfig.read(options.config),
    "evaluation.run": lambda options: parse_pruning(options.pruning),
    "train.run": lambda options: StageConfig.read(options.config, options.set),
}
"""What a program does with its arguments before it works: files must be there and their fields known."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a document; `not_run` is the reason given in the comment before it, or ""."""

    document: Path
    line: int
    language: str
    text: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@cache
def tokens_of(document: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / document).read_text(encoding="utf-8"))


def blocks_of(document: Path) -> Iterator[Block]:
    reason = ""
    for token in tokens_of(document):
        if token.type == "html_block":
            found = re.search(r"<!-- not run: (.+?) -->", token.content)
            reason = found[1] if found else ""
        elif token.type == "fence":
            yield Block(document, token.map[0] + 1, token.info.strip(), token.content, reason)
            reason = ""


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


def commands_of(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block, as lists of words."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield words[:end]
            words = words[end + 1 :]


def program_of(words: list[str]) -> tuple[str, list[str]]:
    """The module that a command starts and its arguments, or a tool's name and its arguments."""
    name, rest = Path(words[0]).name, words[1:]
    if name == "accelerate":  # accelerate launch OPTIONS -m MODULE ARGUMENTS
        place = rest.index("-m")
        options = (
            importlib.import_module("accelerate.commands.launch")
            .launch_command_parser()
            .parse_args([*rest[1:place], "script"])
        )
        assert options.config_file is None or (ROOT / options.config_file).is_file()
        return rest[place + 1], rest[place + 2 :]
    if name == "python" and rest[:1] == ["-m"]:
        return rest[1], rest[2:]
    return name, rest


COMMANDS = [
    pytest.param(block, words, id=f"{block}-{program_of(words)[0]}")
    for block in BLOCKS
    if block.language == "sh"
    for words in commands_of(block)
]


class Accepted(BaseException):
    """Leaves a program after its command line was accepted; no `except Exception` of the program stops it."""

    def __init__(self, options: argparse.Namespace):
        self.options = options


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str]], argparse.Namespace]:
    """Lets a program parse a command line in this process, and nothing more."""
    parse = argparse.ArgumentParser.parse_args

    def stop_after(parser, arguments=None, namespace=None):
        raise Accepted(parse(parser, arguments, namespace))

    def accept(name: str, arguments: list[str]) -> argparse.Namespace:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop_after)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.chdir(ROOT)
        with warnings.catch_warnings(), pytest.raises(Accepted) as accepted:
            warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)  # other tests import it, too
            runpy.run_module(name, run_name="__main__")
        monkeypatch.undo()
        return accepted.value.options

    return accept


def named_in(test: Path) -> set[str]:
    """The modules that a test file imports, and the strings in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(test.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names


@pytest.fixture(scope="module")
def make_test() -> str:
    """What `make test` would run."""
    done = subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("block", "words"), COMMANDS)
def test_a_command_is_known_and_its_arguments_are_accepted(block, words, parsed, make_test):
    program, arguments = program_of(words)
    if program == "make":
        goal, *variables = arguments
        assert goal in MADE_BY, f"say in MADE_BY which test runs what 'make {goal}' starts"
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{goal}:.*## ", makefile, re.MULTILINE), f"make lists no {goal}"
        for name in (variable.partition("=")[0] for variable in variables):
            assert f"$({name})" in makefile, f"no goal of make reads {name}"
    elif program in RUN_BY:
        if program not in ARGUMENTS_OF_OTHERS:
            options = parsed(program, arguments)
            READS.get(program, lambda options: None)(options)
    elif program == "pytest":
        assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/"))
        assert block.not_run or "pytest" in make_test
    elif not block.not_run:
        said = " ".join([program, *arguments])
        assert said in make_test, f"nothing here knows the command '{said}'; add it to RUN_BY or say why it is not run"


def test_every_program_is_run_by_the_test_that_is_named():
    for program, test in RUN_BY.items():
        if test != RUN_HERE:
            names = named_in(ROOT / test)
            assert names & {program, f"{program}.__main__", f"{program}.write"}, f"{test} does not run {program}"
    for goal, test in MADE_BY.items():
        assert (ROOT / test).is_file(), goal


def test_a_program_in_a_sentence_exists():
    for document in DOCUMENTS:
        for token in tokens_of(document):
            for child in token.children or ():
                if child.type == "code_inline" and (found := re.match(r"python -m ([\w.]+)", child.content)):
                    assert found[1] in RUN_BY, f"{document}: {child.content}"


# What is run here.


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one, with what a reader of the documents has: the repository's media and
    model, and an archive with two series."""
    for name in ("examples", "hub_model"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").mkdir()
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for series in (300, 301):
            for number in range(3):
                dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
                dataset.SeriesNumber, dataset.SeriesInstanceUID = series, f"1.2.3.{series}"
                dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.3.{series}.{number}", number
                dataset.ImagePositionPatient = [0, 0, 5 * number]
                file = tmp_path / "slice.dcm"
                dataset.save_as(file)
                archive.write(file, f"{series}/{number}.dcm")
                file.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documented(program: str) -> list[str]:
    """The arguments of the first command in the documents that starts a program."""
    return next(arguments for each in COMMANDS for name, arguments in [program_of(each.values[1])] if name == program)


def test_the_first_command_answers_and_draws(desk, capsys):
    from examples.ask import main

    assert main(documented("examples.ask")) == 0
    assert "volume: 14 of 14 frames" in capsys.readouterr().out
    assert (desk / "kept.png").stat().st_size > 0


def test_the_contact_sheet_is_drawn(desk, monkeypatch):
    from data_engine.contact_sheet import main

    monkeypatch.setattr(sys, "argv", ["contact_sheet", *documented("data_engine.contact_sheet"), "--columns", "1"])
    main()
    assert (desk / "docs" / "phantoms.png").stat().st_size > 0


def test_the_sample_media_are_written(desk, monkeypatch):
    """As clips of the committed ones' shape; how they look has changed a little with the generators since."""
    from data_engine.sample_media import main

    monkeypatch.setattr(sys, "argv", ["sample_media", "--out", "written"])
    main()
    for file in (ROOT / "examples" / "media").glob("[!R]*"):
        written, committed = load_clip(desk / "written" / file.name), load_clip(file)
        assert (written.kind, written.frames.shape) == (committed.kind, committed.frames.shape), file.name


PYTHON = {
    document: [block for block in BLOCKS if block.document == document and block.language == "python"]
    for document in DOCUMENTS
}
PAGE = "http://127.0.0.1:7860"


@pytest.mark.parametrize("document", [document for document, blocks in PYTHON.items() if blocks], ids=str)
def test_python_runs_as_it_is_written(document, desk, tiny, tmp_path):
    """The blocks of a document run in order, with what the ones before defined; addresses and paths are the test's."""
    text = "".join(block.text for block in PYTHON[document])
    with contextlib.ExitStack() as stack:
        if PAGE in text:
            text = text.replace(PAGE, stack.enter_context(served_here(tiny, tmp_path / "uploads")).address)
        exec(compile(text.replace('"PATH"', repr(str(ROOT / "hub_model"))), str(document), "exec"), {})


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=str)
def test_json_is_json(block):
    for line in block.text.splitlines():
        json.loads(line)


# How the documents are written.


def heading_links(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    tokens = tokens_of(document)
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_and_pictures_lead_somewhere(document):
    for token in tokens_of(document):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target is None or re.match(r"\w+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / document).parent / path if path else ROOT / document
            assert file.exists(), f"{document}: {target}"
            assert not anchor or anchor in heading_links(file.resolve().relative_to(ROOT)), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_lines_are_short(document):
    for number, line in enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), 1):
        shown = re.sub(r"\]\([^)]*\)|https?://\S+", "", line)
        assert len(shown) <= LONGEST_LINE or line.startswith("|"), f"{document}:{number} has {len(shown)} characters"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README
