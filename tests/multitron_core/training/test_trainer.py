import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import load_model
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training import presets, trainer
from multitron_core.training.__main__ import main
from multitron_core.training.data import event_rates, popularity_correction, split_rows
from multitron_core.training.fingerprint import fingerprint
from multitron_core.training.own_clicks import fit_own_clicks
from multitron_core.training.presets import Preset
from multitron_core.training.step_inputs import StepInputs
from multitron_core.training.trainer import train
from multitron_core.training.validation import HeldOut

ITEMS = 60


@dataclass(frozen=True)
class Shop:
    train: EncodedSessions
    vocabulary: Vocabulary


def shop(sessions: int = 240, seed: int = 1, order_share: float = 0.2, longest: int = 8) -> Shop:
    """Sessions that walk through a catalogue of six categories, ten items each."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, sessions)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    category = np.repeat(rng.integers(0, 6, sessions), lengths)
    items = (category * 10 + rng.integers(1, 11, offsets[-1])).astype(np.int32)
    ordered = rng.random(offsets[-1]) < order_share
    vocabulary = Vocabulary(pl.Series(range(1000, 1000 + ITEMS), dtype=pl.Int64))
    ids = pl.Series([f"session-{i}" for i in range(sessions)], dtype=pl.String)
    return Shop(EncodedSessions(ids, offsets, items, ordered, vocabulary.hash), vocabulary)


def small(**settings: object) -> Preset:
    values = {
        "epochs": 3,
        "batch_sessions": 32,
        "learning_rate": 5e-3,
        "schedule": "constant",
        "uniform_negatives": 64,
        "in_batch_negatives": 4,
        "kept_negatives": 20,
        "validation_share": 0.1,
        "checkpoint_steps": 2,
    }
    return presets.named("demo", model={"dimension": 16, "layers": 1}, training=values | settings)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_folder_is_whole_and_learns(tmp_path):
    rows: list[dict[str, float]] = []
    data = shop(sessions=2000)
    config = small(epochs=6, order_loss="bce")  # orders are drawn blindly here: only the binary loss can learn them
    folder = train(data, config, tmp_path / "model", on_epoch=rows.append, progress=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "metrics.parquet",
        "vocabulary.parquet",
        "weights.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    config = json.loads((folder / "config.json").read_text())
    assert config["vocabulary_hash"] == data.vocabulary.hash == Vocabulary.load(folder / "vocabulary.parquet").hash
    assert len(config["version"]) == 12
    assert load_model(folder).config.items == ITEMS
    metrics = pl.read_parquet(folder / "metrics.parquet")
    assert metrics.to_dicts() == rows
    assert metrics["epoch"].to_list() == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["train_click_loss"] < 0.9 * rows[0]["train_click_loss"]
    # Ten of sixty items are of the session's category: knowing the category puts them all among the first 20.
    assert rows[-1]["validation_click_recall_20_0.00"] > 0.9
    # More weight on orders: the order loss falls, the click loss rises.
    assert rows[-1]["validation_order_loss_1.00"] < rows[-1]["validation_order_loss_0.00"]
    assert rows[-1]["validation_click_loss_1.00"] > rows[-1]["validation_click_loss_0.00"]
    assert config["epoch"] == 1 + min(range(6), key=lambda epoch: rows[epoch]["validation_loss"])


def test_the_seed_decides_everything_and_the_callers_randomness_stays(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    for name, settings in {"a": {}, "b": {}, "c": {"seed": 2}}.items():
        train(shop(), small(**settings), tmp_path / name, progress=False)
    assert torch.equal(torch.rand(1), expected)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")
    versions = [json.loads((tmp_path / name / "config.json").read_text())["version"] for name in "abc"]
    assert versions[0] == versions[1] != versions[2]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(("optimiser", "correction"), [("adam", 0.0), ("lazy_adam", 0.0), ("adam", 0.5)])
@pytest.mark.parametrize("stop_at", [1, 4, 9, 14])
def test_a_stopped_and_resumed_training_ends_with_the_same_weights(
    tmp_path, monkeypatch, optimiser, correction, stop_at
):
    settings = {"schedule": "cosine", "warmup_steps": 3, "gradient_clip": 1.0}
    config = small(optimiser=optimiser, popularity_correction=correction, **settings)
    whole: list[dict[str, float]] = []
    train(shop(), config, tmp_path / "whole", on_epoch=whole.append, progress=False)

    step, calls = trainer.Trainer._step, 0

    def stopping(run: trainer.Trainer, work: StepInputs) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise StoppedError
        return step(run, work)

    monkeypatch.setattr(trainer.Trainer, "_step", stopping)
    with pytest.raises(StoppedError):
        train(shop(), config, tmp_path / "resumed", progress=False)
    assert not (tmp_path / "resumed").exists()
    resumed: list[dict[str, float]] = []
    train(shop(), config, tmp_path / "resumed", on_epoch=resumed.append, progress=False)
    assert same(tmp_path / "whole", tmp_path / "resumed")
    timeless = [
        [{k: v for k, v in row.items() if k not in ("seconds", "sessions_per_second")} for row in rows]
        for rows in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import importlib.util, sys
            import torch
            torch.set_num_threads(1)
            spec = importlib.util.spec_from_file_location("example", {str(Path(__file__))!r})
            example = importlib.util.module_from_spec(spec)
            sys.modules["example"] = example
            spec.loader.exec_module(example)
            print("ready", flush=True)
            step = example.training._Run._step

            def told(run, work):
                print("step", flush=True)
                return step(run, work)

            example.training._Run._step = told
            config = example.small(epochs=6, batch_sessions=8, checkpoint_steps=3)
            example.train(example.shop(), config, sys.argv[1], progress=False)
            """
        )
    )
    command = [sys.executable, str(program)]
    steps = subprocess.run([*command, str(tmp_path / "whole")], stdout=subprocess.PIPE, text=True, check=True)
    # Ten kills after at most a fifteenth of the steps each: none of the ten finds the training finished.
    most, moments = steps.stdout.count("step") // 15, random.Random(1)
    for _ in range(10):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(1 + moments.randrange(most)):
            assert process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.01))  # into a step, or into writing the checkpoint
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed").exists()
    subprocess.run([*command, str(tmp_path / "killed")], stdout=subprocess.PIPE, check=True)
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_folder_is_not_trained_again(tmp_path, monkeypatch):
    folder = train(shop(), small(), tmp_path / "model", progress=False)

    def never(run: trainer.Trainer, work: StepInputs) -> list[float]:
        raise AssertionError("trained again")

    monkeypatch.setattr(trainer.Trainer, "_step", never)
    assert train(shop(), small(), folder, progress=False) == folder


