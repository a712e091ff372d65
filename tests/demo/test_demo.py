# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Starts the demo as users do: on the command line, as a Space, with a login; and what it leaves when it ends."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from gradio_client import Client, handle_file

from demo.__main__ import parse_arguments, read_auth
from tests.helpers.demo_server import started
from tests.helpers.paths import ROOT

VOLUME = ROOT / "examples" / "media" / "ct_volume.nii.gz"


def test_the_space_answers_asks_no_other_server_and_leaves_nothing(tmp_path):
    with started(tmp_path, "app.py") as (address, log, process):
        html = urllib.request.urlopen(address, timeout=30).read().decode()
        loaded = re.findall(
            r"""(?:<(?:script|link|img)[^>]*(?:src|href)=|@import\s*|url\()["']?(https?://[^"')>\s]+)""", html
        )
        assert [url for url in loaded if not url.startswith(address)] == []
        assert "fonts.googleapis" not in html
        client = Client(address, verbose=False)
        answer = client.predict(handle_file(VOLUME), "Which imaging modality is this?", api_name="/ask_about_file")
        assert answer["complete"] and answer["text"]
        assert list(tmp_path.glob("omniv_med_sessions_*"))
        process.terminate()
        process.wait(timeout=60)
        assert not list(tmp_path.glob("omniv_med_*")), "files of sessions and readers are deleted at the end"
        assert "Traceback" not in log.read_text()


def test_requirements_name_every_package_that_the_space_imports():
    text = (ROOT / "requirements.txt").read_text().lower().replace("_", "-")
    named = set(re.findall(r"^[a-z0-9.-]+", text, re.MULTILINE))
    imported = set()
    for file in (ROOT / "app.py", *(ROOT / "demo").glob("*.py"), *(ROOT / "hub_model").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            imported |= {name.split(".")[0] for name in names}
    distributions = importlib.metadata.packages_distributions()
    # Packages that are not installed here are optional: attention backends.
    packages = {name for module in imported for name in distributions.get(module, ())}
    assert {"gradio", "torch"} <= packages
    assert {name.lower().replace("_", "-") for name in packages} <= named


def test_help_names_every_setting():
    shown = subprocess.run(
        [sys.executable, "-m", "demo", "--help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    for name in ("--host", "--port", "--model", "--max-file-size", "--max-frames", "--read-seconds", "--queue"):
        assert name in shown
    assert "--auth-file" in shown and "OMNIV_MED_MODEL" in shown and "--share" not in shown


def test_the_command_line_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("OMNIV_MED_MODEL", "owner/model")
    assert parse_arguments([]).model == "owner/model"
    assert parse_arguments(["--model", "folder"]).model == "folder"


@pytest.mark.parametrize("arguments", [["--queue", "0"], ["--max-frames", "-1"], ["--auth-file", "missing"]])
def test_a_wrong_argument_gets_one_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_passwords_come_from_a_file_or_the_environment_and_are_never_quoted(tmp_path, monkeypatch):
    file = tmp_path / "users"
    file.write_text("ann:se:cret\n\nbob:other\n")
    assert read_auth(file) == [("ann", "se:cret"), ("bob", "other")]
    monkeypatch.setenv("OMNIV_MED_AUTH", "eve:word")
    assert read_auth(None) == [("eve", "word")]
    file.write_text("secret-without-a-user\n")
    with pytest.raises(ValueError, match="one user:password per line") as told:
        read_auth(file)
    assert "secret" not in str(told.value)


def test_with_a_login_nothing_is_open_without_it(tiny, tmp_path):
    (tmp_path / "users").write_text("ann:secret")
    arguments = ("-m", "demo", "--model", str(tiny), "--auth-file", str(tmp_path / "users"))
    with started(tmp_path, *arguments) as (address, log, _):
        for path in ("config", "gradio_api/info", "gradio_api/mcp/", "gradio_api/mcp/schema"):
            with pytest.raises(urllib.error.HTTPError, match=r"401|404|405"):
                urllib.request.urlopen(address + path, timeout=30)
        with pytest.raises(ValueError, match="Please login"):
            Client(address, verbose=False)
        client = Client(address, auth=("ann", "secret"), verbose=False)
        assert client.predict(handle_file(VOLUME), api_name="/describe_file")["kind"] == "volume"
        assert "secret" not in log.read_text()


def test_the_service_needs_no_gradio_and_importing_the_demo_starts_no_cuda_and_no_model():
    """Every module of demo/service/ loads where gradio cannot be imported; the page then loads where it can."""
    modules = [f"demo.service.{file.stem}" for file in sorted((ROOT / "demo" / "service").glob("*.py"))]
    script = (
        "import importlib, sys\n"
        "sys.modules['gradio'] = None\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "assert sys.modules.pop('gradio') is None and not any(name.startswith('gradio.') for name in sys.modules)\n"
        "import app, demo.panels.page, torch\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert 'hub_model.modeling_omniv_med' not in sys.modules\n"
    )
    assert len(modules) > 5
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=300)
