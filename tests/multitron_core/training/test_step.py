from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from multitron_core.losses.negatives import Negatives, draw_negatives
from multitron_core.losses.objective_losses import click_loss, order_loss, ordered_softmax_loss
from multitron_core.losses.regularisers import non_uniformity
from multitron_core.losses.scalarisation import linear
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.batches import Batch
from multitron_core.training.config import TrainingConfig
from multitron_core.training.step import (
    StepLosses,
    click_losses,
    dense_parameters,
    losses_of,
    step_gradients,
    table_rows,
    unit_rows,
    zero_gradients,
)
from multitron_core.training.step_inputs import StepInputs, rectangle_overhead, step_inputs, to_device

ITEMS = 300


def random_batch(seed: int, sessions: int = 9, items: int = ITEMS, longest: int = 12) -> Batch:
    rng = np.random.default_rng(seed)
    lengths = np.sort(rng.integers(1, longest + 1, sessions))
    clicks = [rng.integers(1, items + 1, n + 1) for n in lengths]
    return Batch(
        sessions=np.arange(sessions),
        lengths=lengths,
        inputs=np.concatenate([c[:-1] for c in clicks]),
        targets=np.concatenate([c[1:] for c in clicks]),
        ordered=rng.random(lengths.sum()) < 0.3,
    )


def gradient_of(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad


def losses_for(config: TrainingConfig, rates: tuple[float, float], search: torch.dtype) -> StepLosses:
    return StepLosses.of(config, ("click", "order"), rates, search)


def plain_losses(
    model: MultiTRON, batch: Batch, negatives: Negatives, pi: np.ndarray, config: TrainingConfig, order_rate: float
) -> torch.Tensor:
    """The losses by their formulas, session by session: padded to the full width, every drawn negative with its
    copies, gradients through all of them."""
    weight, width = model.item_embedding.weight, model.config.max_length
    if model.config.item_norm == "unit":
        weight = F.normalize(weight, dim=1)
    every = np.concatenate([negatives.batch_items, negatives.uniform_items])
    own_clicks = {} if model.own_clicks is None else {"own_clicks": torch.zeros(2)}
    losses = []
    for s, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        steps = slice(start, start + length)
        items = torch.zeros(1, width, dtype=torch.int64)
        items[0, :length] = torch.from_numpy(batch.inputs[steps])
        arguments = (items, torch.tensor([length]), torch.tensor(pi[s], dtype=torch.float32))
        states = torch.func.functional_call(model, {"item_embedding.weight": weight}, arguments)[0, :length]
        drawn = torch.from_numpy(
            np.repeat(every, np.concatenate([negatives.batch_copies[s], negatives.uniform_copies]))
        )
        targets = torch.from_numpy(batch.targets[steps])
        logits = states @ weight[drawn].T
        if config.negatives.collisions == "masked":
            logits = logits.masked_fill(drawn[None] == targets[:, None], -torch.inf)
        hardest = logits.topk(min(config.negatives.kept_negatives, len(drawn)), dim=1).values
        positive = (states * weight[targets]).sum(dim=1)
        ordered = torch.from_numpy(batch.ordered[steps])
        click = click_loss(positive, hardest)
        order = torch.zeros_like(click)
        if config.losses.order_loss != "ordered_softmax":
            parameters = {"item_embedding.weight": weight, **own_clicks}
            unlifted = torch.func.functional_call(model, parameters, arguments)[0, :length]
            order = order + order_loss((unlifted * weight[targets]).sum(dim=1), ordered)
        if config.losses.order_loss != "bce":
            order = order + ordered_softmax_loss(click, ordered, order_rate, config.losses.ordered_share)
        losses.append(torch.stack([click, order], dim=1))
    return torch.cat(losses)


@pytest.mark.parametrize("overhead", [0, 10, 1 << 30])
@pytest.mark.parametrize("collisions", ["masked", "official"])
@pytest.mark.parametrize(("positions", "own_clicks"), [("start", "attended"), ("end", "attended"), ("start", "added")])
@pytest.mark.parametrize("order", ["bce", "ordered_softmax", "ranked_bce"])
@pytest.mark.parametrize("norm", ["unit", "free"])
def test_losses_of_match_the_plain_formula(
    overhead: int,
    collisions: str,
    positions: Literal["start", "end"],
    own_clicks: Literal["attended", "added"],
    order: str,
    norm: Literal["unit", "free"],
) -> None:
    torch.manual_seed(1)
    model = MultiTRON(
        ModelConfig(
            items=ITEMS,
            dimension=12,
            layers=2,
            dropout=0.0,
            max_length=16,
            positions=positions,
            own_clicks=own_clicks,
            item_norm=norm,
            item_scale=0.5,
        )
    )
    if model.own_clicks is not None:
        model.own_clicks.data.copy_(torch.tensor([0.3, -0.7]))
    config = TrainingConfig(
        uniform_negatives=400, in_batch_negatives=8, kept_negatives=20, collisions=collisions, order_loss=order
    )
    batch, rng = random_batch(1), np.random.default_rng(2)
    negatives = draw_negatives(
        batch, ITEMS, config.negatives.uniform_negatives, config.negatives.in_batch_negatives, rng
    )
    pi = rng.dirichlet([0.5, 0.5], size=len(batch.lengths))
    parameters = dict(model.named_parameters())
    weights = torch.rand(len(batch.inputs), 2)  # some scalarisation

    expected = plain_losses(model, batch, negatives, pi, config, 0.3)
    (expected * weights).sum().backward()
    plain = {name: gradient_of(parameter).clone() for name, parameter in parameters.items()}
    model.zero_grad()

    inputs = step_inputs(batch, negatives, pi, model.config, overhead=overhead)
    embedding = model.item_embedding.weight
    rows = [embedding.detach()[index].requires_grad_() for index in (inputs.batch_items, inputs.uniform_items)]
    found = losses_of(model, rows[0], rows[1], inputs, losses_for(config, (1.0, 0.3), torch.float32))
    (found * weights).sum().backward()
    gradient = torch.zeros_like(embedding)
    gradient[torch.cat([inputs.batch_items, inputs.uniform_items])] = torch.cat(
        [gradient_of(rows[0]), gradient_of(rows[1])]
    )

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, plain.pop("item_embedding.weight"), atol=1e-4, rtol=0)
    for name, plain_gradient in plain.items():
        torch.testing.assert_close(gradient_of(parameters[name]), plain_gradient, atol=1e-4, rtol=0, msg=name)


