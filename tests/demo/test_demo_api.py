# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The demo's API and MCP server under real clients: right answers, refused paths, load, crashes, and a quiet log."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio.utils import get_function_description, get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from demo.api import Endpoints
from demo.service.dialogue import Medium, Turn
from demo.service.generation import AnswerStreamer
from hub_model import isolated_reading_omniv_med
from hub_model.isolated_reading_omniv_med import _read_header as read_header
from hub_model.media_omniv_med import load_clip
from hub_model.token_pruning_omniv_med import PRUNE_RULES, RULE_WORDS
from tests.helpers.demo_server import Served, served_here
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE

VOLUME = ROOT / "examples" / "media" / "ct_volume.nii.gz"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def served(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_here(tiny, tmp_path_factory.mktemp("uploads"), queue=8) as demo:
        yield demo


@pytest.fixture(scope="module")
def client(served: Served) -> Client:
    return Client(served.address, verbose=False)


def data_uri(data: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(data).decode()


@pytest.fixture
def film_file(film: Callable[..., np.ndarray], tmp_path: Path) -> Callable[[int], Path]:
    """Writes films that differ by their seed."""

    def write(seed: int) -> Path:
        np.save(tmp_path / f"{seed}.npy", film(seed, frames=6))
        return tmp_path / f"{seed}.npy"

    return write


def test_only_the_three_documented_endpoints_are_offered(client):
    endpoints = client.view_api(return_format="dict")
    assert set(endpoints["named_endpoints"]) == {"/describe_file", "/prune_file", "/ask_about_file"}
    assert not endpoints["unnamed_endpoints"]
    parameters = endpoints["named_endpoints"]["/prune_file"]["parameters"]
    assert [(each["parameter_name"], each["python_type"]["type"]) for each in parameters] == [
        ("file", "str"),
        ("rule", f"Literal[{', '.join(map(repr, PRUNE_RULES))}]"),
        ("threshold", "float"),
        ("keep_ratio", "float"),
    ]


def test_clients_are_told_what_each_pruning_rule_compares_with():
    _, told, _ = get_function_description(Endpoints.prune_file)
    assert all(f'"{rule}" ({RULE_WORDS[rule]})' in told["rule"] for rule in PRUNE_RULES)


def test_a_file_is_described_pruned_and_asked_about_as_upload_and_as_data_uri(client, served):
    for file in (handle_file(VOLUME), data_uri(VOLUME.read_bytes())):
        described = client.predict(file, api_name="/describe_file")
        assert (described["kind"], described["frames"], described["unit"]) == ("volume", 14, "mm")
        assert len(described["positions"]) == 14
        pruned = client.predict(file, "anchor", 0.05, 1.0, api_name="/prune_file")
        expected = served.assistant.processor.process_clip(load_clip(VOLUME), prune_threshold=0.05)
        assert (pruned["tokens_before"], pruned["tokens_after"]) == (expected.tokens_before, expected.tokens_after)
        assert sum(pruned["kept_per_frame"]) == int(expected.pruned.keep_mask.sum())
        half = client.predict(file, "anchor", 0.0, 0.5, api_name="/prune_file")
        assert sum(half["kept_per_frame"]) <= expected.tokens_before / 2
        job = client.submit(file, "Which imaging modality is this?", api_name="/ask_about_file")
        *_, answer = list(job)
        turns = [Turn("Which imaging modality is this?", (Medium("0", load_clip(VOLUME)),))]
        *_, here = served.assistant.answer(turns, served.assistant.defaults)
        assert answer["complete"] and answer["text"] == here.text
        assert answer["visual_tokens"] == here.visual_tokens > 0
    assert len(served.assistant.memory) == 0, "nothing of a call is remembered"


def test_wrong_values_get_a_sentence(client):
    image = data_uri(VOLUME.read_bytes())
    for arguments, words in (
        ((image, "newest"), f"rule is one of {', '.join(PRUNE_RULES)}"),
        ((image, "anchor", "much"), "threshold is a number"),
        ((image, "anchor", 0.1, 0), "keep_ratio is a number"),
        ((data_uri(b"no medium"),), "not a known"),
        (("data:application/octet-stream;base64,###",), "not valid base64"),
    ):
        with pytest.raises(AppError, match=words):
            client.predict(*arguments, api_name="/prune_file")
    with pytest.raises(AppError, match="Write a question"):
        client.predict(image, " ", api_name="/ask_about_file")


def test_a_file_that_is_too_large_is_refused_however_it_comes(served):
    address = f"{served.address}gradio_api/call/describe_file"
    body = json.dumps({"data": [data_uri(bytes(20 << 20))]}).encode()
    told = httpx.post(address, content=body)
    assert told.status_code == 413 and "larger than 16 MB" in told.text
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))  # without a length
    with suppress(httpx.TransportError):  # where the server hung up
        assert httpx.post(address, content=pieces).status_code >= 400
    uploads = f"{served.address}gradio_api/upload"
    assert httpx.post(uploads, files={"files": ("scan.npy", bytes(17 << 20))}).status_code == 413


