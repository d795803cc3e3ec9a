"""A step's losses and gradients as a CUDA graph: recorded once for each of a few sizes, then launched at once.

A step is some five hundred small kernels. On a fast GPU starting them one by one takes longer than what they compute; a
graph starts all of them together. It needs tensors of the same shapes and places each time, so a batch is filled up to
the next of a few sizes; what fills up has weight 0 and is nobody's negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from multitron_core.model.packed import AttentionRows
from multitron_core.training.step_inputs import StepInputs, map_tensors

Gradients = tuple[Tensor, list[Tensor]]
"""Means over the batch, and the gradients."""


def padded_to_bucket(work: StepInputs, max_length: int) -> StepInputs:
    """The same work, its counts of steps, items and columns filled up to the next of a few sizes.

    Args:
        work: of one rectangle, or of none where it has no session; its tensors on the CPU.
        max_length: clicks that the model reads.
    """
    negatives, sessions = work.negatives, len(work.pi)
    steps, batch_items, uniform_items = (
        _size(len(x)) - len(x) for x in (work.inputs, work.batch_items, work.uniform_items)
    )
    correction = negatives.correction
    if correction is not None:  # the columns that fill up stand behind each of the two groups
        groups = correction.split([len(work.batch_items), len(work.uniform_items)])
        correction = torch.cat([F.pad(groups[0], (0, batch_items)), F.pad(groups[1], (0, uniform_items))])
    return replace(
        work,
        weights=F.pad(work.weights, (0, steps)),
        batch_items=F.pad(work.batch_items, (0, batch_items)),  # item 0 is padding
        uniform_items=F.pad(work.uniform_items, (0, uniform_items)),
        inputs=F.pad(work.inputs, (0, steps)),
        positions=F.pad(work.positions, (0, steps)),
        rows=[_filled_rows(row, sessions, steps, max_length) for row in work.rows],
        negatives=negatives._replace(
            batch_copies=F.pad(negatives.batch_copies, (0, batch_items)),
            uniform_copies=F.pad(negatives.uniform_copies, (0, uniform_items)),
            absent=F.pad(negatives.absent, (0, batch_items), value=True),
            session_of_step=F.pad(negatives.session_of_step, (0, steps)),
            targets=F.pad(negatives.targets, (0, steps)),
            filling=F.pad(torch.zeros(len(work.uniform_items), dtype=torch.bool), (0, uniform_items), value=True),
            correction=correction,
        ),
        labels=F.pad(work.labels, (0, 0, 0, steps)),
    )


def _filled_rows(row: AttentionRows, sessions: int, steps: int, max_length: int) -> AttentionRows:
    """A rectangle of one of a few widths, with one more session that takes the steps that fill up."""
    width = min(max_length, max(8, 1 << (row.width - 1).bit_length()))
    cells = row.cells // row.width * width + row.cells % row.width
    return AttentionRows(0, len(cells) + steps, F.pad(cells, (0, steps), value=sessions * width), sessions + 1, width)


def _size(count: int) -> int:
    """The next multiple of a quarter of the power of two below, at least 16."""
    grid = max(16, (1 << max(count, 1).bit_length() - 1) // 4)
    return -(-count // grid) * grid


def shape_of(work: StepInputs, tensors: list[Tensor]) -> tuple[object, ...]:
    """What a graph has recorded of a work beside the numbers in its tensors: their shapes, and those of rectangles."""
    rectangles = [(row.sessions, row.width) for row in work.rows]
    return (*rectangles, *(tensor.shape for tensor in tensors))


class GradientGraphs:
    """Computes what `compute` does, by a graph for each shape of work.

    The tensors that a call gives are overwritten by the next one.

    Args:
        compute: from a work on the GPU to its `Gradients`; it must not wait for the GPU.
    """

    def __init__(self, compute: Callable[[StepInputs], Gradients]) -> None:
        self._compute = compute
        self._recorded: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], Gradients]] = {}
        self._memory = torch.cuda.graph_pool_handle()  # one for all: they never run at the same time

    def __call__(self, work: StepInputs) -> Gradients:
        """The gradients of a work that `filled` gave, on the GPU."""
        tensors = tensors_of(work)
        shape = shape_of(work, tensors)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(work)
        graph, inputs, found = self._recorded[shape]
        torch._foreach_copy_(inputs, tensors)
        graph.replay()
        return found

    def _record(self, work: StepInputs) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Gradients]:
        own = map_tensors(work, torch.clone)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries make what they need on their first calls
            self._compute(own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Meanwhile a thread pins the next batches (`ahead`), which would end a recording that minds all threads.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            found = self._compute(own)
        return graph, tensors_of(own), found


def tensors_of(work: StepInputs) -> list[Tensor]:
    """Its tensors, always in the same order."""
    found: list[Tensor] = []

    def take(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(work, take)
    return found
