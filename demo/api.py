# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What programs and assistants call, through gradio_client, HTTP or MCP; each call stands alone and leaves nothing.

A file is an upload or a data: URI. No path and no address that a client names is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from demo.panels.chat import MODEL, answer_as_json
from demo.panels.pruning_panel import PruningSettings
from demo.service.assistant import Assistant, Medium, Turn
from demo.service.errors import in_one_sentence
from demo.service.sessions import RefusedFileError, scratch_copy, uploaded_file

READING = "reading"
"""Gradio's concurrency group of all that reads files."""
MOST_READING = 2
"""Files that are read at once, as many as `IsolatedReader` has processes."""
BESIDE_A_FILE = 1 << 20
"""Bytes of a request besides its file."""
Rule = Literal["anchor", "previous", "none"]
Stage = Literal["language", "encoder"]


class ClosedBlocks(gr.Blocks):
    """Blocks that fetch no address and open no path for a client, whatever component an input belongs to.

    Gradio downloads a file that is named by its address before a function sees it, and writes its own errors with the
    paths in them into the log.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        try:
            refuse_addresses(inputs)
            return await super().preprocess_data(block_fn, inputs, *arguments, **options)
        except RefusedFileError as error:
            told = str(error)
        except InvalidPathError:
            told = "Only uploads are opened, and no other paths; load the file again."
        except Exception as error:  # such as too few values, which Gradio's message quotes
            told = f"The request does not fit ({type(error).__name__}); the page's /?view=api says what it takes."
        raise gr.Error(told, print_exception=False)


class LimitedBodies:
    """Refuses requests with a larger body than a file of the largest size makes as a `data:` URI.

    Gradio limits the uploads, each of them, and holds the body of any other request in memory, however large it is.

    Args:
        app: the server, an ASGI application.
        largest_upload: bytes of a file at most.
    """

    def __init__(self, app: Any, largest_upload: int) -> None:
        self.app, self.largest_upload = app, largest_upload
        self.most = largest_upload * 4 // 3 + BESIDE_A_FILE

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].endswith("/upload"):
            await self.app(scope, receive, send)
            return
        if int(dict(scope["headers"]).get(b"content-length", b"0")) > self.most:
            words = f"The file is larger than {self.largest_upload >> 20} MB; make it smaller."
            await PlainTextResponse(words, status_code=413)(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return {"type": "http.disconnect"} if received > self.most else message  # its length was not told before

        await self.app(scope, receive_limited, send)


def app_options(largest_upload: int) -> dict[str, Any]:
    """The argument `app_kwargs` of `launch`."""
    return {"middleware": [Middleware(LimitedBodies, largest_upload=largest_upload)]}


def refuse_addresses(value: Any) -> None:
    """Raises `RefusedFileError` where a file in a client's input, however deep, is named by its address."""
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and "://" in path and not path.startswith("data:"):
            raise RefusedFileError("Addresses are not fetched; upload the file, or give it as a data: URI.")
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            refuse_addresses(item)


def add_endpoints(assistant: Assistant) -> None:
    """Adds the endpoints to the page that is being built."""

    def read(file: Any) -> Any:
        with scratch_copy(uploaded_file(file, get_upload_folder())) as copy:
            return assistant.read(copy)

    def settings(rule: Any, threshold: Any, keep_ratio: Any, stage: Any) -> PruningSettings:
        if rule not in ("anchor", "previous", "none") or stage not in ("language", "encoder"):
            raise ValueError("rule is 'anchor', 'previous' or 'none', and stage 'language' or 'encoder'.")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold <= 2:
            raise ValueError("threshold is a number from 0 to 2.")
        if isinstance(keep_ratio, bool) or not isinstance(keep_ratio, (int, float)) or not 0 < keep_ratio <= 1:
            raise ValueError("keep_ratio is a number above 0 and at most 1, which sets no budget.")
        budget = None if keep_ratio == 1 else keep_ratio
        return replace(assistant.defaults, rule=rule, threshold=threshold, keep_ratio=budget, stage=stage)

    def describe_file(file: str) -> dict[str, Any]:
        """Reads a medical image, volume or video and says what it is; nothing about the patient.

        Args:
            file: the file as a data: URI (data:application/octet-stream;base64,...), or an upload: what gradio_client's
                handle_file makes of a local file. DICOM, NIfTI, NRRD, PNG, JPEG, TIFF, MP4, zip with a series, ...

        Returns:
            kind ("image", "volume", "video"), frames read and in the file, height and width in pixels,
            pixel_spacing_mm (rows, columns; 0 where unknown), positions of the frames with their unit, modality by its
            DICOM code, notes.
        """
        with in_one_sentence():
            clip = read(file)
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

    def prune_file(file: str, rule: Rule = "anchor", threshold: float = 0.1, keep_ratio: float = 1.0) -> dict[str, Any]:
        """Says which visual tokens of a file pruning keeps, and how far what it removes is from what stands for it.

        Args:
            file: the file as a data: URI or an upload.
            rule: "anchor" compares a token with the last kept one at its place, "previous" with the frame before (as
                published), "none" keeps all.
            threshold: largest mean difference of a removed token, in pixel values of [-1, 1].
            keep_ratio: largest share of the tokens that is kept; 1 sets no budget.

        Returns:
            tokens_before and tokens_after (position labels counted), reduction (share), worst_error, threshold used,
            grid (rows, columns of tokens in a frame), kept_per_frame, notes.
        """
        with in_one_sentence():
            processed = assistant.prune(read(file), settings(rule, threshold, keep_ratio, assistant.defaults.stage))
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
        file: str,
        question: str,
        rule: Rule = "anchor",
        threshold: float = 0.1,
        keep_ratio: float = 1.0,
        stage: Stage = "language",
    ) -> Iterator[dict[str, Any]]:
        """Asks one question about a medical image, volume or video; for research only, answers can be wrong.

        Args:
            file: the file as a data: URI or an upload; "" asks about words alone.
            question: in English.
            rule: as for prune_file.
            threshold: as for prune_file.
            keep_ratio: as for prune_file.
            stage: "language" leaves removed tokens out of the prompt, "encoder" does not encode them either.

        Returns:
            text of the answer, complete (false while it is streamed), numbers of tokens, seconds.
        """
        with in_one_sentence():
            if not isinstance(question, str) or not question.strip():
                raise ValueError("Write a question.")
            pruning = settings(rule, threshold, keep_ratio, stage)
            media = (Medium("file", read(file)),) if file else ()
            for answer in assistant.answer([Turn(question.strip(), media)], pruning):
                yield answer_as_json(answer)

    gr.api(describe_file, concurrency_limit=MOST_READING, concurrency_id=READING)
    gr.api(prune_file, concurrency_limit=MOST_READING, concurrency_id=READING)
    gr.api(ask_about_file, concurrency_limit=1, concurrency_id=MODEL)
