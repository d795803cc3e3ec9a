from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multitron_core.losses.negatives import draw_negatives
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.training.config import TrainingConfig
from multitron_core.training.cuda_graphs import GradientGraphs, padded_to_bucket, shape_of, tensors_of
from multitron_core.training.step import Gradients, StepLosses, losses_of
from multitron_core.training.step_inputs import StepInputs, rectangle_overhead, step_inputs, to_device
from tests.multitron_core.training.test_step import random_batch

ITEMS = 300
CONFIG = TrainingConfig(
    uniform_negatives=130, in_batch_negatives=8, kept_negatives=100, order_loss="ranked_bce", negative_search="float32"
)
LOSSES = StepLosses.of(CONFIG, ("click", "order"), (1.0, 0.3), torch.float32)


def a_model(**settings: Any) -> MultiTRON:
    torch.manual_seed(1)
    model = MultiTRON(
        ModelConfig(
            items=ITEMS,
            dimension=12,
            layers=2,
            dropout=0.0,
            max_length=16,
            item_scale=0.5,
            own_clicks="added",
            **settings,
        )
    )
    assert model.own_clicks is not None
    model.own_clicks.data.copy_(torch.tensor([0.3, -0.7]))
    return model


def some_inputs(
    model: MultiTRON, seed: int, sessions: int = 9, longest: int = 12, corrected: bool = False
) -> StepInputs:
    batch, rng = random_batch(seed, sessions=sessions, longest=longest), np.random.default_rng(seed)
    negatives = draw_negatives(
        batch, ITEMS, CONFIG.negatives.uniform_negatives, CONFIG.negatives.in_batch_negatives, rng
    )
    pi = rng.dirichlet([0.5, 0.5], size=len(batch.lengths))
    correction = rng.standard_normal(ITEMS + 1) if corrected else None
    overhead = rectangle_overhead(torch.device("cuda"))
    return step_inputs(batch, negatives, pi, model.config, overhead=overhead, correction=correction)


def gradients(model: MultiTRON, inputs: StepInputs) -> Gradients:
    """Means of the losses, and the gradients of a weighted sum of them."""
    embedding = model.item_embedding.weight.detach()
    rows = embedding[inputs.batch_items].requires_grad_(), embedding[inputs.uniform_items].requires_grad_()
    losses = losses_of(model, *rows, inputs, LOSSES)
    means = inputs.weights @ losses
    others = [parameter for name, parameter in model.named_parameters() if name != "item_embedding.weight"]
    return means.detach(), list(torch.autograd.grad(means[0] + 2.0 * means[1], [*others, *rows]))


