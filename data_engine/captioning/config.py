# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The configuration of a captioning run: who writes, who judges, what is captioned, and the limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from data_engine.files import YamlError, read_yaml
from data_engine.records import Modality, Split, Strict


class CaptionError(ValueError):
    """Whatever ends a run of the command, in one sentence."""


class Endpoint(Strict):
    """A model behind an OpenAI-compatible server.

    Attributes:
        base_url: of the server, with its "/v1".
        model: its name there.
        api_key_env: environment variable that holds the key; None for a server that asks for none.
        temperature: of its sampling; a generator at 0 would write the same candidate again and again.
        max_tokens: longest answer.
        input_price, output_price: of a million tokens, in any one currency.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: Annotated[str, Field(min_length=1)]
    api_key_env: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(ge=1)] = 512
    input_price: Annotated[float, Field(ge=0)] = 0.0
    output_price: Annotated[float, Field(ge=0)] = 0.0


class Judge(Endpoint):
    """A model that scores captions.

    Attributes:
        sees_media: a text-only judge, as the paper's HuatuoGPT2-13B, is given the known facts and no pictures.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    sees_media: bool = True


class RecordsSource(Strict):
    """The media of a file of records, each captioned once; what the records say about them are known facts."""

    kind: Literal["records"]
    path: Path


class FolderSource(Strict):
    """All videos of a folder and of the folders in it."""

    kind: Literal["folder"]
    path: Path
    name: Annotated[str, Field(min_length=1)]
    license: Annotated[str, Field(min_length=1)]
    modality: Modality = "unknown"
    split: Split = "train"


class Sampling(Strict):
    """Which pictures of a medium the models are shown.

    Attributes:
        frames: at most so many frames or slices of a medium, as `load_clip` samples them.
        longest_side: pixels; larger frames are made smaller.
        ct_window: (width, level) in HU. One window, grey: other models were not trained on the three of our encoder.
    """

    frames: Annotated[int, Field(ge=1)] = 8
    longest_side: Annotated[int, Field(ge=28)] = 672
    ct_window: tuple[Annotated[float, Field(gt=0)], float] = (400.0, 40.0)


class CaptionConfig(Strict):
    """One YAML file.

    Attributes:
        candidates: captions that the generator writes of each item.
        threshold: the score, 1 to 5, that the best candidate must reach.
        max_concurrent: requests in flight at most, over all endpoints.
        timeout: seconds that one try of a request may take.
        max_retries: further tries after a failed one. The waits between them double from 0.5 s to 8 s, so that 12
            bridge about a minute without a server.
        seed: sent with each request, plus the candidate's number.
        sources: paths are relative to the configuration.
    """

    generator: Endpoint
    judges: Annotated[tuple[Judge, ...], Field(min_length=1)]
    sources: Annotated[
        tuple[Annotated[RecordsSource | FolderSource, Field(discriminator="kind")], ...], Field(min_length=1)
    ]
    sampling: Sampling = Sampling()
    candidates: Annotated[int, Field(ge=1)] = 4
    threshold: Annotated[float, Field(ge=1, le=5)] = 4.0
    max_concurrent: Annotated[int, Field(ge=1)] = 8
    timeout: Annotated[float, Field(gt=0)] = 120.0
    max_retries: Annotated[int, Field(ge=0)] = 12
    seed: int = 0

    @model_validator(mode="after")
    def _judges_have_names(self) -> CaptionConfig:
        if len({judge.model for judge in self.judges}) < len(self.judges):
            raise ValueError("two judges are the same model; name each once")
        return self

    @classmethod
    def read(cls, path: Path) -> CaptionConfig:
        """Reads YAML.

        Raises:
            CaptionError: a file that is not there, or holds something else.
        """
        try:
            config = cls.model_validate(read_yaml(path))
        except YamlError as error:
            raise CaptionError(str(error)) from None
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "configuration"
            raise CaptionError(f"{path}: {field}: {first['msg'].removeprefix('Value error, ')}.") from None
        placed = [source.model_copy(update={"path": path.parent / source.path}) for source in config.sources]
        return config.model_copy(update={"sources": tuple(placed)})
