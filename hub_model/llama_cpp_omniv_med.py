# Copyright 2026 The OmniV-Med Authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The model with its language model in llama.cpp, which decodes faster on a CPU; the encoder stays in torch.

    model = OmniVMedWithLlamaCpp.from_pretrained("hub_model", gguf="nano-f16.gguf")
    answered = answer(model, processor, messages)

`generate` runs as ever, with its biases, stop tokens and processors of logits; only the layers of the language model
are computed elsewhere, from the same embeddings. Needs llama-cpp-python, whose functions mirror llama.cpp's C API
(https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h). `python -m train.checkpoints.language_model_gguf`
writes the file.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import weakref
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

from .configuration_omniv_med import OmniVMedConfig, PruneStage
from .modeling_omniv_med import OmniVMedCausalLMOutputWithPast, OmniVMedForConditionalGeneration

NEEDED = "llama.cpp decodes through llama-cpp-python, which is not installed; pip install 'llama-cpp-python>=0.3.36'"
"""What is said where the package is missing."""
FINGERPRINT = "omniv_med.embeddings"
"""Field of the file that says which model's it is."""
LONGEST_FIELD = 256
"""Bytes of a field's value that are read."""


def fingerprint_of_embeddings(table: torch.Tensor) -> str:
    """SHA-256 of embeddings (vocabulary, width) in bfloat16, by which a file and a model know each other.

    All stages of the recipe train them, so another checkpoint has others.
    """
    return hashlib.sha256(table.detach().cpu().to(torch.bfloat16).view(torch.uint8).numpy().tobytes()).hexdigest()


def _library() -> Any:
    """llama-cpp-python, silent: what fails is raised here.

    Raises:
        ImportError: where it is not installed.
    """
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)
    try:
        import llama_cpp
    except ImportError:
        raise ImportError(NEEDED) from None
    return llama_cpp