@pytest.mark.parametrize("search", [torch.float32, torch.bfloat16])
def test_losses_of_with_the_papers_negatives(search: torch.dtype, device: torch.device) -> None:
    items = 42_000
    torch.manual_seed(1)
    model = MultiTRON(ModelConfig(items=items, dropout=0.0, item_scale=0.01))
    config = TrainingConfig()
    batch, rng = random_batch(1, sessions=12, items=items), np.random.default_rng(2)
    negatives = draw_negatives(
        batch, items, config.negatives.uniform_negatives, config.negatives.in_batch_negatives, rng
    )
    pi = rng.dirichlet([0.5, 0.5], size=len(batch.lengths))

    expected = plain_losses(model, batch, negatives, pi, config, 0.3)
    expected.mean().backward()
    plain = {name: gradient_of(parameter).clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    model.to(device)
    inputs = to_device(step_inputs(batch, negatives, pi, model.config, overhead=rectangle_overhead(device)), device)
    embedding = model.item_embedding.weight
    rows = [embedding.detach()[index].requires_grad_() for index in (inputs.batch_items, inputs.uniform_items)]
    found = losses_of(model, rows[0], rows[1], inputs, losses_for(config, (1.0, 0.3), search))
    found.mean().backward()
    gradient = torch.zeros_like(embedding)
    gradient[torch.cat([inputs.batch_items, inputs.uniform_items])] = torch.cat(
        [gradient_of(rows[0]), gradient_of(rows[1])]
    )

    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient.cpu(), plain.pop("item_embedding.weight"), atol=1e-4, rtol=0)
    for name, plain_gradient in plain.items():
        found_gradient = gradient_of(model.get_parameter(name))
        torch.testing.assert_close(found_gradient.cpu(), plain_gradient, atol=1e-4, rtol=0, msg=name)


def test_losses_of_shares_are_those_of_the_whole_batch() -> None:
    torch.manual_seed(1)
    model = MultiTRON(ModelConfig(items=ITEMS, dimension=12, layers=2, dropout=0.0, max_length=16))
    config = TrainingConfig(uniform_negatives=400, in_batch_negatives=8, kept_negatives=20)
    batch, rng = random_batch(1, sessions=5), np.random.default_rng(2)
    negatives = draw_negatives(
        batch, ITEMS, config.negatives.uniform_negatives, config.negatives.in_batch_negatives, rng
    )
    pi = rng.dirichlet([0.5, 0.5], size=5)
    correction = rng.standard_normal(ITEMS + 1)

    def losses(rank: int, world: int) -> torch.Tensor:
        inputs = step_inputs(
            batch, negatives, pi, model.config, overhead=10, correction=correction, rank=rank, world=world
        )
        weight = model.item_embedding.weight
        return losses_of(
            model,
            weight[inputs.batch_items],
            weight[inputs.uniform_items],
            inputs,
            losses_for(config, (1.0, 0.3), torch.float32),
        )

    session = np.repeat(np.arange(5), batch.lengths)
    whole = losses(0, 1)
    for rank in range(3):
        torch.testing.assert_close(losses(rank, 3), whole[session % 3 == rank], atol=1e-5, rtol=1e-5)


