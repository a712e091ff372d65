# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A server on this machine that speaks as much of the Hugging Face Hub's API as an upload needs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.helpers.json_server import JsonHandler, in_background


@dataclass
class Hub:
    """What the server was asked for.

    Attributes:
        address: of the server.
        folder: where each repository's files lie, under KIND/OWNER/NAME.
        created: the requests that made repositories.
        variables: of Spaces.
    """

    address: str
    folder: Path
    created: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, dict[str, str]] = field(default_factory=dict)

    def repository(self, kind: str, name: str) -> Path:
        return self.folder / kind / name

    def files(self, kind: str, name: str) -> set[str]:
        """Paths of all files of a repository."""
        root = self.repository(kind, name)
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


class Handler(JsonHandler):
    """Answers the requests of `HfApi.create_repo`, `list_repo_files`, `add_space_variable` and `create_commit`."""

    hub: Hub

    def do_GET(self) -> None:
        match = re.match(r"/api/(model|space)s/([^/]+/[^/]+)/tree/main", self.path)
        if match is None:
            self.reply({"error": self.path}, 404)
            return
        root = self.hub.repository(match[1], match[2])
        files = sorted(self.hub.files(match[1], match[2]))
        sizes = [(root / name).stat().st_size for name in files]
        self.reply([{"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in zip(files, sizes, strict=True)])

    def do_POST(self) -> None:
        body = self.body()
        if self.headers.get("Authorization") != "Bearer hf_test":
            self.reply({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            self.hub.created.append(asked)
            name = f"{asked['organization']}/{asked['name']}"
            self.hub.repository(asked["type"], name).mkdir(parents=True, exist_ok=True)
            prefix = "" if asked["type"] == "model" else f"{asked['type']}s/"
            self.reply({"url": f"{self.hub.address}/{prefix}{name}", "name": name, "id": "0"})
        elif self.path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif match := re.match(r"/api/(model|space)s/([^/]+/[^/]+)/(preupload|commit|variables)", self.path):
            kind, name, verb = match.groups()
            if verb == "preupload":  # everything comes inside the commit, as small files do
                files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
                self.reply({"files": [one | {"shouldIgnore": False} for one in files]})
            elif verb == "variables":
                asked = json.loads(body)
                self.hub.variables.setdefault(name, {})[asked["key"]] = asked["value"]
                self.reply({asked["key"]: {"key": asked["key"], "value": asked["value"]}})
            else:
                self.commit(self.hub.repository(kind, name), body)
                prefix = "" if kind == "model" else f"{kind}s/"
                commit = f"{self.hub.address}/{prefix}{name}/commit/{'1' * 40}"
                self.reply({"commitUrl": commit, "commitOid": "1" * 40, "pullRequestUrl": None})
        else:
            self.reply({"error": self.path}, 404)

    def commit(self, root: Path, body: bytes) -> None:
        """Writes and deletes what the lines of a commit say."""
        for line in body.decode().splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                path = root / operation["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(operation["value"]["content"]))
            elif operation["key"] == "deletedFile":
                (root / operation["value"]["path"]).unlink()


@contextmanager
def hub_server(folder: Path) -> Iterator[Hub]:
    """Serves while the block runs."""
    handler = type("HandlerOfOneHub", (Handler,), {})
    with in_background(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as address:
        handler.hub = Hub(address, folder)
        yield handler.hub
