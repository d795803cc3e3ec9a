import dataclasses
import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from multitron_core.losses.negatives import draw_negatives
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.training.config import TrainingConfig
from multitron_core.training.cuda_graphs import GradientGraphs, Gradients, padded_to_bucket, shape_of, tensors_of
from multitron_core.training.step import losses_of
from multitron_core.training.step_inputs import StepInputs, rectangle_overhead, step_inputs, to_device
from tests.multitron_core.training.test_step import random_batch

ITEMS = 300
CONFIG = TrainingConfig(
    uniform_negatives=130, in_batch_negatives=8, kept_negatives=100, order_loss="ranked_bce", negative_search="float32"
)


def a_model(**settings: object) -> MultiTRON:
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


def a_work(model: MultiTRON, seed: int, sessions: int = 9, longest: int = 12, corrected: bool = False) -> StepInputs:
    batch, rng = random_batch(seed, sessions=sessions, longest=longest), np.random.default_rng(seed)
    negatives = draw_negatives(batch, ITEMS, CONFIG.uniform_negatives, CONFIG.in_batch_negatives, rng)
    pi = rng.dirichlet([0.5, 0.5], size=len(batch.lengths))
    correction = rng.standard_normal(ITEMS + 1) if corrected else None
    overhead = rectangle_overhead(torch.device("cuda"))
    return step_inputs(batch, negatives, pi, model.config, overhead=overhead, correction=correction)


def gradients(model: MultiTRON, work: StepInputs) -> Gradients:
    """Means of the losses, and the gradients of a weighted sum of them."""
    embedding = model.item_embedding.weight.detach()
    rows = [embedding[items].requires_grad_() for items in (work.batch_items, work.uniform_items)]
    losses = losses_of(model, *rows, work, CONFIG, (1.0, 0.3), torch.float32)
    means = work.weights @ losses
    others = [parameter for name, parameter in model.named_parameters() if name != "item_embedding.weight"]
    return means.detach(), list(torch.autograd.grad(means[0] + 2.0 * means[1], [*others, *rows]))


@pytest.mark.parametrize("positions", ["start", "end"])
@pytest.mark.parametrize("norm", ["unit", "free"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_what_fills_a_batch_up_changes_nothing(positions, norm, corrected, seed):
    model = a_model(positions=positions, item_norm=norm)
    work = a_work(model, seed, corrected=corrected)
    full = padded_to_bucket(work, model.config.max_length)
    expected, expected_gradients = gradients(model, work)
    found, found_gradients = gradients(model, full)
    torch.testing.assert_close(found, expected)
    for one, other in zip(found_gradients[:-2], expected_gradients[:-2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    for one, other in zip(found_gradients[-2:], expected_gradients[-2:], strict=True):
        torch.testing.assert_close(one[: len(other)], other, atol=1e-6, rtol=1e-5)
        assert not one[len(other) :].any()


def test_few_sizes_and_no_step_lost():
    model = a_model()
    works = [a_work(model, seed, sessions=40) for seed in range(30)]
    full = [padded_to_bucket(work, 16) for work in works]
    assert len({(len(work.inputs), len(work.batch_items), len(work.uniform_items)) for work in works}) > 20
    assert len({(len(work.inputs), len(work.batch_items), len(work.uniform_items)) for work in full}) < 10
    assert {work.rows[0].width for work in full} == {16}
    for work, more in zip(works, full, strict=True):
        assert more.weights.sum().item() == pytest.approx(1.0, abs=1e-6)
        assert len(work.inputs) <= len(more.inputs) <= len(work.inputs) * 1.25 + 16


def test_works_of_other_rectangles_are_of_another_shape():
    """A graph holds a rectangle's width as a number: tensors of the same shapes do not tell it."""
    model = a_model()
    works = [
        padded_to_bucket(a_work(model, seed, sessions=5, longest=longest), 16)
        for seed in range(40)
        for longest in (8, 12)
    ]
    by_tensors: dict[tuple[object, ...], set[int]] = {}
    for work in works:
        sizes = (len(work.inputs), len(work.batch_items), len(work.uniform_items))
        by_tensors.setdefault(sizes, set()).add(work.rows[0].width)
    assert {8, 16} in by_tensors.values()
    assert len({shape_of(work, tensors_of(work)) for work in works}) == sum(map(len, by_tensors.values()))


def test_a_share_without_a_session_has_the_columns_of_the_others():
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
def test_a_graph_gives_what_its_kernels_give_one_by_one(cuda, corrected):
    model = a_model().to(cuda)
    graphs = GradientGraphs(lambda work: gradients(model, work))
    works = [
        a_work(model, seed, sessions=5, longest=longest, corrected=corrected)
        for seed in range(20)
        for longest in (8, 12)
    ]
    for one in [*works, *works]:  # the second round finds every graph recorded
        work = to_device(padded_to_bucket(one, 16), cuda)
        expected, expected_gradients = gradients(model, work)
        found, found_gradients = graphs(work)
        torch.testing.assert_close(found, expected)
        for gradient, of_kernels in zip(found_gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, of_kernels, atol=1e-6, rtol=1e-5)


def test_a_thread_may_pin_memory_while_a_graph_is_recorded(cuda):
    model = a_model().to(cuda)
    graphs = GradientGraphs(lambda work: gradients(model, work))
    works = [to_device(padded_to_bucket(a_work(model, seed), 16), cuda) for seed in range(6)]
    stopped, pinned, errors = threading.Event(), [], []

    def pin() -> None:
        try:
            while not stopped.is_set():
                pinned.append(torch.empty(1 << 12, dtype=torch.uint8).pin_memory())  # kept, so that each is new
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        for work in works:
            graphs(work)
    finally:
        stopped.set()
        thread.join()
    assert not errors
    assert len(pinned) > 10


def test_each_launch_of_a_graph_drops_other_cells(cuda):
    torch.manual_seed(1)
    model = MultiTRON(dataclasses.replace(a_model().config, dropout=0.5)).to(cuda)
    graphs = GradientGraphs(lambda work: gradients(model, work))
    work = to_device(padded_to_bucket(a_work(model, 1), 16), cuda)

    def means(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return graphs(work)[0].clone()

    means(0)
    assert torch.equal(means(1), means(1))
    assert not torch.equal(means(1), means(2))
