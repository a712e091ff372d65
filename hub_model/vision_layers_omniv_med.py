# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The layers of the vision encoder: patch embeddings, rotary positions, attention by several backends.

Parameter names follow transformers' VideoLlama3, so that its checkpoints load after renaming the configuration.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.activations import ACT2FN, GELUTanh
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_omniv_med import OmniVMedVisionConfig

try:
    from xformers.ops import memory_efficient_attention
except ImportError:
    memory_efficient_attention = None


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain softmax attention on (batch, heads, length, head dim); gives (batch, length, heads, head dim), weights."""
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def xformers_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """xformers' memory-efficient attention, shapes as in `eager_attention_forward`; needs the package on a GPU."""
    if memory_efficient_attention is None:
        raise ImportError("Attention 'xformers' needs the package xformers: pip install xformers, or use 'sdpa'.")
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    if attention_mask is not None:
        attention_mask = attention_mask.expand(query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    output = memory_efficient_attention(query, key, value, attn_bias=attention_mask, p=dropout, scale=scaling)
    return output, None


AttentionInterface.register("xformers", xformers_attention_forward)


class OmniVMedVisionRotaryEmbedding(nn.Module):
    """Cosines and sines for positions (z, y, x): y and x as in SigLIP-NaViT, z added at the reversed frequencies.

    Head dimension d has d/4 frequencies θ^(−2i/(d/2)); the first d/4 planes turn by y, the next by x, and both turn
    in addition by z at the frequency of the opposite end, which keeps a step in z apart from a step in y or x.
    """

    def __init__(self, config: OmniVMedVisionConfig):
        super().__init__()
        self.theta = (config.rope_parameters or {}).get("rope_theta", 10000.0)
        self.plane_dim = config.hidden_size // config.num_attention_heads // 2

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turns positions (…, 3) into cosine and sine of shape (…, head dim), float32."""
        # Computed here and not kept in a buffer, so that neither dtype casts nor meta-device loading can spoil it.
        exponents = torch.arange(0, self.plane_dim, 2, dtype=torch.float32, device=positions.device) / self.plane_dim
        frequencies = 1.0 / self.theta**exponents
        z, y, x = positions.float().unsqueeze(-1).unbind(dim=-2)
        depth = z * frequencies.flip(0)
        angles = torch.cat([y * frequencies + depth, x * frequencies + depth], dim=-1)
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


def apply_rotary(states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotates (batch, heads, length, head dim) by (batch, length, head dim), rotate-half layout, in float32."""
    cosine, sine = cosine.unsqueeze(1), sine.unsqueeze(1)
    wide, half = states.float(), states.shape[-1] // 2
    rotated = wide * cosine
    # In place and half by half: no negated, shifted or concatenated copy, which would cost more than the arithmetic.
    rotated[..., :half].addcmul_(wide[..., half:], sine[..., :half], value=-1)
    rotated[..., half:].addcmul_(wide[..., :half], sine[..., half:])
    return rotated.to(states.dtype)


class OmniVMedPatchEmbedding(nn.Conv2d):
    """A convolution whose kernel covers its whole input, computed as a matrix product, which is several times faster.

    Takes flat patches (patches, channels·patch²) and gives (patches, hidden).
    """

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(pixel_values, self.weight.flatten(1), self.bias)


class OmniVMedVisionEmbeddings(nn.Module):
    """Embeds patches (patches, channels·patch²) into (patches, hidden) by one linear map or a convolutional stem."""

    def __init__(self, config: OmniVMedVisionConfig):
        super().__init__()
        self.shape = (config.num_channels, config.patch_size, config.patch_size)
        channels, stem = config.num_channels, config.stem_channels
        self.patch_embedding: nn.Module
        if stem == 0:
            self.patch_embedding = OmniVMedPatchEmbedding(channels, config.hidden_size, config.patch_size)
        else:
            side = (config.patch_size + 1) // 2
            self.patch_embedding = nn.Sequential(
                nn.Conv2d(channels, stem, kernel_size=5, stride=2, padding=2),
                nn.GELU(),
                nn.Conv2d(stem, stem, kernel_size=3, padding=1),
                nn.GELU(),
                nn.Conv2d(stem, config.hidden_size, kernel_size=side),
            )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if isinstance(self.patch_embedding, OmniVMedPatchEmbedding):
            return self.patch_embedding(pixel_values)
        # Small convolutions run several times faster on CPUs in this layout (seen: 346 against 73 images/s).
        patches = pixel_values.view(-1, *self.shape).contiguous(memory_format=torch.channels_last)
        return self.patch_embedding(patches).flatten(1)


def is_untouched(module: nn.Module) -> bool:
    """Whether a call of the module runs its class's own `forward` and nothing else: no hook, nothing in its place."""
    return "forward" not in vars(module) and not module._forward_hooks and not module._forward_pre_hooks


class OmniVMedVisionMLP(nn.Module):
    """The two-layer feed-forward block of SigLIP."""

    def __init__(self, config: OmniVMedVisionConfig):
        super().__init__()
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def _can_fuse(self, hidden_states: torch.Tensor) -> bool:
        """Whether oneDNN may compute `fc1` and its GELU at once: it has no gradient, and knows plain float32 only."""
        return (
            not torch.compiler.is_compiling()  # first: it fuses by itself, and cannot trace what follows
            and not torch.is_grad_enabled()
            and torch.backends.mkldnn.is_available()
            and bool(torch.backends.mkldnn.enabled)
            and hidden_states.device.type == "cpu"
            and hidden_states.dtype == self.fc1.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and type(self.activation_fn) is GELUTanh
            and type(self.fc1) is nn.Linear  # no adapter
            and type(self.fc1.weight) is nn.Parameter  # no shard
            and type(hidden_states) is torch.Tensor
            and is_untouched(self.fc1)
            and is_untouched(self.activation_fn)
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self._can_fuse(hidden_states):
            # The widest tensor of a layer: a pass of its own over it costs more than all of the layer's small steps.
            wide = torch.ops.mkldnn._linear_pointwise(hidden_states, self.fc1.weight, self.fc1.bias, "gelu", [], "tanh")
        else:
            wide = self.activation_fn(self.fc1(hidden_states))
        return self.fc2(wide)


class OmniVMedVisionAttention(nn.Module):
    """Full attention inside each window, all windows of a batch in one call."""

    def __init__(self, config: OmniVMedVisionConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, length, _ = hidden_states.shape
        query, key, value = (
            projection(hidden_states).view(batch, length, -1, self.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary(query, *position_embeddings), apply_rotary(key, *position_embeddings)
        attention: Callable[..., tuple[torch.Tensor, torch.Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask=attention_mask,
            scaling=self.scaling,
            dropout=self.config.attention_dropout if self.training else 0.0,
            is_causal=False,
            **kwargs,
        )
        return self.out_proj(output.reshape(batch, length, -1)), weights


class OmniVMedVisionEncoderLayer(GradientCheckpointingLayer):
    """A pre-norm transformer layer on windows (windows, length, hidden)."""

    def __init__(self, config: OmniVMedVisionConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = OmniVMedVisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = OmniVMedVisionMLP(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        attended, _ = self.self_attn(
            self.layer_norm1(hidden_states), position_embeddings, attention_mask=attention_mask, **kwargs
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class OmniVMedVisionEncoder(nn.Module):
    """The stack of layers. Windows never see each other, so each batch of them passes through all layers at once."""

    def __init__(self, config: OmniVMedVisionConfig):
        super().__init__()
        self.layers = nn.ModuleList(OmniVMedVisionEncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states, position_embeddings, attention_mask=attention_mask, **kwargs)
        return hidden_states
