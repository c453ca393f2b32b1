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


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Σ_j softmax_j(q_i · k_j) · v_j, from query (B, N, F), key (B, M, F) and value (B, M, C) to (B, N, C)."""
    (batch, queries, features), channels = query.shape, value.shape[-1]
    size = head_size(features, channels)
    # On the CPU, the backward pass has one task per head. On two busy cores, one took 14 to 50 times as long as two.
    heads = math.ceil(threads() / batch) if query.device.type == "cpu" else 1
    query = F.pad(query, (0, size - features, 0, -queries % heads)).reshape(batch, heads, -1, size)
    key, value = (F.pad(t, (0, size - t.shape[-1])).unsqueeze(1) for t in (key, value))
    result = F.scaled_dot_product_attention(
        query.contiguous(),
        key.contiguous().expand(-1, heads, -1, -1),
        value.contiguous().expand(-1, heads, -1, -1),
        scale=1.0,
    )
    return result.flatten(1, 2)[:, :queries, :channels]


def head_size(features: int, channels: int) -> int:
    """Padded size of the vectors of query, key and value."""
    return HEAD * math.ceil(max(features, channels) / HEAD)


def threads() -> int:
    """Number of threads of torch; 1 in a compiled graph, which cannot ask for it."""
    return 1 if torch.compiler.is_compiling() else torch.get_num_threads()
