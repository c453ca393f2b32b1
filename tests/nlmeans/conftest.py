from __future__ import annotations

import os

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined: kernels for a GPU run on the CPU, slowly


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)