class CountingServer:
    """A server on this machine that counts who asks it, for addresses that a client names."""

    def __enter__(self) -> CountingServer:
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/scan.nii"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()


def call(served: Served, endpoint: str, *data: Any) -> str:
    """Calls an endpoint over plain HTTP, as an attacker does: returns the events as text."""
    response = httpx.post(f"{served.address}gradio_api/call/{endpoint}", json={"data": list(data)}, timeout=60)
    if response.status_code != 200:
        return response.text
    event = response.json()["event_id"]
    return httpx.get(f"{served.address}gradio_api/call/{endpoint}/{event}", timeout=60).text


def test_no_path_and_no_address_that_a_client_names_is_opened(served, client, tmp_path, capfd):
    secret = tmp_path / "secret.nii.gz"
    shutil.copyfile(VOLUME, secret)
    uploads = Path(get_upload_folder())
    uploads.mkdir(exist_ok=True)
    planted = uploads / "planted.nii.gz"
    shutil.copyfile(VOLUME, planted)
    link = uploads / hashlib.sha256(b"link").hexdigest() / "scan.nii.gz"
    link.parent.mkdir(parents=True)
    link.symlink_to(secret)
    with CountingServer() as other:
        named = [
            "/etc/passwd", str(secret), f"file://{secret}", f"{uploads}/../secret.nii.gz", "../../etc/passwd",
            f"{link}", f"{planted}", f"{uploads}", other.address, other.address.replace("http", "HTTP"), "ftp://host/scan",
            "\0", "~/.bashrc",
        ]  # fmt: skip
        meta = {"_type": "gradio.FileData"}
        for name in named:
            answers = [call(served, "ask_about_file", name, "What?", "anchor", 0.1, 1.0, "language")]
            for file in (name, {"path": name}, {"path": name, "meta": meta}, {"url": name, "path": "x", "meta": meta}):
                answers.append(call(served, "describe_file", file))
            for answer in answers:
                assert "event: error" in answer and "event: complete" not in answer, (name, answer)
                assert "root:" not in answer and "volume" not in answer
        assert other.asked == []
    told = call(served, "describe_file", "/etc/passwd")
    assert "Only uploads are opened" in json.loads(told.split("data: ", 1)[1])["error"]
    assert "does not fit" in call(served, "ask_about_file", "DOE_JANE"), "Gradio's own message would quote the values"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_files_of_the_machine_are_not_served(served, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    for path in (tmp_path / "secret.txt", ROOT / "README.md", Path("/etc/passwd"), served.sessions.root):
        assert httpx.get(f"{served.address}gradio_api/file={path}").status_code in (403, 404)


def use_mcp(address: str, talk: Callable[[ClientSession], Any]) -> Any:
    """What `talk` gives in a session with the demo's MCP server."""

    async def run() -> Any:
        async with (
            streamable_http_client(f"{address}gradio_api/mcp/") as (reading, writing, *_),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            return await talk(session)

    return asyncio.run(run())


def test_an_mcp_client_lists_and_calls_the_tools(served):
    async def talk(session: ClientSession) -> tuple[Any, ...]:
        tools = {tool.name.rsplit("_med_", 1)[-1]: tool for tool in (await session.list_tools()).tools}
        file = data_uri(VOLUME.read_bytes())
        described = await session.call_tool(tools["describe_file"].name, {"file": file})
        answered = await session.call_tool(tools["ask_about_file"].name, {"file": file, "question": "What is it?"})
        refused = [
            await session.call_tool(tools["describe_file"].name, {"file": name})
            for name in ("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/scan")
        ]
        return tools, described, answered, refused

    tools, described, answered, refused = use_mcp(served.address, talk)
    assert set(tools) == {"describe_file", "prune_file", "ask_about_file"}
    schema = tools["prune_file"].inputSchema["properties"]
    assert "data: URI" in schema["file"]["description"] and schema["threshold"]["default"] == 0.1
    assert "for research only" in tools["ask_about_file"].description
    assert not described.isError and "'kind': 'volume'" in described.content[0].text.replace('"', "'")
    assert not answered.isError and "visual_tokens" in answered.content[0].text
    for result in refused:
        text = result.content[0].text
        assert result.isError and ("Only uploads" in text or "not fetched" in text), text
        assert "root:" not in text


def test_twenty_clients_at_once_get_their_own_answer_or_are_told_to_try_again(served, film_file, monkeypatch):
    """Eight may wait; whoever is refused asks again, and in the end all have the answer that is theirs.

    The first answer waits until somebody was refused, so that the queue is full however fast the machine is.
    """
    monkeypatch.setattr("demo.service.generation.MAX_NEW_TOKENS", 8)  # a random model writes on to the last token
    questions = [f"Question {seed}: which modality is this?" for seed in range(20)]
    expected = []
    for seed, question in enumerate(questions):
        turns = [Turn(question, (Medium("file", load_clip(film_file(seed))),))]
        *_, answer = served.assistant.answer(turns, served.assistant.defaults)
        expected.append(answer.text)
    assert len(set(expected)) >= 15, "the answers tell the clients apart"
    clients = [Client(served.address, verbose=False) for _ in questions]
    gate, refused = threading.Barrier(20), threading.Event()
    busy = []
    put = AnswerStreamer.put

    def put_when_refused(self: AnswerStreamer, value: Any) -> None:
        refused.wait(PATIENCE)
        put(self, value)

    monkeypatch.setattr(AnswerStreamer, "put", put_when_refused)

    def ask(seed: int) -> str:
        gate.wait()
        for _ in range(60):
            try:
                return clients[seed].predict(handle_file(film_file(seed)), questions[seed], api_name="/ask_about_file")[
                    "text"
                ]
            except Exception as error:  # of several classes, by where the queue was full
                assert "full" in str(error) and "try again" in str(error).lower(), repr(error)
                busy.append(seed)
                refused.set()
                time.sleep(0.5)
        pytest.fail("never answered")

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == expected
    assert busy, "the queue was full for some"


@pytest.fixture
def slow_tokens(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Slows the model down to twenty tokens a second, and counts them."""
    put, tokens = AnswerStreamer.put, []

    def slow(self: AnswerStreamer, value: Any) -> None:
        tokens.append(value)
        time.sleep(0.05)
        put(self, value)

    monkeypatch.setattr(AnswerStreamer, "put", slow)
    return tokens


def assert_model_is_soon_free(served: Served) -> None:
    deadline = time.monotonic() + 5
    while not served.assistant.model_is_free.acquire(timeout=0.1):
        assert time.monotonic() < deadline, "the model works on though nobody listens"
    served.assistant.model_is_free.release()


def test_a_client_that_leaves_stops_its_answer(served, slow_tokens):
    call_address = f"{served.address}gradio_api/call/ask_about_file"
    event = httpx.post(call_address, json={"data": ["", "Describe everything that you see."]}).json()["event_id"]
    with httpx.stream("GET", f"{call_address}/{event}", timeout=30) as stream:
        for line in stream.iter_lines():
            if '"answer_tokens": ' in line and '"answer_tokens": 0' not in line:
                break
    assert_model_is_soon_free(served)
    assert len(slow_tokens) < 100


@dataclass
class Browser:
    """Talks as the page does in a browser: joins the queue, and listens to what comes of it."""

    served: Served
    session: str

    def join(self, name: str, event: Any = None, **values: Any) -> None:
        """Calls a function of the page; values are by the components' element ids, the others' are the initial ones.

        Where the page asks in two steps, as for a question, the caller joins the second one, too.
        """
        function = next(each for each in self.served.page.fns.values() if each.fn and each.fn.__name__ == name)
        data = [values.get(component.elem_id or "", component.value) for component in function.inputs]
        body = {"data": data, "fn_index": function._id, "session_hash": self.session}
        body["event_data"] = event
        assert httpx.post(f"{self.served.address}gradio_api/queue/join", json=body).status_code == 200

    def hears(self, *words: str) -> bool:
        """Whether an event with all of these words comes; stops listening there."""
        address = f"{self.served.address}gradio_api/queue/data?session_hash={self.session}"
        with httpx.stream("GET", address, timeout=60) as events:
            return any(all(word in line for word in words) for line in events.iter_lines())


def test_a_visitor_whose_session_has_ended_is_told_and_a_fresh_one_is_not(served):
    browser = Browser(served, "returning")
    history = [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}]
    browser.join("ask", question="And then?", chat=history)
    assert browser.hears("process_completed", "The connection was lost")
    browser.join("ask", question="Which?", chat=[])
    assert browser.hears("process_completed", '"success":true')
    served.sessions.end("returning")


def test_a_visitor_who_closes_the_page_stops_the_answer_and_leaves_nothing(served, slow_tokens):
    browser = Browser(served, "closing")
    with httpx.stream("GET", f"{served.address}gradio_api/heartbeat/closing", timeout=60):
        browser.join("load_sample", event={"index": 4})
        assert browser.hears("process_completed")
        folder = served.sessions.open("closing").folder
        assert len(list(folder.rglob("file*"))) == 1
        state = served.page.state_holder["closing"]
        assert any(getattr(value, "processed", None) for _, value, _ in state.state_components)
        browser.join("ask", question="Describe everything that you see.", chat=[])
        assert browser.hears("process_completed", "Describe everything")
        browser.join("answer")
        assert browser.hears("process_generating", " tokens in ")
    assert_model_is_soon_free(served)
    deadline = time.monotonic() + 10
    while folder.exists() or served.sessions.is_open("closing"):
        assert time.monotonic() < deadline, "the visitor's files are still there"
        time.sleep(0.1)
    assert len(slow_tokens) < 100
    assert served.assistant.memory.get("closing", "pruned") is None
    assert served.sessions.clips.get("closing", "1") is None
    while list(state.state_components):
        assert time.monotonic() < deadline, "what was shown is still there"
        time.sleep(0.1)


def test_nothing_is_kept_of_visitors_who_have_left(served):
    held = served.page.state_holder
    with httpx.stream("GET", f"{served.address}gradio_api/heartbeat/leaving", timeout=60):
        browser = Browser(served, "leaving")
        browser.join("load_sample", event={"index": 4})
        assert browser.hears("process_completed") and "leaving" in held
    deadline = time.monotonic() + 60
    while "leaving" in held or "leaving" in held.time_last_used:
        assert time.monotonic() < deadline, "the page's description is kept, a quarter of a megabyte for each visitor"
        time.sleep(0.1)


def test_a_crash_of_the_decoder_costs_one_request(served, client, monkeypatch):
    crashed = []

    def crash_when_received(pipe: io.BufferedReader) -> dict[str, Any]:
        header = read_header(pipe)
        if header == {"received": True} and not crashed:
            processes = [worker._process for worker in served.assistant.reader._workers]
            crashed.extend(process for process in processes if process is not None and process.stdout is pipe)
            crashed[0].send_signal(signal.SIGSEGV)
            crashed[0].wait()
            pipe.read()  # an answer that was already on its way is lost with the process
        return header

    monkeypatch.setattr(isolated_reading_omniv_med, "_read_header", crash_when_received)
    with pytest.raises(AppError, match="made its decoder fail"):
        client.predict(data_uri(VOLUME.read_bytes()), api_name="/describe_file")
    assert len(crashed) == 1
    assert client.predict(data_uri(VOLUME.read_bytes()), api_name="/describe_file")["kind"] == "volume"


def test_names_of_uploads_and_patients_do_not_reach_the_log(served, client, tmp_path, capfd, caplog, monkeypatch):
    caplog.set_level("DEBUG")
    named = tmp_path / "DOE_JANE_1970.nii"
    named.write_text("This is no NIfTI file of Jane Doe.\n" * 40)
    with pytest.raises(AppError, match="not a known medical image"):
        client.predict(handle_file(named), api_name="/describe_file")

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(2, "No such file", str(named))

    monkeypatch.setattr(served.assistant.processor, "process_clip", fail)
    with pytest.raises(AppError, match="Something failed on the server"):
        client.predict(data_uri(VOLUME.read_bytes()), api_name="/prune_file")
    printed = "".join(capfd.readouterr())
    # Of this process's clients, httpx logs addresses; they have no names in them either.
    logged = printed + caplog.text
    assert "FileNotFoundError in" in logged, "the kind of failure and its place are logged"
    assert "DOE" not in logged and "Traceback" not in printed
