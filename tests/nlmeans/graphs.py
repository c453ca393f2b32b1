"""Layers as graphs: TorchScript, ``torch.export`` and ONNX, each run with other shapes than it was made with."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

Run = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what PyTorch says about its own exporters, but not what it says about the graph of a layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("error", category=torch.jit.TracerWarning)
        yield


def scripted(layer: nn.Module, example: Tensor, dynamic: tuple[int, ...]) -> Run:
    with quiet():
        return torch.jit.script(layer)


def traced(layer: nn.Module, example: Tensor, dynamic: tuple[int, ...]) -> Run:
    with quiet():
        return torch.jit.trace(layer, example)


def exported(layer: nn.Module, example: Tensor, dynamic: tuple[int, ...]) -> Run:
    with quiet():
        shapes = (dict.fromkeys(dynamic, torch.export.Dim.AUTO),)
        return torch.export.export(layer, (example,), dynamic_shapes=shapes).module()


def to_onnx(layer: nn.Module, example: Tensor, dynamic: tuple[int, ...]) -> Run:
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):  # that of the evaluator is numpy.choose, which takes no more than 64 arrays
        op_domain = ""

        def _run(self, data: Any, indices: Any, axis: int = 0) -> tuple[Any]:
            return (np.take_along_axis(data, indices, axis),)

    with quiet():
        shapes = (dict.fromkeys(dynamic, torch.export.Dim.AUTO),)
        program: Any = torch.onnx.export(layer, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    evaluator = ReferenceEvaluator(program.model_proto, new_ops=[GatherElements])
    name = program.model_proto.graph.input[0].name
    return lambda image: torch.from_numpy(evaluator.run(None, {name: image.numpy()})[0])


GRAPHS = {"script": scripted, "trace": traced, "export": exported, "onnx": to_onnx}


def check_graph(kind: str, layer: nn.Module, example: Tensor, others: list[Tensor], dynamic: tuple[int, ...]) -> None:
    """Check that a graph of a layer computes the same for the example and for images of other shapes."""
    if kind in ("export", "onnx") and not hasattr(torch.export.Dim, "AUTO"):
        pytest.skip("this PyTorch cannot export shapes that it finds out itself")
    graph = GRAPHS[kind](layer.eval(), example, dynamic)
    with torch.no_grad():
        for image in [example, *others]:
            torch.testing.assert_close(graph(image), layer(image), rtol=1e-4, atol=1e-5)


def saved_and_loaded(layer: nn.Module, folder: Path) -> Any:
    """Return a scripted layer that was written to a file and read again."""
    with quiet():
        torch.jit.save(torch.jit.script(layer), folder / "layer.ts")
        return torch.jit.load(folder / "layer.ts")