def test_a_folder_of_another_training_is_refused_and_replaced_on_demand(tmp_path):
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


def test_an_exploding_loss_names_the_batch_and_leaves_the_checkpoint(tmp_path):
    with pytest.raises(InputError) as caught:
        train(shop(), small(learning_rate=1e6, loss_limit=50.0), tmp_path / "model", progress=False)
    assert "epoch 0, batch" in str(caught.value)
    assert "session-" in str(caught.value)
    assert "learning_rate" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path, monkeypatch):
    losses_of, calls = trainer.losses_of, 0

    def broken(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return losses_of(*arguments) * (torch.nan if calls == 6 else 1.0)

    monkeypatch.setattr(trainer, "losses_of", broken)
    with pytest.raises(InputError, match="not finite"):
        train(shop(), small(), tmp_path / "model", progress=False)
    monkeypatch.undo()
    train(shop(), small(), tmp_path / "model", progress=False)
    train(shop(), small(), tmp_path / "whole", progress=False)
    assert same(tmp_path / "model", tmp_path / "whole")


@pytest.mark.slow
def test_out_of_memory_names_the_setting_to_lower_and_leaves_the_checkpoint(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import importlib.util, resource, sys
            from pathlib import Path
            import torch
            torch.set_num_threads(1)
            spec = importlib.util.spec_from_file_location("example", {str(Path(__file__))!r})
            example = importlib.util.module_from_spec(spec)
            sys.modules["example"] = example
            spec.loader.exec_module(example)
            out, limited, stops = sys.argv[1], "limited" in sys.argv, "stops" in sys.argv
            example.train(example.shop(), example.small(epochs=1), out + "-before", resume=False, progress=False)
            if limited:  # 60 MB more than there is now; a step takes some hundred
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                limit = pages * resource.getpagesize() + 60 * 2**20
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            big = example.small(epochs=2, batch_sessions=4000, validation_share=0.0).changed(model={{"dimension": 128}})
            try:
                stop = (lambda row: sys.exit("stopped")) if stops else None
                example.train(example.shop(sessions=4000), big, out, progress=False, on_epoch=stop)
            except example.InputError as error:
                sys.exit(f"error: {{error}}")
            """
        )
    )

    def run(name: str, *how: str) -> str:
        # One arena: glibc reserves 64 MB for each, which the limit would count.
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
        command = [sys.executable, str(program), str(tmp_path / name), *how]
        return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True).stderr

    assert run("whole") == ""
    assert run("model", "stops") == "stopped\n"
    checkpoint = (tmp_path / "model.checkpoint").read_bytes()
    said = run("model", "limited")
    assert "error: out of memory; where: epoch 1, batch 0 on cpu" in said
    assert "lower batch_sessions, then uniform_negatives" in said
    assert (tmp_path / "model.checkpoint").read_bytes() == checkpoint
    assert not (tmp_path / "model").exists()
    assert run("model") == ""
    assert same(tmp_path / "whole", tmp_path / "model")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("optimiser", ["adam", "lazy_adam"])
def test_a_gpu_trains_what_a_cpu_does_and_resumes(tmp_path, cuda, precision, optimiser, graphs):
    data = shop(sessions=600, longest=20)
    # Without dropout: its draws differ between devices.
    config = small(epochs=4, optimiser=optimiser, precision=precision, cuda_graphs=graphs).changed(
        model={"dropout": 0.0}
    )
    rows: list[dict[str, float]] = []
    train(data, config, tmp_path / "cpu", device="cpu", progress=False)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, config, tmp_path / "gpu", device="cuda", on_epoch=stop, progress=False)
    train(data, config, tmp_path / "gpu", device="cuda", on_epoch=rows.append, progress=False)
    expected = pl.read_parquet(tmp_path / "cpu" / "metrics.parquet")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    for name in ("train_click_loss", "validation_click_loss_0.50"):
        near = 1e-3 if precision == "float32" else 3e-2  # auto is bfloat16 on a GPU
        assert [row[name] for row in rows] == pytest.approx(expected[name].to_list(), rel=near)
    assert load_model(tmp_path / "gpu").config.items == ITEMS


def test_out_of_memory_on_a_gpu_names_the_setting_to_lower(tmp_path, cuda):
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / total)
    try:
        big = small(epochs=1, batch_sessions=4000, validation_share=0.0).changed(model={"dimension": 256})
        with pytest.raises(InputError, match=r"out of memory; where: epoch 0, batch 0 on cuda.*lower batch_sessions"):
            train(shop(sessions=4000), big, tmp_path / "model", device="cuda", progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    rows: list[dict[str, float]] = []
    config = small(epochs=60, learning_rate=0.03, patience=2)
    folder = train(shop(sessions=120), config, tmp_path / "model", on_epoch=rows.append, progress=False)
    assert len(rows) < 60
    best = min(range(len(rows)), key=lambda epoch: rows[epoch]["validation_loss"])
    assert len(rows) == best + 3
    assert json.loads((folder / "config.json").read_text())["epoch"] == best + 1


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    folder = train(shop(), small(validation_share=0.0), tmp_path / "model", progress=False)
    assert json.loads((folder / "config.json").read_text())["epoch"] == 3
    assert "validation_loss" not in pl.read_parquet(folder / "metrics.parquet").columns


@pytest.mark.parametrize("keep", ["best", "last"])
def test_own_clicks_are_fitted_on_the_held_out_sessions(tmp_path, keep):
    data, recipe = shop(sessions=400), small(keep=keep).changed(model={"own_clicks": "added"})
    model = load_model(train(data, recipe, tmp_path / "model", progress=False))
    written = model.own_clicks.detach().clone()
    rows, held_out = split_rows(data.train, recipe.training.validation_share)
    rates = event_rates(data.train, rows, model.config)
    model.own_clicks.data.zero_()
    fit_own_clicks(model, HeldOut(data.train, held_out, recipe.training, rates, torch.float32))
    torch.testing.assert_close(written, model.own_clicks.detach())

    trained = weights(train(data, recipe.changed(training={"validation_share": 0.0}), tmp_path / "all", progress=False))
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
def test_every_recipe_trains(tmp_path, settings):
    rows: list[dict[str, float]] = []
    train(shop(sessions=400), small(**settings), tmp_path / "model", on_epoch=rows.append, progress=False)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_a_correction_counts_the_inputs_that_are_trained_on_and_not_those_held_out():
    config = small(popularity_correction=0.5, uniform_negatives=8, in_batch_negatives=8).training
    sessions = [[1, 2, 3], [1, 1, 4], [5, 5, 5, 5, 5, 5]]
    data = shop(sessions=3).train
    data = EncodedSessions(
        data.session_ids, np.array([0, 3, 6, 12]), np.concatenate(sessions), np.zeros(12, bool), data.vocabulary_hash
    )
    model = ModelConfig(items=5)
    found = popularity_correction(data, np.array([0, 1]), model, config)
    # Inputs 1, 2, 1, 1, one batch: q = (8 absent / sum of absent + 8 share) * 5 / 16, half of its log.
    absent = np.exp(np.array([-3.0, -1.0, 0.0, 0.0, 0.0]))
    rates = (8 * absent / absent.sum() + 8 * np.array([0.75, 0.25, 0.0, 0.0, 0.0])) * 5 / 16
    np.testing.assert_allclose(found, 0.5 * np.log([1.0, *rates]))
    assert popularity_correction(data, np.array([0, 1]), model, small().training) is None


def test_a_correction_is_of_training_alone(tmp_path):
    """The first batch of all is trained on the same weights: its loss is another, that of held-out sessions is not."""
    rows: dict[float, dict[str, float]] = {}
    for strength in (0.0, 1.0):
        config = small(epochs=1, batch_sessions=10_000, learning_rate=1e-30, popularity_correction=strength)
        train(shop(), config, tmp_path / f"{strength}", on_epoch=lambda row, at=strength: rows.update({at: row}))
    assert rows[1.0]["train_click_loss"] != pytest.approx(rows[0.0]["train_click_loss"], rel=1e-4)
    assert rows[1.0]["validation_loss"] == rows[0.0]["validation_loss"]


def test_batches_of_one_session_train(tmp_path):
    rows: list[dict[str, float]] = []
    config = small(epochs=1, batch_sessions=1, validation_share=0.0)
    train(shop(sessions=30), config, tmp_path / "model", on_epoch=rows.append, progress=False)
    assert 0.0 < rows[0]["train_loss"] < 10.0


def test_what_cannot_be_trained_is_refused(tmp_path):
    data = shop(order_share=0.0)
    with pytest.raises(InputError, match="no training session has a target with a later order"):
        train(data, small(order_loss="ordered_softmax", ordered_share=1.0), tmp_path / "model", progress=False)
    with pytest.raises(InputError, match="unknown device"):
        train(data, small(), tmp_path / "model", device="gpu", progress=False)
    ones = EncodedSessions(
        pl.Series(["a"]), np.array([0, 1]), np.array([1], np.int32), np.array([False]), data.vocabulary.hash
    )
    with pytest.raises(InputError, match="no session to train on"):
        train(Shop(ones, data.vocabulary), small(), tmp_path / "model", progress=False)


def test_the_most_recent_sessions_are_held_out():
    data = shop()
    rows, held_out = split_rows(data.train, 0.25)
    assert len(held_out) == (len(rows) + len(held_out)) // 4
    assert rows.max() < held_out.min()
    assert split_rows(data.train, 1e-9)[1].tolist() == []


def test_the_fingerprint_follows_config_and_data():
    data = shop()
    assert fingerprint(data, small()) == fingerprint(shop(), small())
    others = {fingerprint(shop(seed=2), small()), fingerprint(data, small(seed=2)), fingerprint(data, presets.demo())}
    assert fingerprint(data, small()) not in others
    assert len(others) == 3


def in_processes(count: int, tmp_path: Path, settings: dict[str, object]) -> Path:
    """Train under torchrun, each process on its share of every batch."""
    data = shop(sessions=90)
    PreparedSessions(data.train, data.train, data.vocabulary, {}).save(tmp_path / "prepared")
    out = tmp_path / f"by-{count}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += ["-m", "multitron_core.training", "--sessions", str(tmp_path / "prepared"), "--out", str(out)]
    command += ["--preset", "demo", "--device", "cpu", "--training", json.dumps(settings)]
    command += ["--model", json.dumps({"dimension": 16, "layers": 1, "dropout": 0.0})]
    found = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return out


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    # An odd number of sessions a batch: the shares of the two differ.
    settings = {**vars(small().training), "epochs": 2, "batch_sessions": 37}
    one, two = (in_processes(count, tmp_path, settings) for count in (1, 2))
    first, second = (
        pl.read_parquet(folder / "metrics.parquet").drop("seconds", "sessions_per_second") for folder in (one, two)
    )
    np.testing.assert_allclose(second.to_numpy(), first.to_numpy(), rtol=1e-4, atol=1e-5)
    for name, tensor in weights(one).items():
        other = weights(two)[name]
        if name.endswith(
            "attention_in.bias"
        ):  # softmax ignores the keys' bias: its gradient is rounding, scaled by Adam
            tensor, other = (torch.cat([each.chunk(3)[i] for i in (0, 2)]) for each in (tensor, other))
        torch.testing.assert_close(other, tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    data = shop(sessions=20)
    PreparedSessions(data.train, data.train, data.vocabulary, {}).save(tmp_path / "prepared")
    options = ["--sessions", str(tmp_path / "prepared"), "--out", str(tmp_path / "model"), "--device", "cpu"]
    assert main([*options, "--preset", "digi"]) == 1
    assert "error: unknown preset" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_the_number_of_threads_is_the_configs_while_it_trains(tmp_path, monkeypatch):
    found: list[int] = []
    losses_of = trainer.losses_of

    def watched(*arguments: object) -> torch.Tensor:
        found.append(torch.get_num_threads())
        return losses_of(*arguments)

    monkeypatch.setattr(trainer, "losses_of", watched)
    before = torch.get_num_threads()
    train(shop(sessions=60), small(epochs=1, threads=before + 1), tmp_path / "model", progress=False)
    assert set(found) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("settings", [{"validation_share": 0.0}, {"keep": "best"}])
def test_a_trained_model_has_items_of_norm_one(tmp_path, settings):
    folder = train(shop(), small(epochs=2, **settings), tmp_path / "model", progress=False)
    norms = weights(folder)["item_embedding.weight"][1:].norm(dim=1)
    assert norms.tolist() == pytest.approx([1.0] * ITEMS, abs=1e-5)
