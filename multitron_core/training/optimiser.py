"""Adam over all parameters, dense or lazy for the item embeddings; the learning rate of a step; gradient clipping.

Kingma, Ba, "Adam" (ICLR 2015, arXiv 1412.6980). Dense Adam updates every item at every step, because the running means
of items outside the batch still decay: for a large catalogue that is most of the work. Lazy Adam updates only the items
of the batch, their weights and their running means. Both store two floats per weight; dense Adam also stores a
gradient, so it needs four tables where lazy Adam needs three (`benchmarks/training.py --catalogue` measures both).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from multitron_core.training.config import OptimiserSettings, ScheduleSettings

BETAS = (0.9, 0.999)
EPSILON = 1e-8
BLOCK_ROWS = 512
"""Rows that lazy Adam updates at a time on a CPU, so that intermediate results stay in the cache."""


def learning_rate(step: int, steps: int, optimiser: OptimiserSettings, schedule: ScheduleSettings) -> float:
    """The learning rate of a step: a linear rise over the warm-up, then constant or a half cosine to 0.

    Args:
        step: number of steps done, from 0.
        steps: number of steps of the whole training.
        optimiser: the highest learning rate.
        schedule: warm-up and shape.
    """
    rate = optimiser.learning_rate * min(1.0, (step + 1) / (schedule.warmup_steps + 1))
    if schedule.shape == "cosine":
        rate *= 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return rate


def clip_gradients(gradients: list[Tensor], limit: float) -> None:
    """Scale gradients, in place, so that their common norm is at most `limit`; 0 does not clip."""
    if limit:
        norm = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))


class Adam:
    """The optimiser of a model whose item embedding has its gradient by rows.

    Args:
        model: its parameters are updated in place.
        embedding: weight of the item embedding, one of the parameters.
        lazy: update only the rows that have a gradient.
    """

    def __init__(self, model: nn.Module, embedding: Tensor, *, lazy: bool) -> None:
        self.embedding, self.lazy = embedding, lazy
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.parameters = list(model.parameters())
        dense = [parameter for parameter in self.parameters if not (lazy and parameter is embedding)]
        self.dense = torch.optim.Adam(dense, betas=BETAS, eps=EPSILON, fused=True)
        self.steps = 0
        if lazy:
            self.mean, self.square = torch.zeros_like(embedding.data), torch.zeros_like(embedding.data)
        else:
            embedding.grad = torch.zeros_like(embedding)
        self._touched: Tensor | None = None

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """Update the parameters; the other parameters have their gradients in `.grad`, which are cleared.

        Args:
            rows: int64 [r], distinct rows of the item embedding.
            gradient: float [r, d], gradient of these rows; that of all other rows is 0.
            learning_rate: learning rate of this step.
        """
        self.steps += 1
        for group in self.dense.param_groups:
            group["lr"] = learning_rate
        if self.lazy:
            self._step_rows(rows, gradient, learning_rate)
        else:
            assert self.embedding.grad is not None
            if self._touched is not None:
                self.embedding.grad.index_fill_(0, self._touched, 0.0)
            self.embedding.grad.index_copy_(0, rows, gradient)
            self._touched = rows
        self.dense.step()
        for parameter in self.parameters:
            if parameter is not self.embedding:
                parameter.grad = None

    def _step_rows(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        size = BLOCK_ROWS if rows.device.type == "cpu" else max(1, len(rows))
        for block, of_block in zip(rows.split(size), gradient.split(size), strict=True):
            self._step_block(block, of_block, learning_rate)

    def _step_block(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        mean = self.mean.index_select(0, rows).lerp_(gradient, 1.0 - BETAS[0])
        square = self.square.index_select(0, rows).mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
        self.mean.index_copy_(0, rows, mean)
        self.square.index_copy_(0, rows, square)
        size = learning_rate / (1.0 - BETAS[0] ** self.steps)
        scale = square.sqrt_().div_(math.sqrt(1.0 - BETAS[1] ** self.steps)).add_(EPSILON)
        weight = self.embedding.data.index_select(0, rows).addcdiv_(mean, scale, value=-size)
        self.embedding.data.index_copy_(0, rows, weight)

    def state(self) -> dict[str, Tensor]:
        """The running means by name, and the number of steps."""
        tensors = {"steps": torch.tensor(self.steps)}
        for parameter, values in self.dense.state.items():
            name = self.names[id(parameter)]
            tensors[f"mean.{name}"], tensors[f"square.{name}"] = values["exp_avg"], values["exp_avg_sq"]
        if self.lazy:
            tensors["mean"], tensors["square"] = self.mean, self.square
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.steps = int(tensors["steps"])
        if self.lazy:
            self.mean.copy_(tensors["mean"])
            self.square.copy_(tensors["square"])
        for group in self.dense.param_groups:
            for parameter in group["params"] if self.steps else ():
                name = self.names[id(parameter)]
                self.dense.state[parameter] = {
                    "step": torch.tensor(float(self.steps), device=parameter.device),
                    "exp_avg": tensors[f"mean.{name}"].to(parameter.device, copy=True),
                    "exp_avg_sq": tensors[f"square.{name}"].to(parameter.device, copy=True),
                }
