"""Losses and gradients of a step as CUDA graphs: recorded once per batch size, then launched with one call.

A step has about five hundred small kernels. On a fast GPU, launching them one by one takes longer than computing them;
a graph launches all of them together. It needs tensors of the same shapes and addresses each time, so a batch is padded
to the next of a few sizes. Padding has weight 0 and is never a negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.model.packed import AttentionRows
from multitron_core.training.step import Gradients
from multitron_core.training.step_inputs import StepInputs, map_tensors


def padded_to_bucket(inputs: StepInputs, max_length: int) -> StepInputs:
    """The same inputs, their numbers of steps, items and columns padded to the next of a few sizes.

    Args:
        inputs: of one rectangle, or of none if the batch has no session; tensors on the CPU.
        max_length: number of clicks that the model reads.
    """
    negatives, sessions = inputs.negatives, len(inputs.pi)
    steps, batch_items, uniform_items = (
        _bucket(len(x)) - len(x) for x in (inputs.clicks, inputs.batch_items, inputs.uniform_items)
    )
    correction = negatives.correction
    if correction is not None:  # each of the two groups of columns has its padding at its end
        groups = correction.split([len(inputs.batch_items), len(inputs.uniform_items)])
        correction = torch.cat([F.pad(groups[0], (0, batch_items)), F.pad(groups[1], (0, uniform_items))])
    is_padding = torch.zeros(len(inputs.uniform_items), dtype=torch.bool)
    return replace(
        inputs,
        weights=F.pad(inputs.weights, (0, steps)),
        batch_items=F.pad(inputs.batch_items, (0, batch_items)),  # item 0 is padding
        uniform_items=F.pad(inputs.uniform_items, (0, uniform_items)),
        clicks=F.pad(inputs.clicks, (0, steps)),
        positions=F.pad(inputs.positions, (0, steps)),
        rows=[_padded_row(row, sessions, steps, max_length) for row in inputs.rows],
        negatives=negatives._replace(
            batch_copies=F.pad(negatives.batch_copies, (0, batch_items)),
            uniform_copies=F.pad(negatives.uniform_copies, (0, uniform_items)),
            absent=F.pad(negatives.absent, (0, batch_items), value=True),
            session_of_step=F.pad(negatives.session_of_step, (0, steps)),
            targets=F.pad(negatives.targets, (0, steps)),
            padding=F.pad(is_padding, (0, uniform_items), value=True),
            correction=correction,
        ),
        labels=F.pad(inputs.labels, (0, 0, 0, steps)),
    )


def _padded_row(row: AttentionRows, sessions: int, steps: int, max_length: int) -> AttentionRows:
    """A rectangle of one of a few widths, with one more session that holds the padding steps."""
    width = min(max_length, max(8, 1 << (row.width - 1).bit_length()))
    cells = row.cells // row.width * width + row.cells % row.width
    return AttentionRows(0, len(cells) + steps, F.pad(cells, (0, steps), value=sessions * width), sessions + 1, width)


def _bucket(count: int) -> int:
    """The next multiple of a quarter of the power of two below, at least 16."""
    grid = max(16, (1 << max(count, 1).bit_length() - 1) // 4)
    return -(-count // grid) * grid


def shape_of(inputs: StepInputs, tensors: list[Tensor]) -> tuple[object, ...]:
    """What a graph depends on beside the values in its tensors: the shapes of tensors and rectangles."""
    rectangles = [(row.sessions, row.width) for row in inputs.rows]
    return (*rectangles, *(tensor.shape for tensor in tensors))


class GradientGraphs:
    """Calls `compute` through CUDA graphs, one graph per shape of the inputs.

    The tensors that a call returns are overwritten by the next call.

    Args:
        compute: from inputs on the GPU to their `Gradients`; it must not wait for the GPU.
    """

    def __init__(self, compute: Callable[[StepInputs], Gradients]) -> None:
        self._compute = compute
        self._recorded: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], Gradients]] = {}
        self._memory = torch.cuda.graph_pool_handle()  # shared: graphs never run at the same time

    def __call__(self, inputs: StepInputs) -> Gradients:
        """The gradients of inputs that `padded_to_bucket` returned, on the GPU."""
        tensors = tensors_of(inputs)
        shape = shape_of(inputs, tensors)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(inputs)
        graph, recorded, gradients = self._recorded[shape]
        torch._foreach_copy_(recorded, tensors)
        graph.replay()
        return gradients

    def _record(self, inputs: StepInputs) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Gradients]:
        copied = map_tensors(inputs, torch.clone)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries allocate their workspaces on the first call
            self._compute(copied)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # A thread pins the next batches meanwhile (`prefetch`), which would end a recording that watches all threads.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            gradients = self._compute(copied)
        return graph, tensors_of(copied), gradients


def tensors_of(inputs: StepInputs) -> list[Tensor]:
    """The tensors of the inputs, always in the same order."""
    found: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(inputs, collect)
    return found