def test_losses_of_one_session_of_one_step() -> None:
    batch = dataclasses.replace(
        random_batch(1, sessions=1),
        lengths=np.array([1]),
        inputs=np.array([4]),
        targets=np.array([5]),
        ordered=np.array([True]),
    )
    model = MultiTRON(ModelConfig(items=ITEMS, dimension=12, layers=1))
    config = TrainingConfig(uniform_negatives=16, in_batch_negatives=4)
    inputs = step_inputs(
        batch, draw_negatives(batch, ITEMS, 16, 4, np.random.default_rng(1)), np.ones(2) / 2, model.config, overhead=10
    )
    weight = model.item_embedding.weight
    found = losses_of(
        model,
        weight[inputs.batch_items],
        weight[inputs.uniform_items],
        inputs,
        losses_for(config, (1.0, 1.0), torch.float32),
    )
    assert found.shape == (1, 2)
    assert (found > 0).all()


def test_unit_rows_match_normalize() -> None:
    torch.manual_seed(1)
    rows, gradient = torch.randn(7, 5), torch.randn(7, 5)
    rows[2] *= 1e-3
    found, expected = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    unit_rows(found).backward(gradient)
    F.normalize(expected, dim=1).backward(gradient)
    torch.testing.assert_close(unit_rows(found), F.normalize(expected, dim=1))
    torch.testing.assert_close(gradient_of(found), gradient_of(expected))
    assert torch.autograd.gradcheck(unit_rows, rows.double().requires_grad_())
    assert unit_rows(torch.zeros(1, 5)).tolist() == [[0.0] * 5]


def small_step() -> tuple[MultiTRON, TrainingConfig, StepInputs]:
    """A model with own clicks, and the inputs of nine sessions."""
    torch.manual_seed(1)
    model = MultiTRON(ModelConfig(items=ITEMS, dimension=12, layers=1, dropout=0.0, max_length=16, own_clicks="added"))
    assert model.own_clicks is not None
    model.own_clicks.data.copy_(torch.tensor([0.3, -0.7]))
    batch, rng = random_batch(1), np.random.default_rng(2)
    negatives = draw_negatives(batch, ITEMS, 60, 4, rng)
    pi = rng.dirichlet([0.5, 0.5], size=len(batch.lengths))
    return model, TrainingConfig(kept_negatives=20), step_inputs(batch, negatives, pi, model.config, overhead=10)


def test_click_losses_are_the_first_column_of_losses_of() -> None:
    model, config, inputs = small_step()
    losses, rows = losses_for(config, (1.0, 0.3), torch.float32), table_rows(model, inputs)
    click, event_logits = click_losses(model, *rows, inputs, losses)
    found = losses_of(model, *rows, inputs, losses)
    assert torch.equal(click, found[:, 0])
    assert torch.equal(order_loss(event_logits, inputs.labels[:, 1]), found[:, 1])


def test_step_gradients_are_those_of_the_weighted_total() -> None:
    model, config, inputs = small_step()
    losses = losses_for(config, (1.0, 0.3), torch.float32)
    means, gradients = step_gradients(model, inputs, losses, autocast=False)
    of_steps = losses_of(model, *table_rows(model, inputs), inputs, losses)
    pi = inputs.pi[inputs.negatives.session_of_step]
    penalty = non_uniformity(of_steps, pi)
    total = (linear(of_steps, pi) + 0.2 * penalty).mean()
    total.backward()
    assert losses.names == ("loss", "click_loss", "order_loss", "regulariser")
    expected = [total.item(), *of_steps.mean(dim=0).tolist(), penalty.mean().item()]
    assert means.tolist() == pytest.approx(expected, rel=1e-5)
    *of_dense, of_batch, of_uniform = gradients
    for parameter, gradient in zip(dense_parameters(model), of_dense, strict=True):
        torch.testing.assert_close(gradient_of(parameter), gradient, atol=1e-6, rtol=1e-5)
    table = gradient_of(model.item_embedding.weight)
    torch.testing.assert_close(table[inputs.batch_items], of_batch, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(table[inputs.uniform_items], of_uniform, atol=1e-6, rtol=1e-5)


def test_zero_gradients_have_the_shapes_of_step_gradients() -> None:
    model, config, inputs = small_step()
    losses = losses_for(config, (1.0, 0.3), torch.float32)
    means, gradients = step_gradients(model, inputs, losses, autocast=False)
    zero_means, zeros = zero_gradients(model, inputs, losses)
    assert (zero_means.shape, zero_means.dtype) == (means.shape, means.dtype)
    assert [zero.shape for zero in zeros] == [gradient.shape for gradient in gradients]
    assert not any(zero.any() for zero in [zero_means, *zeros])
