from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.errors import InputError
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import load_model
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training import step
from multitron_core.training.data import event_rates, split_rows
from multitron_core.training.own_clicks import fit_own_clicks
from multitron_core.training.step import StepLosses
from multitron_core.training.step_inputs import StepInputs
from multitron_core.training.trainer import Trainer, train
from multitron_core.training.validation import HeldOut
from tests.multitron_core.training.examples import ITEMS, Shop, same, shop, small, weights


def test_train_writes_a_whole_folder_and_learns(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    data = shop(sessions=2000)
    preset = small(epochs=6, order_loss="bce")  # orders are random here: only the binary loss can learn them
    folder = train(data, preset, tmp_path / "model", on_epoch=rows.append, progress=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "metrics.parquet",
        "vocabulary.parquet",
        "weights.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    description = ModelDescription.read(folder)
    vocabulary = Vocabulary.load(folder / "vocabulary.parquet")
    assert description.vocabulary_hash == data.vocabulary.hash == vocabulary.hash
    assert len(description.version) == 12
    assert load_model(folder).config.items == ITEMS
    metrics = pl.read_parquet(folder / "metrics.parquet")
    assert metrics.to_dicts() == rows
    assert metrics["epoch"].to_list() == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["train_click_loss"] < 0.9 * rows[0]["train_click_loss"]
    # Ten of sixty items are of the session's category: a model that knows it ranks them all among the first 20.
    assert rows[-1]["validation_click_recall_20_0.00"] > 0.9
    # More weight on orders: the order loss falls, the click loss rises.
    assert rows[-1]["validation_order_loss_1.00"] < rows[-1]["validation_order_loss_0.00"]
    assert rows[-1]["validation_click_loss_1.00"] > rows[-1]["validation_click_loss_0.00"]
    assert description.extra["epoch"] == 1 + min(range(6), key=lambda epoch: rows[epoch]["validation_loss"])


def test_train_follows_its_seed_and_restores_torchs_state(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    for name, settings in {"a": {}, "b": {}, "c": {"seed": 2}}.items():
        train(shop(), small(**settings), tmp_path / name, progress=False)
    assert torch.equal(torch.rand(1), expected)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")
    versions = [ModelDescription.read(tmp_path / name).version for name in "abc"]
    assert versions[0] == versions[1] != versions[2]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(("optimiser", "correction"), [("adam", 0.0), ("lazy_adam", 0.0), ("adam", 0.5)])
@pytest.mark.parametrize("stop_at", [1, 4, 9, 14])
def test_train_resumes_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str, correction: float, stop_at: int
) -> None:
    settings = {"schedule": "cosine", "warmup_steps": 3, "gradient_clip": 1.0}
    preset = small(optimiser=optimiser, popularity_correction=correction, **settings)
    whole: list[dict[str, float]] = []
    train(shop(), preset, tmp_path / "whole", on_epoch=whole.append, progress=False)

    one_step, calls = Trainer.step, 0

    def stopping(trainer: Trainer, inputs: StepInputs) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise StoppedError
        return one_step(trainer, inputs)

    monkeypatch.setattr(Trainer, "step", stopping)  # no argument of `train` stops it in the middle of an epoch
    with pytest.raises(StoppedError):
        train(shop(), preset, tmp_path / "resumed", progress=False)
    assert not (tmp_path / "resumed").exists()
    resumed: list[dict[str, float]] = []
    train(shop(), preset, tmp_path / "resumed", on_epoch=resumed.append, progress=False)
    assert same(tmp_path / "whole", tmp_path / "resumed")
    timeless = [
        [{k: v for k, v in row.items() if k not in ("seconds", "sessions_per_second")} for row in rows]
        for rows in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]


def test_train_returns_a_finished_folder(tmp_path: Path) -> None:
    folder = train(shop(), small(), tmp_path / "model", progress=False)
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    rows: list[dict[str, float]] = []
    assert train(shop(), small(), folder, on_epoch=rows.append, progress=False) == folder
    assert not rows
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_train_refuses_a_folder_of_another_training(tmp_path: Path) -> None:
    folder = train(shop(), small(), tmp_path / "model", progress=False)
    before = weights(folder)
    with pytest.raises(InputError, match="resume=False"):
        train(shop(), small(seed=2), folder, progress=False)
    with pytest.raises(InputError, match="resume=False"):
        train(shop(seed=2), small(), folder, progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(folder).items())
    train(shop(), small(seed=2), folder, resume=False, progress=False)
    assert not all(torch.equal(before[name], tensor) for name, tensor in weights(folder).items())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_train_names_the_batch_of_an_exploding_loss(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train(shop(), small(learning_rate=1e6, loss_limit=50.0), tmp_path / "model", progress=False)
    assert "epoch 0, batch" in str(caught.value)
    assert "session-" in str(caught.value)
    assert "learning_rate" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_train_keeps_the_checkpoint_before_a_loss_of_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses_of, calls = step.losses_of, 0

    def broken(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return losses_of(*arguments) * (torch.nan if calls == 6 else 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr(step, "losses_of", broken)  # no setting makes one batch fail between two good ones
    with pytest.raises(InputError, match="not finite"):
        train(shop(), small(), tmp_path / "model", progress=False)
    monkeypatch.undo()
    train(shop(), small(), tmp_path / "model", progress=False)
    train(shop(), small(), tmp_path / "whole", progress=False)
    assert same(tmp_path / "model", tmp_path / "whole")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("optimiser", ["adam", "lazy_adam"])
def test_train_on_a_gpu_matches_the_cpu_and_resumes(
    tmp_path: Path, cuda: torch.device, precision: str, optimiser: str, graphs: bool
) -> None:
    data = shop(sessions=600, longest=20)
    # Without dropout: its draws differ between devices.
    preset = small(epochs=4, optimiser=optimiser, precision=precision, cuda_graphs=graphs).changed(
        model={"dropout": 0.0}
    )
    rows: list[dict[str, float]] = []
    train(data, preset, tmp_path / "cpu", device="cpu", progress=False)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, preset, tmp_path / "gpu", device="cuda", on_epoch=stop, progress=False)
    train(data, preset, tmp_path / "gpu", device="cuda", on_epoch=rows.append, progress=False)
    expected = pl.read_parquet(tmp_path / "cpu" / "metrics.parquet")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    for name in ("train_click_loss", "validation_click_loss_0.50"):
        near = 1e-3 if precision == "float32" else 3e-2  # auto is bfloat16 on a GPU
        assert [row[name] for row in rows] == pytest.approx(expected[name].to_list(), rel=near)
    assert load_model(tmp_path / "gpu").config.items == ITEMS


def test_train_out_of_memory_on_a_gpu(tmp_path: Path, cuda: torch.device) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / total)
    try:
        big = small(epochs=1, batch_sessions=4000, validation_share=0.0).changed(model={"dimension": 256})
        with pytest.raises(InputError, match=r"out of memory; where: epoch 0, batch 0 on cuda.*lower batch_sessions"):
            train(shop(sessions=4000), big, tmp_path / "model", device="cuda", progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_train_stops_early_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    preset = small(epochs=60, learning_rate=0.03, patience=2)
    folder = train(shop(sessions=120), preset, tmp_path / "model", on_epoch=rows.append, progress=False)
    assert len(rows) < 60
    best = min(range(len(rows)), key=lambda epoch: rows[epoch]["validation_loss"])
    assert len(rows) == best + 3
    assert ModelDescription.read(folder).extra["epoch"] == best + 1


def test_train_without_validation_keeps_the_last_epoch(tmp_path: Path) -> None:
    folder = train(shop(), small(validation_share=0.0), tmp_path / "model", progress=False)
    assert ModelDescription.read(folder).extra["epoch"] == 3
    assert "validation_loss" not in pl.read_parquet(folder / "metrics.parquet").columns


@pytest.mark.parametrize("keep", ["best", "last"])
def test_train_fits_own_clicks_on_held_out_sessions(tmp_path: Path, keep: str) -> None:
    data, preset = shop(sessions=400), small(keep=keep).changed(model={"own_clicks": "added"})
    config = preset.training
    model = load_model(train(data, preset, tmp_path / "model", progress=False))
    assert model.own_clicks is not None
    written = model.own_clicks.detach().clone()
    rows, held_out = split_rows(data.train, config.validation.validation_share)
    rates = event_rates(data.train, rows, model.config)
    losses = StepLosses.of(config, model.config.objectives, rates, torch.float32)
    model.own_clicks.data.zero_()
    fit_own_clicks(model, HeldOut(data.train, held_out, config, losses))
    torch.testing.assert_close(written, model.own_clicks.detach())

    trained = weights(train(data, preset.changed(training={"validation_share": 0.0}), tmp_path / "all", progress=False))
    assert (trained["own_clicks"] != 0.0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"session_order": "chronological", "pi_per": "batch", "collisions": "official", "regulariser": "released"},
        {"order_loss": "bce", "regularisation": 0.0, "regulariser": "none"},
        {"scalarisation": "chebyshev", "regulariser": "cosine", "precision": "bfloat16"},
        {"negative_search": "bfloat16", "batch_sessions": 10_000, "learning_rate": 0.02},
        {"negative_search": "bfloat16", "popularity_correction": 1.0},
    ],
)
def test_train_with_other_settings_lowers_the_loss(tmp_path: Path, settings: dict[str, object]) -> None:
    rows: list[dict[str, float]] = []
    train(shop(sessions=400), small(**settings), tmp_path / "model", on_epoch=rows.append, progress=False)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_train_corrects_popularity_in_training_only(tmp_path: Path) -> None:
    """The first batch has the same weights in both: its loss differs, that of held-out sessions does not."""
    rows: dict[float, list[dict[str, float]]] = {0.0: [], 1.0: []}
    for strength in rows:
        preset = small(epochs=1, batch_sessions=10_000, learning_rate=1e-30, popularity_correction=strength)
        train(shop(), preset, tmp_path / f"{strength}", on_epoch=rows[strength].append)
    (plain,), (corrected,) = rows.values()
    assert corrected["train_click_loss"] != pytest.approx(plain["train_click_loss"], rel=1e-4)
    assert corrected["validation_loss"] == plain["validation_loss"]


def test_train_takes_batches_of_one_session(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    preset = small(epochs=1, batch_sessions=1, validation_share=0.0)
    train(shop(sessions=30), preset, tmp_path / "model", on_epoch=rows.append, progress=False)
    assert 0.0 < rows[0]["train_loss"] < 10.0


def test_train_refuses_what_cannot_be_trained(tmp_path: Path) -> None:
    data = shop(order_share=0.0)
    with pytest.raises(InputError, match="no training session has a target with a later order"):
        train(data, small(order_loss="ordered_softmax", ordered_share=1.0), tmp_path / "model", progress=False)
    with pytest.raises(InputError, match="one number per objective"):
        train(data, small().changed(training={"beta": [1, 1, 1], "validation_share": 0}), tmp_path / "model")
    with pytest.raises(InputError, match="unknown device"):
        train(data, small(), tmp_path / "model", device="gpu", progress=False)
    ones = EncodedSessions(
        pl.Series(["a"]), np.array([0, 1]), np.array([1], np.int32), np.array([False]), data.vocabulary.hash
    )
    with pytest.raises(InputError, match="no session to train on"):
        train(Shop(ones, data.vocabulary), small(), tmp_path / "model", progress=False)


def test_train_sets_the_number_of_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    found: list[int] = []
    preset = small(epochs=1, threads=before + 1)
    train(
        shop(sessions=60),
        preset,
        tmp_path / "model",
        on_epoch=lambda row: found.append(torch.get_num_threads()),
        progress=False,
    )
    assert found == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("settings", [{"validation_share": 0.0}, {"keep": "best"}])
def test_train_writes_items_of_norm_one(tmp_path: Path, settings: dict[str, object]) -> None:
    folder = train(shop(), small(epochs=2, **settings), tmp_path / "model", progress=False)
    norms = weights(folder)["item_embedding.weight"][1:].norm(dim=1)
    assert norms.tolist() == pytest.approx([1.0] * ITEMS, abs=1e-5)


def test_trainer_draws_preferences_from_beta_without_validation(tmp_path: Path) -> None:
    preset = small(validation_share=0.0, batch_sessions=10_000)
    trainer = Trainer(shop(), preset, "", tmp_path / "none", torch.device("cpu"))
    (inputs,) = trainer.batches(0, 0)
    assert len(inputs.pi) == len(trainer.rows)
    torch.testing.assert_close(inputs.pi.sum(dim=1), torch.ones(len(inputs.pi)))
    assert not list(trainer.batches(0, 1)), "an epoch of one batch has none from the second on"
