# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A real archive for tests: Orthanc with its DICOMweb plugin, on loopback, with its own configuration and folder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.loopback import free_port
from tests.helpers.waiting import PATIENCE, wait_until

PROGRAM = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
PLUGINS = [*Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so*")]
USER, PASSWORD = "reader", "loopback-only"
needs_orthanc = pytest.mark.skipif(
    not (PROGRAM and PLUGINS), reason="Orthanc is not installed (Debian: orthanc and orthanc-dicomweb)"
)


class Orthanc:
    """One server; `start`, `kill` and `start` again keep what it holds."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}/dicom-web"
        self.log = folder / "orthanc.log"
        self._configuration = folder / "orthanc.json"
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "TemporaryDirectory": str(folder),
            "DicomServerEnabled": False,
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [str(PLUGINS[0])],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": False},
        }
        self._configuration.write_text(json.dumps(settings), encoding="utf-8")

    def start(self) -> None:
        """Returns when it answers."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen([str(PROGRAM), str(self._configuration)], stdout=log, stderr=log)
        try:
            wait_until(self._answers, self._process)
        except AssertionError as error:
            pytest.fail(f"Orthanc did not start. {error}\n{self.log.read_text(errors='replace')[-2000:]}")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends it, by default without notice."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=PATIENCE)
            self._process = None

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.address}/studies", timeout=PATIENCE).close()
        except urllib.error.HTTPError as error:
            return error.code == 401  # it asks who we are
        except OSError:
            return False
        return True


@contextmanager
def orthanc_in(folder: Path) -> Iterator[Orthanc]:
    """A server that runs, with all its files in a folder."""
    server = Orthanc(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill(signal.SIGTERM)
