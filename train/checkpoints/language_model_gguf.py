# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes a model's language model as a GGUF file in float16, from which llama.cpp decodes.

    python -m train.checkpoints.language_model_gguf --model hub_model --out nano-f16.gguf

What reads it is `hub_model/llama_cpp_omniv_med.py`. The file holds no tokenizer: it is given embeddings and gives
logits. Names of tensors and fields are the gguf package's, and vectors stay in float32, as llama.cpp wants it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import gguf
import torch
from transformers import PretrainedConfig

from data_engine.files import write_atomically
from hub_model.configuration_omniv_med import OmniVMedConfig
from hub_model.llama_cpp_omniv_med import FINGERPRINT, fingerprint_of_embeddings
from train.checkpoints.shards import stored_tensors
from train.checkpoints.vision_encoder import CheckpointError

ARCHITECTURE = "llama"
OURS, THEIRS = "model.language_model.", "model."
"""How the names of the language model's tensors begin here, and in a model of it alone, as gguf knows them."""
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def read_config(folder: Path) -> PretrainedConfig:
    """The language model's configuration.

    Raises:
        CheckpointError: no OmniV-Med model, or one whose language model is not a plain Llama.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no folder of a model: it holds no config.json.")
    config = OmniVMedConfig.from_pretrained(folder).get_text_config()
    if config.model_type != ARCHITECTURE or config.rope_parameters["rope_type"] != "default":
        raise CheckpointError(
            f"The language model is of type {config.model_type!r}; only Llama's, with its usual rotary positions, can "
            "be written."
        )
    return config


def for_llama_cpp(name: str, tensor: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """A tensor as llama.cpp wants it: matrices in float16, vectors in float32, and rotated rows in its order.

    transformers rotates the first half of a head's numbers with the second, llama.cpp each number with its neighbour
    (`LlamaModel.permute` of llama.cpp's conversion).
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is not None:
        tensor = tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    return tensor.to(torch.float16 if tensor.ndim > 1 else torch.float32)


def write(folder: Path, out: Path) -> None:
    """Writes the file; it appears whole or not at all.

    Args:
        folder: of a model in this project's format.
        out: file to write.

    Raises:
        CheckpointError: for a model that cannot be written.
    """
    config, stored = read_config(folder), stored_tensors(folder)
    tensors = {THEIRS + name.removeprefix(OURS): tensor for name, tensor in stored.items() if name.startswith(OURS)}
    if not config.tie_word_embeddings:
        tensors[HEAD] = stored[HEAD]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    with write_atomically(out) as part:
        writer = gguf.GGUFWriter(part, ARCHITECTURE)
        writer.add_name(out.stem)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        writer.add_tokenizer_model("none")
        writer.add_vocab_size(config.vocab_size)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_string(FINGERPRINT, fingerprint_of_embeddings(tensors[EMBEDDINGS].read()))
        for name, tensor in tensors.items():
            theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if theirs is None:
                raise CheckpointError(f"llama.cpp's Llama has no tensor like {name}.")
            writer.add_tensor(theirs, for_llama_cpp(name, tensor.read(), config).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of an OmniV-Med model")
    parser.add_argument("--out", type=Path, required=True, help="file to write; its name ends in .gguf")
    arguments = parser.parse_args()
    try:
        if arguments.out.suffix != ".gguf":
            raise CheckpointError("--out must name a file that ends in .gguf.")
        write(arguments.model, arguments.out)
    except (CheckpointError, OSError) as error:
        sys.exit(f"Error: {error}")
    print(f"{arguments.out} holds the language model of {arguments.model}.")


if __name__ == "__main__":
    main()
