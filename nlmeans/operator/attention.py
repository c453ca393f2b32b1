"""Softmax attention without the matrix of weights, for the `windowed` backend and the non-local block.

PyTorch has kernels that hold a few blocks of the matrix at a time, forward and backward. It takes them if query, key
and value have vectors of one size, contiguous in memory, and on NVIDIA cards of a multiple of 8 numbers. Otherwise,
and always for float64 on a card, it builds the matrix.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HEAD = 8
"""Query, key and value are padded to a multiple of this."""


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax_j(q_i · k_j) · v_j: (B, N, F), (B, M, F) and (B, M, C) to (B, N, C)."""
    (batch, queries, features), channels = query.shape, value.shape[-1]
    size = head_size(features, channels)
    # The backward on the CPU has one task per head; a single one for two busy cores took 14 to 50 times as long as two.
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
    """Numbers in each query, key and value, padded."""
    return HEAD * math.ceil(max(features, channels) / HEAD)


def threads() -> int:
    return 1 if torch.compiler.is_compiling() else torch.get_num_threads()  # of which a compiled graph knows nothing
