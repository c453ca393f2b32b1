"""Softmax attention without the matrix of weights, for the `windowed` backend and the non-local block.

PyTorch has attention kernels that hold only a few blocks of the matrix at a time, forward and backward. It uses them if
the vectors of query, key and value have one size and are contiguous in memory. On NVIDIA cards the size must also be a
multiple of 8. Otherwise, and always for float64 on a card, PyTorch builds the matrix.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HEAD = 8
"""The vectors of query, key and value are padded to a multiple of this size."""


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Σ_j softmax_j(q_i · k_j) · v_j, from query (B, N, F), key (B, M, F) and value (B, M, C) to (B, N, C)."""
    batch, queries, features, channels = query.shape[0], query.shape[1], query.shape[2], value.shape[2]
    size = head_size(features, channels)
    # On the CPU, the backward pass has one task per head. On two busy cores, one took 14 to 50 times as long as two.
    heads = heads_for(query)
    query = F.pad(query, [0, size - features, 0, -queries % heads]).reshape(batch, heads, -1, size)
    key = F.pad(key, [0, size - features]).unsqueeze(1)
    value = F.pad(value, [0, size - channels]).unsqueeze(1)
    result = F.scaled_dot_product_attention(
        query.contiguous(),
        key.contiguous().expand(-1, heads, -1, -1),
        value.contiguous().expand(-1, heads, -1, -1),
        scale=1.0,
    )
    return result.flatten(1, 2)[:, :queries, :channels]


def head_size(features: int, channels: int, multiple: int = HEAD) -> int:
    """Padded size of the vectors of query, key and value."""
    return (max(features, channels) + multiple - 1) // multiple * multiple


def heads_for(query: Tensor) -> int:
    """Number of heads that keep all threads busy; 1 in a graph, which cannot ask for their number."""
    if torch.jit.is_scripting():
        return 1
    return math.ceil(threads() / query.shape[0]) if query.device.type == "cpu" else 1


def threads() -> int:
    """Number of threads of torch; 1 in a compiled graph, which cannot ask for it."""
    return 1 if torch.compiler.is_compiling() else torch.get_num_threads()
