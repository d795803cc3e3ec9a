"""The front against plain float64 formulas on a small model."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from multitron_core.errors import InputError
from multitron_core.front import measurement
from multitron_core.front.__main__ import main
from multitron_core.front.evaluation import evaluate_front, evaluate_points, front_table, front_volume
from multitron_core.front.measurement import measure_front
from multitron_core.front.monotonicity import monotonicity, reversing_losses
from multitron_core.front.volume import hypervolume
from multitron_core.losses.negatives import draw_negatives
from multitron_core.metrics.steps import evaluation_batches, step_states
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.operating_point import FILE_NAME
from multitron_core.preference.spacing import spaced_preferences
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig

ITEMS = 30
SMALL = TrainingConfig(batch_sessions=4, uniform_negatives=40, in_batch_negatives=3, kept_negatives=8)


def random_sessions(sessions: int = 11, *, seed: int = 0) -> EncodedSessions:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 9, sessions))]).astype(np.int64)
    return EncodedSessions(
        pl.Series([str(s) for s in range(sessions)]),
        offsets,
        rng.integers(1, ITEMS + 1, offsets[-1]).astype(np.int32),
        rng.random(offsets[-1]) < 0.3,
        "hash",
    )


@pytest.fixture
def model() -> MultiTRON:
    torch.manual_seed(1)
    return MultiTRON(ModelConfig(items=ITEMS, dimension=8, max_length=5, item_scale=1.0)).eval()


@pytest.mark.parametrize("mode", ["sampled", "exact"])
def test_a_gpu_measures_what_a_cpu_does(model: MultiTRON, mode: str, cuda: torch.device) -> None:
    sessions = random_sessions(40)
    expected = measure_front(model, sessions, [0.0, 0.5, 1.0], config=SMALL, click_loss_mode=mode)
    found = measure_front(model.to(cuda), sessions, [0.0, 0.5, 1.0], config=SMALL, click_loss_mode=mode)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5, atol=1e-5)
    assert (found.ranks == expected.ranks).mean() > 0.99


class TestSpacing:
    def test_the_arcsine_law(self) -> None:
        points = spaced_preferences()
        assert len(points) == 26
        assert points == pytest.approx([1 - math.sin(math.pi * i / 50) ** 2 for i in range(25, -1, -1)])

    def test_the_published_weights(self) -> None:
        published = [1.0, 0.9961, 0.9843, 0.9649, 0.9382, 0.9045, 0.8645, 0.8187]
        assert [round(p, 4) for p in spaced_preferences()[::-1][:8]] == published
        published = [1.0, 0.9984, 0.9936, 0.9856, 0.9744, 0.96]
        assert [round(p, 4) for p in spaced_preferences(spacing="square")[::-1][:6]] == published

    def test_any_beta_gives_rising_points_from_0_to_1(self) -> None:
        points = spaced_preferences(7, beta=(1.2, 3.0))
        assert points[0] == 0.0
        assert points[-1] == 1.0
        assert np.all(np.diff(points) > 0)

    @pytest.mark.parametrize("arguments", [{"points": 1}, {"spacing": "log"}, {"beta": (1.0,)}, {"beta": (0.0, 1.0)}])
    def test_refusals(self, arguments: dict) -> None:
        with pytest.raises(InputError):
            spaced_preferences(**arguments)


class TestLosses:
    @pytest.mark.parametrize("own_clicks", [None, (0.3, -0.7)])
    def test_exact_losses_and_ranks_by_the_plain_formula(
        self, model: MultiTRON, own_clicks: tuple[float, float] | None
    ) -> None:
        """Own clicks rank, and are no part of how likely an order is."""
        data, without = random_sessions(), copy.deepcopy(model).double()
        if own_clicks is not None:
            model.own_clicks = torch.nn.Parameter(torch.tensor(own_clicks))
        measured = measure_front(model, data, [0.0, 0.6], config=SMALL, click_loss_mode="exact")
        model = model.double()
        clicks, orders, ranks = [], [], []
        for session in dict.fromkeys(measured.steps["session"].to_list()):
            own = slice(data.offsets[session], data.offsets[session + 1])
            items, ordered = data.items[own][-6:].astype(np.int64), data.ordered[own][-6:]
            pi = torch.tensor([0.4, 0.6]).double()
            inputs = (torch.from_numpy(items[None, :-1]), torch.tensor([len(items) - 1]), pi)
            scores = model.scores(model(*inputs))[0]
            targets = torch.from_numpy(items[1:])
            own_scores = scores.gather(1, targets[:, None] - 1)
            clicks += (scores.exp().sum(1).log() - own_scores[:, 0]).tolist()
            label = torch.from_numpy(ordered[1:])[:, None]
            probability = torch.sigmoid(without.scores(without(*inputs))[0].gather(1, targets[:, None] - 1))
            orders += (-torch.where(label, probability, 1 - probability).log())[:, 0].tolist()
            ranks += ((scores > own_scores).sum(1) + 1).tolist()
        np.testing.assert_allclose(measured.losses[1], np.column_stack([clicks, orders]), atol=1e-5)
        assert measured.ranks[1].tolist() == ranks

    @pytest.mark.parametrize("collisions", ["masked", "official"])
    def test_the_sampled_loss_by_the_plain_formula(self, model: MultiTRON, collisions: str) -> None:
        """Every draw written out, copies and all, the hardest kept, in float64."""
        config = SMALL.changed(batch_sessions=64, collisions=collisions)
        data = random_sessions()
        batch = evaluation_batches(data, 5, batch_sessions=64)[0]
        drawn = draw_negatives(batch, ITEMS, 40, 3, np.random.default_rng([7, 0, 0]))
        weight = model.item_embedding.weight.detach().double()
        states = step_states(model, batch, torch.tensor([0.5, 0.5])).double()
        expected = []
        for step, state in enumerate(states):
            copies = drawn.batch_copies[batch.session_of_step[step]]
            items = [*np.repeat(drawn.batch_items, copies), *np.repeat(drawn.uniform_items, drawn.uniform_copies)]
            if collisions == "masked":
                items = [item for item in items if item != batch.targets[step]]
            hardest = (weight[items] @ state).sort(descending=True).values[:8]
            own = weight[batch.targets[step]] @ state
            expected.append(float(torch.logsumexp(torch.cat([own[None], hardest]), dim=0) - own))
        measured = measure_front(model, data, [0.5], config=config, seed=7)
        np.testing.assert_allclose(measured.losses[0, :, 0], expected, atol=1e-5)

    @pytest.mark.parametrize("moved", [1.0, 100.0])
    def test_shortlists_give_what_whole_catalogues_give(
        self, model: MultiTRON, moved: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With few of many columns listed, where pi moves the states a little and where it turns them around."""
        with torch.no_grad():
            model.linear.weight[:, -2:] *= moved
        preferences, chosen = spaced_preferences(15), []
        monkeypatch.setattr(
            measurement,
            "_measure_listed",
            lambda *of, plain=measurement._measure_listed: chosen.append(plain(*of)) or chosen[-1],
        )
        monkeypatch.setattr(measurement, "MAX_RANK", 5)
        monkeypatch.setattr(measurement, "MANY_ITEMS", ITEMS)
        config = SMALL.changed(kept_negatives=2)
        listed = measure_front(model, random_sessions(40), preferences, config=config, repeats=2)
        proven = torch.cat(chosen).float().mean()
        assert 0.02 < proven < 0.98  # both ways are taken
        whole = measure_front(model, random_sessions(40), preferences, config=config, repeats=2, shortlists=False)
        np.testing.assert_array_equal(listed.ranks, whole.ranks)
        np.testing.assert_allclose(listed.losses, whole.losses, atol=1e-5)

    def test_threads_change_nothing(self, model: MultiTRON) -> None:
        before, measured = torch.get_num_threads(), []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            measured.append(measure_front(model, random_sessions(40), [0.0, 0.5], config=SMALL))
        torch.set_num_threads(before)
        np.testing.assert_array_equal(measured[0].ranks, measured[1].ranks)
        np.testing.assert_allclose(measured[0].losses, measured[1].losses, atol=1e-6)

    def test_all_preferences_see_the_same_negatives(self, model: MultiTRON) -> None:
        with torch.no_grad():
            model.linear.weight[:, -2:] = 0.0  # pi changes nothing
        measured = measure_front(model, random_sessions(), [0.0, 0.5, 1.0], config=SMALL)
        np.testing.assert_array_equal(measured.losses[0], measured.losses[1])
        np.testing.assert_array_equal(measured.losses[0], measured.losses[2])

    def test_the_seed_decides_the_negatives_and_repeats_damp_them(self, model: MultiTRON) -> None:
        data = random_sessions()
        losses = [measure_front(model, data, [0.5], config=SMALL, seed=seed).losses[..., 0] for seed in (1, 1, 2)]
        np.testing.assert_array_equal(losses[0], losses[1])
        assert not np.array_equal(losses[0], losses[2])
        means = {
            repeats: [
                measure_front(model, data, [0.5], config=SMALL, seed=seed, repeats=repeats).losses[..., 0].mean()
                for seed in range(8)
            ]
            for repeats in (1, 16)
        }
        assert np.std(means[16]) < np.std(means[1])

    def test_the_order_softmax_is_the_click_loss_of_the_ordered_steps(self, model: MultiTRON) -> None:
        config = TrainingConfig(
            batch_sessions=4, uniform_negatives=40, in_batch_negatives=3, kept_negatives=8, order_loss="ordered_softmax"
        )
        measured = measure_front(model, random_sessions(), [0.5], config=config)
        ordered = measured.steps["ordered"].to_numpy()
        assert measured.losses[0, :, 1].mean() == pytest.approx(measured.losses[0, ordered, 0].mean(), rel=1e-5)
        assert measured.reference == (math.log(9), math.log(9))

    def test_the_ranked_binary_loss_is_both(self, model: MultiTRON) -> None:
        small = {"batch_sessions": 4, "uniform_negatives": 40, "in_batch_negatives": 3, "kept_negatives": 8}
        both, ranked, binary = (
            measure_front(model, random_sessions(), [0.5], config=TrainingConfig(**small, order_loss=loss))
            for loss in ("ranked_bce", "ordered_softmax", "bce")
        )
        np.testing.assert_allclose(both.losses[..., 1], ranked.losses[..., 1] + binary.losses[..., 1], rtol=1e-5)
        assert both.reference == (math.log(9), math.log(9) + math.log(2))