class LlamaCppDecoder:
    """A language model in a GGUF file, which reads embeddings and gives logits; one sequence at a time.

    Attributes:
        width: size of an embedding.
        vocabulary: tokens that have a logit.
        longest: positions that fit.
        fingerprint: of the embeddings that it was trained with (`fingerprint_of_embeddings`); empty if it says none.
    """

    def __init__(self, file: str | os.PathLike[str], threads: int | None = None):
        """Loads the file.

        Args:
            file: GGUF of a language model.
            threads: that compute; as many as torch uses by default.

        Raises:
            ImportError: llama-cpp-python is not installed.
            ValueError: the file cannot be read as a language model.
        """
        self._api = api = _library()
        api.llama_backend_init()
        model = api.llama_model_load_from_file(os.fsencode(file), api.llama_model_default_params())
        if not model:
            raise ValueError(f"{os.path.basename(file)} is no GGUF file of a language model that llama.cpp reads.")
        options = api.llama_context_default_params()
        self.longest = options.n_ctx = options.n_batch = api.llama_model_n_ctx_train(model)
        options.n_threads = options.n_threads_batch = threads or torch.get_num_threads()
        context = api.llama_init_from_model(model, options)
        self._context, self._memory = context, api.llama_get_memory(context)
        self.width = api.llama_model_n_embd(model)
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        text = ctypes.create_string_buffer(LONGEST_FIELD)
        found = api.llama_model_meta_val_str(model, FINGERPRINT.encode(), text, LONGEST_FIELD) > 0
        self.fingerprint = text.value.decode() if found else ""
        self._read = 0
        self._batch = batch = api.llama_batch_init(self.longest, self.width, 1)
        for place in range(self.longest):
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0

        def free() -> None:
            api.llama_batch_free(batch)
            api.llama_free(context)
            api.llama_model_free(model)

        weakref.finalize(self, free)

    def logits(
        self, embeddings: npt.NDArray[np.float32], first: int = 0, last: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Reads embeddings after what was read before.

        Args:
            embeddings: (length, width).
            first: position of the first one; what was read at it or beyond it before is forgotten.
            last: of how many of the last positions logits are wanted; None for all.

        Returns:
            Of the token after each of these positions, (last, vocabulary).

        Raises:
            ValueError: where they do not follow what was read, or do not fit.
            RuntimeError: llama.cpp fails.
        """
        length = len(embeddings)
        last = length if last is None else min(last, length)
        if not 0 <= first <= self._read:
            raise ValueError(f"Position {first} does not follow the {self._read} that llama.cpp has read.")
        if first + length > self.longest:
            raise ValueError(f"The prompt and its answer have more than {self.longest} tokens.")
        self._api.llama_memory_seq_rm(self._memory, 0, first, -1)
        self._read = first
        wanted, batch = np.ascontiguousarray(embeddings, np.float32), self._batch
        if wanted.shape != (length, self.width):
            raise ValueError(f"Embeddings are {self.width} wide in this GGUF file, and those given {wanted.shape[1]}.")
        ctypes.memmove(batch.embd, wanted.ctypes.data, wanted.nbytes)
        batch.n_tokens = length
        for place in range(length):
            batch.pos[place] = first + place
            batch.logits[place] = place >= length - last
        if status := self._api.llama_decode(self._context, batch):
            raise RuntimeError(f"llama.cpp could not read {length} tokens (llama_decode gave {status}).")
        self._read = first + length
        given = self._api.llama_get_logits(self._context)
        return np.ctypeslib.as_array(given, (last, self.vocabulary)).copy()


class _Embeddings(nn.Module):
    """In the place of a language model: its table of embeddings, and what it is given comes back as it is."""

    def __init__(self, embed_tokens: nn.Module):
        super().__init__()
        self.embed_tokens = embed_tokens

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def forward(self, inputs_embeds: torch.Tensor, **_: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)


class OmniVMedWithLlamaCpp(OmniVMedForConditionalGeneration):
    """The whole model, its language model's layers in llama.cpp; made by `from_pretrained`, and for inference only.

    It answers one conversation at a time.
    """

    _keys_to_ignore_on_load_unexpected = [r"language_model\.(layers|norm)\."]  # noqa: RUF012

    decoder: LlamaCppDecoder

    def __init__(self, config: OmniVMedConfig):
        super().__init__(config)
        self.model.language_model = _Embeddings(self.model.language_model.get_input_embeddings())

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, model: str | os.PathLike[str], *arguments: Any, gguf: str | os.PathLike[str], **options: Any
    ) -> OmniVMedWithLlamaCpp:
        """Loads encoder, projector and embeddings as ever, and the rest from a GGUF file.

        Raises:
            ImportError: llama-cpp-python is not installed.
            ValueError: the file is none, or holds another language model than this one's.
        """
        decoder = LlamaCppDecoder(gguf)
        loaded = super().from_pretrained(model, *arguments, **options)
        if decoder.fingerprint != fingerprint_of_embeddings(cast("torch.Tensor", loaded.get_input_embeddings().weight)):
            raise ValueError(f"{os.path.basename(gguf)} holds another language model than {model}; write it anew.")
        loaded.decoder = decoder
        return loaded

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        grid_thw: torch.Tensor | None = None,
        merge_sizes: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
        frame_positions: torch.Tensor | None = None,
        patch_spacing: torch.Tensor | None = None,
        prune_stage: PruneStage | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> OmniVMedCausalLMOutputWithPast:
        """Arguments as in `OmniVMedForConditionalGeneration.forward`.

        The cache is llama.cpp's own: positions after 0 follow what the call before has read, whatever
        `past_key_values` holds.

        Raises:
            ValueError: several sequences, padding, or positions that do not follow.
        """
        embedded = self.model(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            grid_thw=grid_thw,
            merge_sizes=merge_sizes,
            keep_mask=keep_mask,
            frame_positions=frame_positions,
            patch_spacing=patch_spacing,
            prune_stage=prune_stage,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
        ).last_hidden_state
        if len(embedded) != 1 or (attention_mask is not None and not attention_mask.all()):
            raise ValueError("llama.cpp answers one conversation at a time here; ask one after the other.")
        first = 0 if position_ids is None else int(position_ids[0, 0])
        logits = self.decoder.logits(embedded[0].float().cpu().numpy(), first, logits_to_keep or None)
        return OmniVMedCausalLMOutputWithPast(
            logits=torch.from_numpy(logits).unsqueeze(0).to(embedded.device), past_key_values=past_key_values
        )


__all__ = ["LlamaCppDecoder", "OmniVMedWithLlamaCpp"]
