# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What programs and AI assistants call through gradio_client, HTTP or MCP. Calls are independent and leave nothing.

A file is an upload or a data: URI. No path and no address that a client names is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr
from gradio.events import api
from gradio.exceptions import InvalidPathError
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from demo.panels.errors import errors_for_visitors, visible_error
from demo.panels.queues import MODEL, MOST_READING, READING
from demo.service.assistant import Assistant
from demo.service.dialogue import Medium, Turn
from demo.service.export import answer_record
from demo.service.uploads import RefusedFileError, scratch_copy, uploaded_file
from hub_model.configuration_omniv_med import PruneStage
from hub_model.token_pruning_omniv_med import RULE_WORDS, PruneRule

if TYPE_CHECKING:
    from hub_model.media_omniv_med import Clip

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
BESIDE_A_FILE = 1 << 20
"""Bytes of a request besides its file."""


class ClosedBlocks(gr.Blocks):
    """Blocks that fetch no address and open no path for a client, whatever component an input belongs to.

    Gradio downloads a file that a client names by its address before any function sees it, and writes errors that quote
    paths into the log.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        try:
            refuse_addresses(inputs)
            return await super().preprocess_data(block_fn, inputs, *arguments, **options)
        except RefusedFileError as error:
            message = str(error)
        except InvalidPathError:
            message = "Only uploads are opened, and no other paths; load the file again."
        except Exception as error:  # such as too few values, which Gradio's message quotes
            message = f"The request does not fit ({type(error).__name__}); the page's /?view=api says what it takes."
        raise visible_error(message)


class LimitedBodies:
    """Refuses requests whose body is larger than a file of the largest size as a `data:` URI.

    Gradio limits each upload, but holds the body of any other request in memory, however large it is.

    Args:
        app: the server, an ASGI application.
        largest_upload: the largest size of a file in bytes.
    """

    def __init__(self, app: Any, largest_upload: int) -> None:
        self.app, self.largest_upload = app, largest_upload
        self.most = largest_upload * 4 // 3 + BESIDE_A_FILE

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].endswith("/upload"):
            await self.app(scope, receive, send)
            return
        if int(dict(scope["headers"]).get(b"content-length", b"0")) > self.most:
            message = f"The file is larger than {self.largest_upload >> 20} MB; make it smaller."
            await PlainTextResponse(message, status_code=413)(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return {"type": "http.disconnect"} if received > self.most else message  # it came without a length

        await self.app(scope, receive_limited, send)


def app_options(largest_upload: int) -> dict[str, Any]:
    """The argument `app_kwargs` of `launch`."""
    return {"middleware": [Middleware(LimitedBodies, largest_upload=largest_upload)]}


def refuse_addresses(value: Any) -> None:
    """Raises `RefusedFileError` if a client's input, however nested, names a file by its address."""
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and "://" in path and not path.startswith("data:"):
            raise RefusedFileError("Addresses are not fetched; upload the file, or give it as a data: URI.")
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            refuse_addresses(item)


def description(clip: Clip) -> dict[str, Any]:
    """What a client learns of a medium that was read."""
    count, height, width = clip.frames.shape[:3]
    return {
        "kind": clip.kind,
        "frames": count,
        "frames_in_file": clip.source_frames,
        "height": height,
        "width": width,
        "pixel_spacing_mm": list(clip.pixel_spacing),
        "positions": [round(float(position), 4) for position in clip.positions],
        "unit": clip.unit,
        "modality": clip.modality,
        "notes": list(clip.notes),
    }