class TestTable:
    def test_one_row_a_preference_with_the_contract_columns(self, model: MultiTRON) -> None:
        front = evaluate_front(model, random_sessions(), 5, config=SMALL)
        assert front.height == 5
        assert front["pi_order"].is_sorted()
        assert {
            *("pi_order", "pi_click", "click_loss", "order_loss", "click_recall_20", "click_mrr_20"),
            *("last_click_recall_20", "order_recall_20", "order_density", "recall_x_density", "dominated"),
        } <= set(front.columns)
        assert front["ranks_trained"].to_list() == [True] * 4 + [False]
        for row in front.iter_rows(named=True):
            better = front.filter(
                (pl.col("click_loss") <= row["click_loss"])
                & (pl.col("order_loss") <= row["order_loss"])
                & ((pl.col("click_loss") < row["click_loss"]) | (pl.col("order_loss") < row["order_loss"]))
            )
            assert row["dominated"] == (better.height > 0)

    def test_prepared_sessions_mean_their_test_split(self, model: MultiTRON) -> None:
        class Prepared:
            test = random_sessions()

        assert evaluate_points(model, Prepared(), [0.5], config=SMALL).equals(
            evaluate_points(model, Prepared.test, [0.5], config=SMALL)
        )

    def test_the_model_keeps_its_mode(self, model: MultiTRON) -> None:
        model.train()
        evaluate_points(model, random_sessions(), [0.5], config=SMALL)
        assert model.training

    def test_progress_reaches_the_end(self, model: MultiTRON) -> None:
        seen: list[tuple[int, int]] = []
        evaluate_points(model, random_sessions(), [0.5], config=SMALL, progress=lambda *done: seen.append(done))
        assert seen == [(i + 1, len(seen)) for i in range(len(seen))]

    def test_no_orders_at_all(self, model: MultiTRON) -> None:
        data = random_sessions()
        data = EncodedSessions(data.session_ids, data.offsets, data.items, np.zeros(len(data.items), bool), "hash")
        front = evaluate_front(model, data, 3, config=SMALL)
        assert front["order_recall_20"].to_list() == [None] * 3
        assert front["order_loss"].is_finite().all()

    def test_the_volume_of_the_table(self, model: MultiTRON) -> None:
        measured = measure_front(model, random_sessions(40), [0.0, 0.5, 1.0], config=SMALL)
        volume = front_volume(measured, reference=(9.0, 9.0), resamples=50)
        points = front_table(measured).select("click_loss", "order_loss").to_numpy()
        assert volume.raw.value == pytest.approx(hypervolume(points, (9.0, 9.0)), rel=1e-6)
        assert volume.raw.low < volume.raw.value < volume.raw.high


