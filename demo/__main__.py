# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Serves the demo page, its API and its MCP server: `python -m demo --help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "hub_model"
MODEL_VARIABLE, AUTH_VARIABLE = "OMNIV_MED_MODEL", "OMNIV_MED_AUTH"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EPILOGUE = f"""environment:
  {MODEL_VARIABLE}      the model, unless --model is given
  {AUTH_VARIABLE}       user:password pairs, one per line, unless --auth-file is given
  GRADIO_SERVER_NAME   the host, unless --host is given
  GRADIO_SERVER_PORT   the port, unless --port is given

Everything stays on this machine: the page opens no tunnel and asks no other server. Its /?view=api describes the API;
the MCP server is at /gradio_api/mcp/, unless visitors must log in."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; exits with one sentence if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Serves the OmniV-Med page, its API and its MCP server.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOGUE,
    )
    serving = parser.add_argument_group("serving")
    serving.add_argument("--host", help="address to listen on, 0.0.0.0 for all networks (default: 127.0.0.1)")
    serving.add_argument("--port", type=int, help="default: the first free one from 7860")
    serving.add_argument("--model", help="folder or Hub id (default: hub_model of this project)")
    serving.add_argument(
        "--auth-file", type=Path, metavar="FILE", help="one user:password per line; visitors must log in"
    )
    serving.add_argument(
        "--archives",
        type=Path,
        metavar="FILE",
        help="YAML of archives whose studies visitors may choose (docs/archive.md)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-file-size", type=int, default=2048, metavar="MB", help="largest upload (default: %(default)s)"
    )
    limits.add_argument(
        "--max-frames", type=int, metavar="N", help="most slices or frames of a file (default: the model's)"
    )
    limits.add_argument(
        "--read-seconds", type=float, default=60, metavar="S", help="longest time to read a file (default: %(default)s)"
    )
    limits.add_argument(
        "--queue", type=int, default=64, metavar="N", help="requests that may wait (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    for name in ("max_file_size", "max_frames", "read_seconds", "queue"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    options.model = options.model or os.environ.get(MODEL_VARIABLE) or str(DEFAULT_MODEL)
    try:
        options.auth = read_auth(options.auth_file)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    host = options.host or os.environ.get("GRADIO_SERVER_NAME") or LOOPBACK[0]
    if options.archives and options.auth is None and host not in LOOPBACK:
        parser.error("--archives shows patients' studies: give --auth-file too, or let this machine alone ask")
    return options


def read_auth(file: Path | None) -> list[tuple[str, str]] | None:
    """The users and passwords in a file or the environment; None if there are none. No message quotes them.

    Raises:
        OSError: when the file cannot be read.
        ValueError: for a line that is not user:password.
    """
    text = file.read_text(encoding="utf-8") if file else os.environ.get(AUTH_VARIABLE, "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [(user, password) for user, _, password in (line.partition(":") for line in lines)]
    if not all(user and password for user, password in pairs) or (file and not pairs):
        source = "The file of --auth-file" if file else AUTH_VARIABLE
        raise ValueError(f"{source} must have one user:password per line")
    return pairs or None


def stop(*signal_and_frame: object) -> NoReturn:
    """Ends the program as Ctrl-C does, which deletes visitors' files."""
    sys.exit(0)


def main(arguments: list[str] | None = None) -> None:
    """Loads the model and serves until it is stopped."""
    options = parse_arguments(arguments)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it when it is imported
    # Imported here because it takes seconds, and a wrong argument should get its sentence at once.
    import gradio as gr

    from demo.api import app_options
    from demo.panels.page import build_page
    from demo.service.assistant import Assistant
    from demo.service.sessions import Sessions

    sessions = Sessions()
    try:
        assistant = Assistant(
            options.model,
            max_frames=options.max_frames,
            read_seconds=options.read_seconds,
            is_present=sessions.is_open,
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        sys.exit(f"The model {options.model} cannot be loaded; 'make model' assembles it in hub_model. {reason}")
    studies = None
    if options.archives:
        # Imported here: a page without archives does without the extra `clinic`.
        try:
            from demo.service.studies import Studies

            studies = Studies(options.archives, options.max_file_size << 20)
        except ImportError as error:
            sys.exit(f"--archives needs the extra clinic: pip install -e '.[demo,clinic]'. {error}")
        except ValueError as error:
            sys.exit(str(error))
    print(f"Loaded {assistant.description}.", flush=True)
    # The fonts of the visitor's system; Gradio's other themes ask a font server.
    theme = gr.themes.Default(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    signal.signal(signal.SIGTERM, stop)
    page, largest_upload = build_page(assistant, sessions, studies), options.max_file_size << 20
    page.queue(max_size=options.queue).launch(
        server_name=options.host,
        server_port=options.port,
        auth=options.auth,
        max_file_size=largest_upload,
        app_kwargs=app_options(largest_upload),
        share=False,
        mcp_server=options.auth is None,  # its clients cannot log in
        theme=theme,
        footer_links=["api"],
        state_session_capacity=1000,  # visitors; of each, real or made up, Gradio keeps a quarter of a megabyte
    )


if __name__ == "__main__":
    main()
