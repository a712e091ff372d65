# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What requests bring becomes clips: decoded in processes apart from the server, with limits of time and memory.

No address and no file of the server is opened, unless its operator allows it by vLLM's own switches.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from transformers.dynamic_module_utils import get_class_from_dynamic_module
from vllm import envs
from vllm.config import ModelConfig
from vllm.multimodal.media import MediaConnector, MediaIO

READ_SECONDS, READ_GIGABYTES, READ_PROCESSES = "OMNIV_MED_READ_SECONDS", "OMNIV_MED_READ_GB", "OMNIV_MED_READERS"
"""Environment variables: what reading one file may take, and how many are read at once."""


class Medium(TypedDict):
    """One item of a request, as the processor gets it.

    Attributes:
        clip: the frames, a `Clip` of the model's reader.
        digest: of the file and of how it was read, by which vLLM caches what becomes of it.
    """

    clip: Any
    digest: str


class ClipReader:
    """Reads the media of requests as the model's own processor would, in processes of their own.

    Args:
        model_config: of the model that is served; its folder has the reader's code.
        processor: its `OmniVMedProcessor`, for the default number of frames.
    """

    def __init__(self, model_config: ModelConfig, processor: Any) -> None:
        isolated_reader = get_class_from_dynamic_module(
            "isolated_reading_omniv_med.IsolatedReader",
            model_config.model,
            revision=model_config.revision,
            code_revision=model_config.code_revision,
        )
        self._isolated = isolated_reader(
            time_limit=float(os.environ.get(READ_SECONDS, 60)),
            memory_limit=int(float(os.environ.get(READ_GIGABYTES, 4)) * 2**30),
            processes=int(os.environ.get(READ_PROCESSES, 2)),
        )
        self._defaults = {"max_frames": processor.max_frames, "fps": processor.fps}
        self._options = ("kind", *sys.modules[type(processor).__module__].MEDIA_OPTIONS)

    def read(self, content: str, options: Mapping[str, Any]) -> Medium:
        """Reads one file.

        Args:
            content: the file in base64.
            options: of the request's `media_io_kwargs`.

        Raises:
            ValueError: for an option that `load_clip` does not have, or that a stranger must not set.
            MediaError: for a file that cannot be read safely.
        """
        unknown = sorted(set(options) - set(self._options))
        if unknown:
            raise ValueError(f"Unknown media option {unknown}; the options are {', '.join(self._options)}.")
        clip = self._isolated.load_clip(f"data:;base64,{content}", **{**self._defaults, **options})
        digest = hashlib.blake2b(json.dumps([self._defaults, options], sort_keys=True).encode())
        digest.update(content.encode())
        return {"clip": clip, "digest": digest.hexdigest()}


_reader: ClipReader | None = None
_lock = threading.Lock()


def prepare_reader(model_config: ModelConfig, processor: Any) -> None:
    """Makes the reader of this process, where there is none. Its own processes start with the first file."""
    global _reader
    with _lock:
        if _reader is None:
            _reader = ClipReader(model_config, processor)


class ClipIO(MediaIO[Medium]):
    """What vLLM's connector hands the bytes of one file to."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = options

    def load_base64(self, media_type: str, data: str) -> Medium:
        """The media type is not looked at: what a file is, its content says."""
        if _reader is None:
            raise RuntimeError("No OmniV-Med model is served by this process.")
        return _reader.read(data, self.options)

    def load_bytes(self, data: bytes) -> Medium:
        return self.load_base64("", base64.b64encode(data).decode())

    def load_file(self, filepath: Path) -> Medium:
        try:
            return self.load_bytes(filepath.read_bytes())
        except OSError:
            raise ValueError(f"{filepath.name} is no file that the server can read; check its path.") from None


class IsolatedMediaConnector(MediaConnector):
    """vLLM's connector with another decoder, which opens nothing that the operator did not allow.

    An `image_url` that holds a film, say, is read as what it holds. The two names differ in the options that
    `media_io_kwargs` has for them, and in multi-frame DICOM, which is a picture only where its content leaves that
    open.
    """

    def fetch_image(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        return self.load_from_url(image_url, self._image_io(), fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT)

    async def fetch_image_async(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        return await self.load_from_url_async(image_url, self._image_io(), fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT)

    def fetch_video(self, video_url: str, *, image_mode: str | None = "RGB", video_processor: str | None = None) -> Any:
        return self.load_from_url(video_url, self._video_io(), fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT)

    async def fetch_video_async(
        self, video_url: str, *, image_mode: str | None = "RGB", video_processor: str | None = None
    ) -> Any:
        return await self.load_from_url_async(video_url, self._video_io(), fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT)

    def load_from_url(self, url: str, media_io: MediaIO[Any], *, fetch_timeout: int | None = None) -> Any:
        self._refuse_unless_allowed(url)
        return super().load_from_url(url, media_io, fetch_timeout=fetch_timeout)

    async def load_from_url_async(self, url: str, media_io: MediaIO[Any], *, fetch_timeout: int | None = None) -> Any:
        self._refuse_unless_allowed(url)
        return await super().load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)

    def _image_io(self) -> ClipIO:
        return ClipIO({"kind": "image", **self.media_io_kwargs.get("image", {})})

    def _video_io(self) -> ClipIO:
        return ClipIO(self.media_io_kwargs.get("video", {}))

    def _refuse_unless_allowed(self, url: str) -> None:
        """`ValueError` for an address that is neither data nor what the operator allows.

        vLLM itself fetches every address as long as no domains are listed.
        """
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            if not url.partition(",")[0].lower().endswith(";base64"):
                raise ValueError("The data: URI must be in base64 ('data:application/octet-stream;base64,…').")
        elif not (
            (scheme in ("http", "https") and self.allowed_media_domains)
            or (scheme == "file" and self.allowed_local_media_path)
        ):
            raise ValueError(
                "This server opens neither addresses nor its own files; send the file as a data: URI. Its operator can "
                "allow them with --allowed-media-domains and --allowed-local-media-path."
            )