def test_monotony_counts_steps_and_the_worst_reversal() -> None:
    front = pl.DataFrame(
        {
            "pi_order": [1.0, 0.0, 0.5, 0.75],
            "click_loss": [4.0, 1.0, 3.0, 2.5],
            "order_loss": [1.0, 4.0, 3.0, 2.0],
            "order_recall_20": [None, 0.1, 0.2, 0.3],
        }
    )
    rows = {row["column"]: row for row in monotonicity(front).iter_rows(named=True)}
    assert set(rows) == {"click_loss", "order_loss"}
    assert rows["click_loss"]["right_way"] == pytest.approx(2 / 3)
    assert rows["click_loss"]["worst_reversal"] == pytest.approx(0.5)
    assert rows["order_loss"]["right_way"] == 1.0
    assert (rows["order_loss"]["first"], rows["order_loss"]["last"]) == (4.0, 1.0)


def test_a_loss_that_turns_back_is_off_course() -> None:
    front = pl.DataFrame(
        {
            "pi_order": [0.0, 0.25, 0.5, 0.75, 1.0],
            "click_loss": [9.0, 1.0, 1.9, 2.0, 1.5],  # the first is dominated, the last has no trained ranks
            "order_loss": [9.0, 3.0, 2.0, 2.5, 0.5],  # back by half of its range of one
            "dominated": [True, False, False, False, False],
            "ranks_trained": [True, True, True, True, False],
        }
    )
    assert reversing_losses(front)["column"].to_list() == ["order_loss"]
    assert reversing_losses(front, tolerance=0.5).is_empty()
    untrained = front.with_columns(ranks_trained=pl.col("ranks_trained") | (pl.col("pi_order") == 1.0))
    assert reversing_losses(untrained, tolerance=0.3)["column"].to_list() == ["click_loss"]
    assert reversing_losses(front.filter("dominated")).is_empty()