def answers(
    assistant: Assistant, read: Callable[[], Clip | None], question: Any, changes: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The answer to a client's question, again and again until it is complete.

    Args:
        read: gives the medium that is asked about, if any; called when the rest of the request makes sense.
        question: in English.
        changes: of the pruning settings.

    Raises:
        ValueError: for a question or setting that means nothing, and as `read` does.
    """
    if not isinstance(question, str) or not question.strip():
        raise ValueError("Write a question.")
    settings = assistant.defaults.changed_by_client(**changes)
    clip = read()
    media = (Medium("file", clip),) if clip is not None else ()
    for answer in assistant.answer([Turn(question.strip(), media)], settings):
        yield {**answer_record(answer)}


def tells_rules(function: Endpoint) -> Endpoint:
    """Puts the pruning rules in place of `{rules}` in a docstring, of which Gradio shows clients a line a parameter."""
    rules = ", ".join(f'"{rule}" ({words})' for rule, words in RULE_WORDS.items())
    function.__doc__ = (function.__doc__ or "").replace("{rules}", rules)
    return function


class Endpoints:
    """The functions behind the endpoints. Gradio and MCP publish their names, signatures and docstrings."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant

    def describe_file(self, file: str) -> dict[str, Any]:
        """Reads a medical image, volume or video and says what it is; nothing about the patient.

        Args:
            file: the file as a data: URI (data:application/octet-stream;base64,...), or an upload: what gradio_client's
                handle_file makes of a local file. DICOM, NIfTI, NRRD, PNG, JPEG, TIFF, MP4, zip with a series, ...

        Returns:
            kind ("image", "volume", "video"), frames read and in the file, height and width in pixels,
            pixel_spacing_mm (rows, columns; 0 where unknown), positions of the frames with their unit, modality by its
            DICOM code, notes.
        """
        with errors_for_visitors():
            return description(self._read(file))

    @tells_rules
    def prune_file(
        self, file: str, rule: PruneRule = "anchor", threshold: float = 0.1, keep_ratio: float = 1.0
    ) -> dict[str, Any]:
        """Says which visual tokens of a file pruning keeps, and how much each removed token differs from its stand-in.

        Args:
            file: the file as a data: URI or an upload.
            rule: what a token is compared with. {rules}
            threshold: largest mean difference of a removed token, in pixel values of [-1, 1].
            keep_ratio: largest share of the tokens that is kept; 1 sets no budget.

        Returns:
            tokens_before and tokens_after (position labels included), reduction (share), worst_error, threshold used,
            grid (rows, columns of tokens in a frame), kept_per_frame, notes.
        """
        with errors_for_visitors():
            defaults = self._assistant.defaults
            settings = defaults.changed_by_client(
                rule=rule, threshold=threshold, keep_ratio=keep_ratio, stage=defaults.stage
            )
            processed = self._assistant.prune(self._read(file), settings)
            return {
                "tokens_before": processed.tokens_before,
                "tokens_after": processed.tokens_after,
                "reduction": round(processed.reduction, 4),
                "worst_error": round(processed.pruned.worst_error, 5),
                "threshold": round(processed.pruned.threshold, 5),
                "grid": list(processed.grid),
                "kept_per_frame": processed.pruned.keep_mask.sum(dim=1).tolist(),
                "notes": list(processed.notes),
            }

    def ask_about_file(
        self,
        file: str,
        question: str,
        rule: PruneRule = "anchor",
        threshold: float = 0.1,
        keep_ratio: float = 1.0,
        stage: PruneStage = "language",
    ) -> Iterator[dict[str, Any]]:
        """Asks one question about a medical image, volume or video; for research only, answers can be wrong.

        Args:
            file: the file as a data: URI or an upload; "" asks without a file.
            question: in English.
            rule: as for prune_file.
            threshold: as for prune_file.
            keep_ratio: as for prune_file.
            stage: "language" leaves removed tokens out of the prompt, "encoder" does not encode them either.

        Returns:
            text of the answer; confidence (calibrated probability that it is right, null while it is streamed and
            without a file); declined (true where it says that it cannot be told); likeliest (what it would have
            answered, where it declined because it was not sure enough); complete (false while it is streamed); numbers
            of tokens; seconds.
        """
        with errors_for_visitors():
            changes = {"rule": rule, "threshold": threshold, "keep_ratio": keep_ratio, "stage": stage}
            yield from answers(self._assistant, lambda: self._read(file) if file else None, question, changes)

    def _read(self, file: Any) -> Any:
        """Reads what a client sent as a file."""
        with scratch_copy(uploaded_file(file, get_upload_folder())) as copy:
            return self._assistant.read(copy)


def add_endpoints(assistant: Assistant) -> None:
    """Adds the endpoints to the page that is being built."""
    endpoints = Endpoints(assistant)
    api(endpoints.describe_file, concurrency_limit=MOST_READING, concurrency_id=READING)
    api(endpoints.prune_file, concurrency_limit=MOST_READING, concurrency_id=READING)
    api(endpoints.ask_about_file, concurrency_limit=1, concurrency_id=MODEL)
