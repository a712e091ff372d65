# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Many clients of the page and of the API at once: is an answer lost, does one get another's, does memory grow?

    python -m benchmarks.soak --model hub_model --clients 20 --seconds 300 --json runs/soak.json

Starts the demo in a process of its own. Every other client visits the page as a browser does: it uploads a file, loads
it, asks, saves the conversation as JSON, and closes the page; the others ask the API. Each has a film of its own length
and asks again and again. First each is asked alone; under load every answer must equal that one, with its confidence
and its numbers of tokens. An answer is lost if it does not come, and mixed if it differs. A client that the full queue
sends away asks again. Memory is that of the demo's processes, resident, sampled each second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from gradio_client import Client, handle_file

from benchmarks.demo_process import running_demo
from benchmarks.memory import stages, watched_memory
from benchmarks.report import write_json
from benchmarks.server_process import PATIENCE

QUESTION = "Which imaging modality is this?"
COMPARED = ("text", "confidence", "visual_tokens", "visual_tokens_without_pruning", "prompt_tokens")
"""What of an answer must be the same alone and under load."""
Answer = tuple[Any, ...]


class SentAwayError(Exception):
    """The queue was full; the client may try again."""


def film(frames: int) -> np.ndarray:
    """A disc that moves through `frames` frames, uint8 (T, 64, 64)."""
    rows, columns = np.mgrid[:64, :64]
    centres = np.linspace(16, 48, frames)
    return np.stack([np.where((rows - 32) ** 2 + (columns - x) ** 2 < 150, 200, 20) for x in centres]).astype(np.uint8)


def asked_by_api(client: Client, path: Path) -> Answer:
    """The answer that a program gets."""
    answer = client.predict(handle_file(path), QUESTION, api_name="/ask_about_file")
    return tuple(answer[name] for name in COMPARED)


class Visitor:
    """Talks with the page as a browser does: joins Gradio's queue and listens to what comes of it.

    Args:
        address: of the page, ending with "/".
        config: what the page tells a browser about itself.
    """

    def __init__(self, address: str, config: dict[str, Any]) -> None:
        self._api, self._config = f"{address}gradio_api/", config
        self._session = uuid.uuid4().hex[:12]
        self._values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self._names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}

    def call(self, name: str, event: Any = None, **values: Any) -> list[Any]:
        """Calls a function of the page; `values` are by element ids, those of other components the initial ones."""
        function = next(each for each in self._config["dependencies"] if each["api_name"] == name)
        data = [values.get(self._names.get(part) or "", self._values.get(part)) for part in function["inputs"]]
        body = {"data": data, "fn_index": function["id"], "session_hash": self._session, "event_data": event}
        joined = httpx.post(f"{self._api}queue/join", json=body, timeout=PATIENCE)
        if joined.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise SentAwayError
        joined.raise_for_status()
        address = f"{self._api}queue/data?session_hash={self._session}"
        with httpx.stream("GET", address, timeout=PATIENCE) as events:
            for line in events.iter_lines():
                told = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if told.get("msg") == "process_completed" and told.get("event_id") == joined.json()["event_id"]:
                    if not told["success"]:
                        raise RuntimeError(f"{name}: {told['output'].get('error')}")
                    output: list[Any] = told["output"].get("data", [])
                    return output
        raise RuntimeError(f"{name}: the connection ended before the answer")

    def ask(self, path: Path) -> Answer:
        """Opens the page, loads a file, asks, saves the conversation, and closes the page."""
        with httpx.stream("GET", f"{self._api}heartbeat/{self._session}", timeout=PATIENCE):
            with open(path, "rb") as file:
                upload = {"files": ("upload-a-00001.npy", file)}
                paths = httpx.post(f"{self._api}upload", files=upload, timeout=PATIENCE).raise_for_status().json()
            self.call("load_uploads", {"files": paths})
            self.call("ask", question=QUESTION, chat=[])
            self.call("answer")
            _, _, saved = json.loads(self.call("save")[0])
        conversation = json.loads(saved)["conversation"]
        if len(conversation) != 1 or conversation[0]["question"] != QUESTION or conversation[0]["files"] != [1]:
            raise RuntimeError("the saved conversation is not this visitor's")
        return tuple(conversation[0]["answers"]["pruned"][name] for name in COMPARED)


@dataclass
class Tally:
    """What became of the questions of all clients; `seconds` are those that each answer took."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"page": [], "api": []})
    lost: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    sent_away: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, kind: str, question: Callable[[], Answer], expected: Answer) -> None:
        """Asks once, and notes what comes."""
        start = time.monotonic()
        try:
            answer = question()
        except SentAwayError:
            with self.lock:
                self.sent_away += 1
            time.sleep(1)
            return
        except Exception as error:  # whatever it is, there is no answer
            with self.lock:
                self.lost.append(f"{kind}: {type(error).__name__}: {error}"[:300])
            return
        with self.lock:
            self.seconds[kind].append(time.monotonic() - start)
            if answer != expected:
                self.mixed.append(f"{kind}: {answer} in place of {expected}")


def soak(address: str, process: int, folder: Path, clients: int, seconds: float) -> dict[str, Any]:
    """Asks each client's question alone, then all of them again and again for so many seconds; the figures."""
    paths = [folder / f"{number}.npy" for number in range(clients)]
    for number, path in enumerate(paths):
        np.save(path, film(number + 2))
    first = Client(address, verbose=False)
    expected = [asked_by_api(first, path) for path in paths]
    config = httpx.get(f"{address}config", timeout=PATIENCE).json()
    tally = Tally()
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        path, client = paths[number], None if number % 2 else Client(address, verbose=False)
        asked = 0
        while time.monotonic() < end or not asked:
            if client is None:
                tally.ask("page", lambda: Visitor(address, config).ask(path), expected[number])
            else:
                tally.ask("api", lambda: asked_by_api(client, path), expected[number])
            asked += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    with watched_memory(process, 1) as samples:
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
    return {
        "clients": clients,
        "seconds": seconds,
        "answers": {kind: len(taken) for kind, taken in tally.seconds.items()},
        "median_seconds": {kind: round(median(taken), 2) for kind, taken in tally.seconds.items() if taken},
        "lost": tally.lost,
        "mixed": tally.mixed,
        "sent_away": tally.sent_away,
        "distinct_answers_alone": len(set(expected)),
        "memory_mib": stages(samples),
    }


def main(arguments: list[str] | None = None) -> None:
    """Starts the demo, runs the clients, prints and writes the figures; fails if an answer was lost or mixed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hub_model", help="folder or Hub id (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=20, help="half of the page, half of the API")
    parser.add_argument("--seconds", type=float, default=300, help="how long clients begin new questions")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    with running_demo(options.model) as (address, process), tempfile.TemporaryDirectory() as folder:
        results = soak(address, process, Path(folder), options.clients, options.seconds)
    print(json.dumps(results, indent=1))
    if options.json:
        write_json(options.json, "soak", results)
    if results["lost"] or results["mixed"]:
        sys.exit("Answers were lost or mixed.")


if __name__ == "__main__":
    main()
