"""Adam over all parameters, with a choice for the item embeddings: dense or lazy.

Kingma, Ba, "Adam" (ICLR 2015, arXiv 1412.6980). Dense Adam moves every item at every step, because the running means
of untouched items go on: for a large catalogue that is most of the work. Lazy Adam moves, and ages the means of, only
the items that the batch touched. Both keep two floats beside each weight; dense Adam keeps a gradient as well, so it
takes four tables where lazy Adam takes three (`benchmarks/training.py --catalogue` measures both).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8
_ROWS_AT_A_TIME = 512


class Adam:
    """The optimiser of a model whose item embeddings get their gradient by rows.

    Args:
        model: its parameters are updated in place.
        embedding: the item embedding's weight, one of the parameters.
        lazy: move only the rows that have a gradient.
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
        """One step; gradients of all other parameters stand in their `.grad` and are cleared.

        Args:
            rows: int64 [r], distinct rows of the item embedding.
            gradient: float [r, d], theirs; all other rows have none.
            learning_rate: of this step.
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
        # On a CPU a few rows at a time: what lies between reading and writing them then stays in the cache.
        size = _ROWS_AT_A_TIME if rows.device.type == "cpu" else max(1, len(rows))
        for some, theirs in zip(rows.split(size), gradient.split(size), strict=True):
            self._step_some(some, theirs, learning_rate)

    def _step_some(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
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
        """Take what `state` gave."""
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