class TestCommand:
    @pytest.fixture
    def folders(self, model: MultiTRON, tmp_path: Path) -> list[str]:
        data = random_sessions(40)
        data.save(tmp_path / "sessions" / "test")
        (tmp_path / "model").mkdir()
        save_file(model.state_dict(), tmp_path / "model" / "weights.safetensors")
        described = {
            "model": model.config.model_dump(),
            "training": SMALL.flat(),
            "vocabulary_hash": "hash",
            "version": "v1",
        }
        (tmp_path / "model" / "config.json").write_text(json.dumps(described))
        return ["--model", str(tmp_path / "model"), "--sessions", str(tmp_path / "sessions"), "--points", "4"]

    def test_it_prints_and_keeps(self, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*folders, "--save", "--record", "newsletter", "--k", "3"]) == 0
        printed = capsys.readouterr().out
        for words in (
            "click_recall_3",
            "worst_reversal",
            "from pi_order 0.",
            "hypervolume, raw",
            "operating point: pi",
        ):
            assert words in printed
        kept = Path(folders[1])
        assert pl.read_parquet(kept / "front.parquet").height == 4
        assert (kept / "front.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((kept / FILE_NAME).read_text())["newsletter"]["model_version"] == "v1"

    def test_another_vocabulary_is_refused(self, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        config = Path(folders[1]) / "config.json"
        config.write_text(config.read_text().replace('"hash"', '"other"'))
        assert main(folders) == 2
        assert "another vocabulary" in capsys.readouterr().err


class TestRefusals:
    def test_nothing_to_evaluate(self, model: MultiTRON) -> None:
        empty = EncodedSessions(pl.Series([], dtype=pl.String), np.zeros(1, np.int64), *np.zeros((2, 0), bool), "hash")
        with pytest.raises(InputError, match="nothing to evaluate"):
            evaluate_front(model, empty, config=SMALL)

    @pytest.mark.parametrize("pi_orders", [[], [1.1], [float("nan")]])
    def test_preferences(self, model: MultiTRON, pi_orders: list[float]) -> None:
        with pytest.raises(InputError, match="weights in"):
            evaluate_points(model, random_sessions(), pi_orders, config=SMALL)

    @pytest.mark.parametrize("k", [0, measurement.MAX_RANK + 1])
    def test_lists_longer_than_ranks_are_exact(
        self, model: MultiTRON, k: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(InputError, match="length of a list"):
            evaluate_points(model, random_sessions(), [0.5], config=SMALL, k=k)
        assert main(["--model", "none", "--sessions", "none", "--k", str(k)]) == 2
        assert "length of a list" in capsys.readouterr().err

    def test_an_unknown_item(self, model: MultiTRON) -> None:
        data = random_sessions()
        data.items[-1] = ITEMS + 1
        with pytest.raises(InputError, match="does not know"):
            evaluate_points(model, data, [0.5], config=SMALL)

    def test_weights_that_are_not_finite(self, model: MultiTRON) -> None:
        with torch.no_grad():
            model.norm.weight[0] = float("nan")
        with pytest.raises(InputError, match="not finite"):
            evaluate_points(model, random_sessions(), [0.5], config=SMALL)

    def test_three_objectives(self) -> None:
        model = MultiTRON(ModelConfig(items=ITEMS, dimension=8, objectives=("click", "cart", "order")))
        with pytest.raises(InputError, match="rows of a weight an objective"):
            evaluate_points(model, random_sessions(), [0.5], config=SMALL)
        with pytest.raises(InputError, match="no labels of carts"):
            evaluate_points(model, random_sessions(), [(0.2, 0.3, 0.5)], config=SMALL)
