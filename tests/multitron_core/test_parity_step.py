"""The model, a training step and its gradients against the formulas in float64 numpy, and at their edges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from multitron_core import losses
from multitron_core.losses.negatives import draw_negatives
from multitron_core.model.config import ModelConfig
from multitron_core.model.description import ModelDescription
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.batches import Batch, epoch_order, make_batch, random_of
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training import presets
from multitron_core.training.config import TrainingConfig
from multitron_core.training.data import popularity_correction
from multitron_core.training.presets import Preset
from multitron_core.training.step import StepLosses, losses_of
from multitron_core.training.step_inputs import StepInputs, step_inputs
from multitron_core.training.trainer import train
from tests.multitron_core import plain_formulas as plain

ITEMS = 12
RATES = {"order": 0.3, "cart": 0.45}


def small_model(**settings: object) -> MultiTRON:
    """A model whose weights are all of a size to be seen: no zeros, no ones, scores of some units."""
    torch.manual_seed(3)
    shape = {"items": ITEMS, "dimension": 6, "layers": 2, "max_length": 5, "dropout": 0.0, "item_scale": 1.0}
    model = MultiTRON(ModelConfig(**shape | settings))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "item_embedding.weight":
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def weights_of(model: MultiTRON) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy().copy() for name, tensor in model.state_dict().items()}


class TestModel:
    @pytest.mark.parametrize("positions", ["start", "end"])
    @pytest.mark.parametrize("heads", [1, 2, 3])
    @pytest.mark.parametrize("own_clicks", ["attended", "added"])
    @pytest.mark.parametrize("pi", [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7)])
    def test_states_and_scores(self, positions: str, heads: int, own_clicks: str, pi: tuple[float, float]) -> None:
        model = small_model(positions=positions, heads=heads, own_clicks=own_clicks).double()
        weights = weights_of(model)
        for clicks in ([7], [3, 3], [1, 12, 5, 1, 9]):  # one step, an item twice, the longest
            described = weights, model.config, clicks, pi
            expected = plain.states(*described) + plain.own_clicks(*described)
            padded = torch.tensor([clicks + [0] * (5 - len(clicks))])
            arguments = padded, torch.tensor([len(clicks)]), torch.tensor(pi, dtype=torch.float64)
            with torch.no_grad():
                found, last = model(*arguments)[0, : len(clicks)], model.last_states(*arguments)[0]
                scores = model.scores(found)
            np.testing.assert_allclose(found, expected, atol=1e-12)
            np.testing.assert_allclose(last, expected[-1], atol=1e-12)
            np.testing.assert_allclose(scores, expected @ weights["item_embedding.weight"][1:].T, atol=1e-12)

    def test_the_first_weights(self) -> None:
        torch.manual_seed(1)
        xavier = MultiTRON(ModelConfig(items=400, dimension=40, initialisation="xavier"))
        for table, rows in ((xavier.item_embedding, 401), (xavier.position_embedding, 50)):
            bound = np.sqrt(6 / (rows + 40))  # uniform in [-bound, bound]
            values = table.weight.detach().numpy()[1:]
            assert 0.98 * bound < np.abs(values).max() <= bound
            assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
        normal = MultiTRON(ModelConfig(items=400, dimension=40, item_scale=0.02, position_scale=0.4))
        assert normal.item_embedding.weight[1:].std().item() == pytest.approx(0.02, rel=0.05)
        assert normal.position_embedding.weight.std().item() == pytest.approx(0.4, rel=0.1)
        for model in (xavier, normal):
            assert model.item_embedding.weight[0].abs().max() == 0.0


@dataclass(frozen=True)
class Case:
    """Sessions as inputs and last click, which targets are ordered, and the preferences."""

    sessions: tuple[tuple[int, ...], ...]
    ordered: tuple[int, ...] = ()
    pi: tuple[tuple[float, float], ...] = ()
    uniform: int = 30

    def problem(self, objectives: int = 2, seed: int = 1) -> plain.Problem:
        inputs = [item for clicks in self.sessions for item in clicks[:-1]]
        targets = [item for clicks in self.sessions for item in clicks[1:]]
        lengths = np.array([len(clicks) - 1 for clicks in self.sessions])
        ordered = np.isin(np.arange(len(inputs)), self.ordered)
        carted = np.array(targets) % 2 == 0
        batch = Batch(np.arange(len(lengths)), lengths, np.array(inputs), np.array(targets), ordered, carted)
        rng = np.random.default_rng(seed)
        negatives = draw_negatives(batch, ITEMS, self.uniform, 3, rng)
        pi = np.array(self.pi) if self.pi else rng.dirichlet((0.5, 0.5), size=len(lengths))
        if objectives == 3:  # orders share their weight with carts
            pi = np.column_stack([pi[:, 0], 0.25 * pi[:, 1], 0.75 * pi[:, 1]])
        return plain.Problem(batch, negatives, pi.astype(np.float32).astype(np.float64), RATES)


THREE = ((7, 8), (1, 2, 1), (3, 4, 3, 9, 5))
CASES = {
    "three sessions": Case(THREE, ordered=(0, 4)),
    "one session of one step": Case(((7, 8),), ordered=(0,)),
    "one step whose target is its input": Case(((7, 7),)),
    "one session of the greatest length": Case(((3, 4, 3, 9, 5, 3),), ordered=(1, 4)),
    "no orders": Case(THREE),
    "every click ordered": Case(THREE, ordered=tuple(range(7))),
    "clicks alone": Case(THREE, ordered=(0, 4), pi=((1.0, 0.0),) * 3),
    "orders alone": Case(THREE, ordered=(0, 4), pi=((0.0, 1.0),) * 3),
    "both ends in one batch": Case(THREE, ordered=(0, 4), pi=((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))),
    "no uniform negatives": Case(THREE, ordered=(0, 4), uniform=0),
    "no negatives": Case(((7, 8),), ordered=(0,), uniform=0),
}
RECIPES: dict[str, dict[str, object]] = {
    "paper": {},
    "released": {"collisions": "official", "regulariser": "released"},
    "softmax": {"regulariser_g": "softmax", "regularisation": 1.0},
    "ordered_softmax": {"order_loss": "ordered_softmax"},
    "ranked_bce": {"order_loss": "ranked_bce"},
    "ordered steps alone": {"order_loss": "ordered_softmax", "ordered_share": 1.0, "regulariser": "none"},
    "cosine and chebyshev": {"regulariser": "cosine", "scalarisation": "chebyshev"},
    "own clicks added": {"order_loss": "ranked_bce", "ordered_share": 0.15},
    "three objectives": {"order_loss": "ranked_bce", "cart_loss": "bce"},
    "three objectives, cosine and chebyshev": {
        "cart_loss": "ordered_softmax",
        "regulariser": "cosine",
        "scalarisation": "chebyshev",
    },
    "popularity corrected": {
        "order_loss": "ranked_bce",
        "popularity_correction": 0.7,
        "uniform_negatives": 2,
        "in_batch_negatives": 3,
    },
}

SHAPES: dict[str, dict[str, object]] = {
    "own clicks added": {"own_clicks": "added"},
    "three objectives": {"objectives": ("click", "order", "cart"), "own_clicks": "added"},
    "three objectives, cosine and chebyshev": {"objectives": ("click", "cart", "order")},
}


def recipe(name: str) -> TrainingConfig:
    return TrainingConfig(kept_negatives=8, **RECIPES[name])


def inputs_of(model: MultiTRON, config: TrainingConfig, problem: plain.Problem) -> StepInputs:
    everything = one_batch([[*clicks, 1] for clicks in np.split(problem.batch.inputs, problem.batch.starts[1:])])
    correction = popularity_correction(everything, np.arange(len(everything)), model.config, config)
    return step_inputs(problem.batch, problem.negatives, problem.pi, model.config, overhead=4, correction=correction)


def rates_of(model: MultiTRON) -> tuple[float, ...]:
    return 1.0, *(RATES[event] for event in model.config.objectives[1:])


def losses_for(model: MultiTRON, config: TrainingConfig, search: torch.dtype) -> StepLosses:
    return StepLosses.of(config, model.config.objectives, rates_of(model), search)


def rows_of(model: MultiTRON, inputs: StepInputs) -> tuple[torch.Tensor, torch.Tensor]:
    embedding = model.item_embedding.weight.detach()
    return embedding[inputs.batch_items].requires_grad_(), embedding[inputs.uniform_items].requires_grad_()


class TestStep:
    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("name", RECIPES)
    @pytest.mark.parametrize("norm", ["free", "unit"])
    def test_losses(self, case: str, name: str, norm: str) -> None:
        model, config = small_model(item_norm=norm, **SHAPES.get(name, {})), recipe(name)
        problem = CASES[case].problem(len(model.config.objectives))
        inputs = inputs_of(model, config, problem)
        with torch.no_grad():
            found = losses_of(model, *rows_of(model, inputs), inputs, losses_for(model, config, torch.float32))
            pi = inputs.pi[inputs.negatives.session_of_step]
            penalty = losses.regulariser(config.losses.regulariser, config.losses.regulariser_g)(found, pi)
            total = (
                losses.scalarisation(config.losses.scalarisation)(found, pi) + config.losses.regularisation * penalty
            ).mean()
        weights = weights_of(model)
        np.testing.assert_allclose(found, plain.step_losses(weights, model.config, config, problem), atol=1e-5)
        assert total.item() == pytest.approx(plain.total_loss(weights, model.config, config, problem), abs=1e-5)

    @pytest.mark.parametrize(
        ("case", "name", "norm"),
        [
            ("three sessions", "paper", "free"),
            ("three sessions", "ordered_softmax", "unit"),
            ("three sessions", "ranked_bce", "unit"),
            ("one session of one step", "released", "free"),
            ("both ends in one batch", "paper", "unit"),
            ("three sessions", "popularity corrected", "unit"),
            ("three sessions", "softmax", "free"),
            ("three sessions", "cosine and chebyshev", "unit"),
            ("three sessions", "own clicks added", "unit"),
            ("no orders", "own clicks added", "unit"),
            ("every click ordered", "own clicks added", "unit"),
            ("orders alone", "own clicks added", "free"),
            ("three sessions", "three objectives", "unit"),
            ("both ends in one batch", "three objectives, cosine and chebyshev", "unit"),
        ],
    )
    def test_gradients(self, case: str, name: str, norm: str) -> None:
        """Every coordinate of every weight against a central difference of the plain formula."""
        model = small_model(item_norm=norm, dimension=4, layers=1, max_length=4, **SHAPES.get(name, {}))
        config, problem = recipe(name), CASES[case].problem(len(model.config.objectives))
        inputs = inputs_of(model, config, problem)
        rows = rows_of(model, inputs)
        found = losses_of(model, *rows, inputs, losses_for(model, config, torch.float32))
        pi = inputs.pi[inputs.negatives.session_of_step]
        total = losses.scalarisation(config.losses.scalarisation)(found, pi)
        (
            total
            + config.losses.regularisation
            * losses.regulariser(config.losses.regulariser, config.losses.regulariser_g)(found, pi)
        ).mean().backward()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
        gradients["item_embedding.weight"] = torch.zeros(ITEMS + 1, 4)
        gradients["item_embedding.weight"][torch.cat([inputs.batch_items, inputs.uniform_items])] = torch.cat(
            [row.grad for row in rows if row.grad is not None]
        )
        weights = weights_of(model)
        for key, values in weights.items():
            assert key in gradients
            expected = np.zeros_like(values)
            for place in np.ndindex(values.shape):
                if key == "item_embedding.weight" and place[0] == 0:
                    continue  # padding: nothing reads it
                kept = values[place]
                ends = []
                for offset in (1e-5, -1e-5):
                    values[place] = kept + offset
                    ends.append(plain.total_loss(weights, model.config, config, problem))
                values[place] = kept
                expected[place] = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(gradients[key], expected, atol=1e-4, err_msg=key)

    @pytest.mark.parametrize("search", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_precisions(self, search: torch.dtype, autocast: bool) -> None:
        # The search alone in bfloat16 changes nothing beyond float32's rounding; the layers in it, by its 8 bits.
        model, config, problem = (
            small_model(item_norm="unit"),
            recipe("ordered_softmax"),
            CASES["three sessions"].problem(),
        )
        inputs = inputs_of(model, config, problem)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = losses_of(model, *rows_of(model, inputs), inputs, losses_for(model, config, search))
        expected = plain.step_losses(weights_of(model), model.config, config, problem)
        np.testing.assert_allclose(found, expected, atol=0.05 if autocast else 1e-5)
        assert found.dtype == torch.float32


def one_batch(clicks: list[list[int]], ordered: list[list[bool]] | None = None) -> EncodedSessions:
    lengths = [len(session) for session in clicks]
    return EncodedSessions(
        pl.Series([f"s{number}" for number in range(len(clicks))]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(clicks).astype(np.int32),
        np.concatenate(ordered).astype(bool) if ordered else np.zeros(sum(lengths), dtype=bool),
        VOCABULARY.hash,
    )


VOCABULARY = Vocabulary(pl.Series(range(100, 100 + ITEMS), dtype=pl.Int64))


@dataclass(frozen=True)
class Data:
    train: EncodedSessions
    vocabulary: Vocabulary


SESSIONS = {
    "one session of one step": ([[7, 8]], [[False, True]]),
    "no orders": ([[1, 2, 3], [4, 5], [2, 9, 9, 1]], [[False] * 3, [False] * 2, [False] * 4]),
    "every click ordered": ([[1, 2, 3], [4, 5], [2, 9, 9, 1]], [[True] * 3, [True] * 2, [True] * 4]),
    "some": (
        [[1, 2, 3], [4], [4, 5], [2, 9, 9, 1]],
        [[False, True, False], [True], [False, False], [False, True, False, False]],
    ),
}


class TestTraining:
    @pytest.mark.parametrize("sessions", SESSIONS)
    @pytest.mark.parametrize("whose", ["demo", "diginetica", "official", "popularity corrected"])
    def test_the_first_step(self, tmp_path: Path, sessions: str, whose: str) -> None:
        """What training says of its first batch, and where Adam takes the weights: all of it from the formulas."""
        data = Data(one_batch(*SESSIONS[sessions]), VOCABULARY)
        config = _one_step(whose)
        shape = config.model_config(ITEMS)
        recorded: list[dict[str, float]] = []
        folder = train(data, config, tmp_path / "model", on_epoch=recorded.append, progress=False, device="cpu")

        torch.manual_seed(config.training.data.seed)
        before = weights_of(MultiTRON(shape))
        problem = _first_problem(data.train, config, shape)
        expected = plain.step_losses(before, shape, config.training, problem)
        np.testing.assert_allclose(
            [recorded[0][f"train_{name}_loss"] for name in ("click", "order")], expected.mean(axis=0), atol=1e-5
        )
        total = plain.total_loss(before, shape, config.training, problem)
        assert recorded[0]["train_loss"] == pytest.approx(total, abs=1e-5)

        after = {name: tensor.double().numpy() for name, tensor in load_file(folder / "weights.safetensors").items()}
        rate = np.mean(problem.batch.ordered)
        assert ModelDescription.read(folder).extra["rates"] == pytest.approx({"click": 1.0, "order": rate})
        if shape.item_norm == "free":
            self._moved(before, after, shape, config.training, problem)

    def _moved(
        self,
        before: dict[str, np.ndarray],
        after: dict[str, np.ndarray],
        shape: ModelConfig,
        config: TrainingConfig,
        problem: plain.Problem,
    ) -> None:
        """Adam's first step is the learning rate against the sign of the gradient."""
        for name in ("linear.bias", "layers.0.feed_forward_out.bias", "item_embedding.weight"):
            for place in list(np.ndindex(before[name].shape))[:40]:
                kept = before[name][place]
                ends = []
                for offset in (1e-5, -1e-5):
                    before[name][place] = kept + offset
                    ends.append(plain.total_loss(before, shape, config, problem))
                before[name][place] = kept
                gradient = (ends[0] - ends[1]) / 2e-5
                if abs(gradient) > 1e-4:
                    moved = after[name][place] - kept
                    assert moved == pytest.approx(-config.optimiser.learning_rate * np.sign(gradient), rel=0.01), (
                        name,
                        place,
                    )