@pytest.mark.parametrize("positions", ["start", "end"])
@pytest.mark.parametrize("norm", ["unit", "free"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_padded_to_bucket_changes_no_loss_or_gradient(positions: str, norm: str, corrected: bool, seed: int) -> None:
    model = a_model(positions=positions, item_norm=norm)
    inputs = some_inputs(model, seed, corrected=corrected)
    full = padded_to_bucket(inputs, model.config.max_length)
    expected, expected_gradients = gradients(model, inputs)
    found, found_gradients = gradients(model, full)
    torch.testing.assert_close(found, expected)
    for one, other in zip(found_gradients[:-2], expected_gradients[:-2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    for one, other in zip(found_gradients[-2:], expected_gradients[-2:], strict=True):
        torch.testing.assert_close(one[: len(other)], other, atol=1e-6, rtol=1e-5)
        assert not one[len(other) :].any()


def test_padded_to_bucket_gives_few_sizes() -> None:
    model = a_model()
    batches = [some_inputs(model, seed, sessions=40) for seed in range(30)]
    full = [padded_to_bucket(inputs, 16) for inputs in batches]
    assert len({(len(inputs.clicks), len(inputs.batch_items), len(inputs.uniform_items)) for inputs in batches}) > 20
    assert len({(len(inputs.clicks), len(inputs.batch_items), len(inputs.uniform_items)) for inputs in full}) < 10
    assert {inputs.rows[0].width for inputs in full} == {16}
    for inputs, more in zip(batches, full, strict=True):
        assert more.weights.sum().item() == pytest.approx(1.0, abs=1e-6)
        assert len(inputs.clicks) <= len(more.clicks) <= len(inputs.clicks) * 1.25 + 16


def test_shape_of_tells_rectangles_apart() -> None:
    """A graph holds the width of a rectangle as a number, which the shapes of tensors do not give."""
    model = a_model()
    batches = [
        padded_to_bucket(some_inputs(model, seed, sessions=5, longest=longest), 16)
        for seed in range(40)
        for longest in (8, 12)
    ]
    by_tensors: dict[tuple[object, ...], set[int]] = {}
    for inputs in batches:
        sizes = (len(inputs.clicks), len(inputs.batch_items), len(inputs.uniform_items))
        by_tensors.setdefault(sizes, set()).add(inputs.rows[0].width)
    assert {8, 16} in by_tensors.values()
    assert len({shape_of(inputs, tensors_of(inputs)) for inputs in batches}) == sum(map(len, by_tensors.values()))


def test_padded_to_bucket_of_a_share_without_sessions() -> None:
    model = a_model()
    batch, rng = random_batch(1, sessions=1), np.random.default_rng(1)
    negatives = draw_negatives(batch, ITEMS, 130, 8, rng)
    shares = [
        padded_to_bucket(
            step_inputs(batch, negatives, np.ones(2) / 2, model.config, overhead=1 << 30, rank=rank, world=2), 16
        )
        for rank in range(2)
    ]
    assert not shares[1].rows
    assert [len(share.batch_items) for share in shares] == [len(shares[0].batch_items)] * 2
    assert [len(share.uniform_items) for share in shares] == [len(shares[0].uniform_items)] * 2


@pytest.mark.parametrize("corrected", [False, True])
def test_gradient_graphs_match_single_kernels(cuda: torch.device, corrected: bool) -> None:
    model = a_model().to(cuda)
    graphs = GradientGraphs(lambda inputs: gradients(model, inputs))
    batches = [
        some_inputs(model, seed, sessions=5, longest=longest, corrected=corrected)
        for seed in range(20)
        for longest in (8, 12)
    ]
    for one in [*batches, *batches]:  # the second round finds every graph recorded
        inputs = to_device(padded_to_bucket(one, 16), cuda)
        expected, expected_gradients = gradients(model, inputs)
        found, found_gradients = graphs(inputs)
        torch.testing.assert_close(found, expected)
        for gradient, of_kernels in zip(found_gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, of_kernels, atol=1e-6, rtol=1e-5)


def test_gradient_graphs_record_while_a_thread_pins_memory(cuda: torch.device) -> None:
    model = a_model().to(cuda)
    graphs = GradientGraphs(lambda inputs: gradients(model, inputs))
    batches = [to_device(padded_to_bucket(some_inputs(model, seed), 16), cuda) for seed in range(6)]
    stopped = threading.Event()
    pinned: list[Tensor] = []
    errors: list[RuntimeError] = []

    def pin() -> None:
        try:
            while not stopped.is_set():
                pinned.append(torch.empty(1 << 12, dtype=torch.uint8).pin_memory())  # kept, so that each is new
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        for inputs in batches:
            graphs(inputs)
    finally:
        stopped.set()
        thread.join()
    assert not errors
    assert len(pinned) > 10


def test_gradient_graphs_draw_dropout_anew(cuda: torch.device) -> None:
    torch.manual_seed(1)
    model = MultiTRON(a_model().config.changed(dropout=0.5)).to(cuda)
    graphs = GradientGraphs(lambda inputs: gradients(model, inputs))
    inputs = to_device(padded_to_bucket(some_inputs(model, 1), 16), cuda)

    def means(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return graphs(inputs)[0].clone()

    means(0)
    assert torch.equal(means(1), means(1))
    assert not torch.equal(means(1), means(2))