def _one_step(whose: str) -> Preset:
    training = {
        "epochs": 1,
        "batch_sessions": 64,
        "uniform_negatives": 25,
        "in_batch_negatives": 3,
        "kept_negatives": 8,
        "validation_share": 0.0,
        "warmup_steps": 0,
        "learning_rate": 1e-3,
        "precision": "float32",
        "negative_search": "float32",
    }
    model = {"dimension": 4, "layers": 1, "max_length": 3, "dropout": 0.0}
    if whose == "official":
        return presets.named("official", model=model, training=training)
    if whose == "popularity corrected":
        training |= {"popularity_correction": 0.7, "uniform_negatives": 5, "in_batch_negatives": 4}
    name = "diginetica" if whose == "diginetica" else "demo"
    return presets.named(name, model=model | {"item_scale": 0.5}, training=training)


def _first_problem(data: EncodedSessions, config: Preset, shape: ModelConfig) -> plain.Problem:
    """What training draws for the first batch of the first epoch."""
    settings = config.training
    rows = np.flatnonzero(data.lengths >= 2)
    random = random_of(settings.data.seed, 0, 0)
    batch = make_batch(data, epoch_order(rows, settings.data.session_order, settings.data.seed, 0), shape.max_length)
    negatives = draw_negatives(
        batch, ITEMS, settings.negatives.uniform_negatives, settings.negatives.in_batch_negatives, random
    )
    sessions = len(batch.lengths)
    pi = np.broadcast_to(
        random.dirichlet(settings.data.beta, sessions if settings.data.pi_per == "session" else None), (sessions, 2)
    )
    rates = {"order": float(np.mean(batch.ordered))}
    return plain.Problem(batch, negatives, pi.astype(np.float32).astype(np.float64), rates)
