"""Training: from prepared sessions and a preset to a model folder; an interrupted run resumes exactly.

    python -m multitron_core.training --sessions <prepared> --preset diginetica --out <folder>
    torchrun --nproc-per-node 2 -m multitron_core.training ...

A run keeps the file `<out>.checkpoint` until it is finished; the folder appears last and complete. All randomness of a
batch (order, negatives, pi, dropout) is a function of (seed, epoch, number), so a checkpoint holds weights, the
optimiser's running means and the progress, but no random state.

Several processes each compute a share of every batch's sessions against the negatives of the whole batch, and add their
gradients. At dropout 0 they give the losses and weights of one process, within float tolerance.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from multitron_core.errors import InputError
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import weights_version, write_model_folder
from multitron_core.model.transformer import MultiTRON, with_normalised_embeddings
from multitron_core.sessions.batches import epoch_order, random_of
from multitron_core.training.checkpoint import TrainingState, load_training, save_training
from multitron_core.training.cuda_graphs import GradientGraphs, padded_to_bucket
from multitron_core.training.data import check_beta, check_events, event_rates, popularity_correction, split_rows
from multitron_core.training.devices import barrier, pick_device, rank, search_dtype, threads, uses_bfloat16, world
from multitron_core.training.failures import check_loss, check_weights, is_out_of_memory, out_of_memory
from multitron_core.training.fingerprint import TrainingData, check_fingerprint, fingerprint
from multitron_core.training.optimiser import Adam, clip_gradients, learning_rate
from multitron_core.training.own_clicks import fit_own_clicks
from multitron_core.training.presets import Preset
from multitron_core.training.step import Gradients, StepLosses, dense_parameters, step_gradients, zero_gradients
from multitron_core.training.step_inputs import StepInputs, draw_inputs, map_tensors, to_device
from multitron_core.training.validation import HeldOut, validate
from multitron_core.utils.prefetch import prefetch

OnEpoch = Callable[[dict[str, float]], None]


def train(
    dataset: TrainingData,
    config: Preset,
    out_dir: Path | str,
    resume: bool = True,
    *,
    device: str = "auto",
    on_epoch: OnEpoch | None = None,
    progress: bool = True,
) -> Path:
    """Train a model.

    Args:
        dataset: `train` (sessions in chronological order) and `vocabulary`, as `sessions.prepare_sessions` returns.
        config: a preset, see `presets.named`.
        out_dir: the model folder: `weights.safetensors`, `config.json`, `vocabulary.parquet`, `metrics.parquet`.
        resume: continue an interrupted run, and return a finished folder as it is, if settings and data are the same.
            False trains from the start and replaces both.
        device: "auto", "cpu", "cuda" or "cuda:N".
        on_epoch: called with each epoch's row of the metrics, also with those from before a resume.
        progress: show a progress bar on standard error.

    Returns:
        `out_dir`. An interrupted and resumed run ends with the weights of an uninterrupted one: on a CPU with the same
        number of threads, bit by bit.

    Raises:
        InputError: no session to train on, a folder or checkpoint of other settings or data, a loss that is not finite
            or above `loss_limit` (the last good checkpoint is kept), or too little memory.
    """
    out_dir = Path(out_dir)
    checkpoint = out_dir.with_name(out_dir.name + ".checkpoint")
    if len(dataset.vocabulary) < 1:
        raise InputError("the vocabulary is empty", where="training.train", hint="prepare sessions that have items")
    identity = fingerprint(dataset, config)
    leader = rank() == 0
    if not resume and leader:
        checkpoint.unlink(missing_ok=True)
    barrier()
    if resume and (out_dir / "config.json").exists():
        check_fingerprint(ModelDescription.read(out_dir).fingerprint, identity, out_dir)
        return out_dir
    trainer = None
    try:
        trainer = Trainer(dataset, config, identity, checkpoint, torch.device(pick_device(device)))
        # Each step seeds torch's global random state; the caller's state is restored afterwards.
        with torch.random.fork_rng(), threads(config.training.runtime.threads):
            weights = trainer.run(on_epoch or (lambda row: None), progress=progress and leader)
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        where = f"{trainer.place()} on {trainer.device}" if trainer else None
        graphs = bool(trainer and trainer.graphs)
        raise out_of_memory(config, len(dataset.vocabulary), where=where, graphs=graphs) from error
    if leader:
        state, names = trainer.state, trainer.model.config.objectives
        description = ModelDescription(
            model=trainer.model.config,
            training=config.training.flat(),
            vocabulary_hash=dataset.vocabulary.hash,
            version=weights_version(identity, weights),
            preset=config.name,
            fingerprint=identity,
            extra={
                "epoch": state.best_epoch + 1 if trainer.keeps_best else state.epoch,
                "rates": dict(zip(names, trainer.losses.rates, strict=True)),
            },
        )
        write_model_folder(out_dir, weights, description, dataset.vocabulary, history=state.history)
        checkpoint.unlink(missing_ok=True)
    barrier()
    return out_dir


class Trainer:
    """One training: its model, optimiser and progress, which every step changes."""

    def __init__(
        self, dataset: TrainingData, preset: Preset, identity: str, checkpoint: Path, device: torch.device
    ) -> None:
        config, shape = preset.training, preset.model_config(len(dataset.vocabulary))
        self.config, self.identity, self.checkpoint, self.device = config, identity, checkpoint, device
        self.data = dataset.train
        objectives = config.objectives(shape.objectives)
        check_beta(objectives, config.data.beta)
        self.rows, held_out = split_rows(self.data, config.validation.validation_share)
        rates = event_rates(self.data, self.rows, shape)
        check_events(objectives, rates)
        search = search_dtype(config.negatives.negative_search, device)
        self.losses = StepLosses.of(config, shape.objectives, rates, search)
        # Validation has no correction: the best epoch is that of the paper's loss, whatever the settings.
        self.held_out = HeldOut(self.data, held_out, config, self.losses)
        self.correction = popularity_correction(self.data, self.rows, shape, config)
        self.epoch_batches = math.ceil(len(self.rows) / config.data.batch_sessions)
        with torch.random.fork_rng():
            torch.manual_seed(config.data.seed)
            self.model = MultiTRON(shape).to(device)
        embedding, lazy = self.model.item_embedding.weight, config.optimiser.algorithm == "lazy_adam"
        self.optimiser = Adam(self.model, embedding, lazy=lazy)
        autocast = uses_bfloat16(config.runtime.precision, device)
        compute = partial(step_gradients, self.model, losses=self.losses, autocast=autocast)
        self.graphs = config.runtime.cuda_graphs and device.type == "cuda"
        self.gradients: Callable[[StepInputs], Gradients] = GradientGraphs(compute) if self.graphs else compute
        self.state = TrainingState()
        self.best: dict[str, Tensor] = {}

    def run(self, on_epoch: OnEpoch, *, progress: bool) -> dict[str, Tensor]:
        """Train from the checkpoint, or from the start, to the end.

        Args:
            on_epoch: see `train`.
            progress: show a progress bar.

        Returns:
            The weights to keep, on the CPU.
        """
        config = self.config
        if self.checkpoint.exists():
            self.state, self.best = load_training(self.checkpoint, self.model, self.optimiser, self.identity)
        for row in self.state.history:
            on_epoch(row)
        while not self.state.finished(config.schedule.epochs, config.validation.patience):
            state = self.state
            batches = prefetch(self.batches(state.epoch, state.batch))
            with self._progress_bar(shown=progress) as bar, closing(batches):
                began = time.perf_counter()
                for inputs in batches:
                    means = self.step(to_device(inputs, self.device))
                    ended = time.perf_counter()
                    state.add_batch(means, inputs.whole_steps, ended - began)
                    began = ended
                    bar.update()
                    bar.set_postfix(dict(zip(self.losses.names, state.means(), strict=True)), refresh=False)
                    if state.batch % config.runtime.checkpoint_steps == 0 and state.batch < self.epoch_batches:
                        self.save()
            row = state.row(self.losses.names, len(self.rows))
            if len(self.held_out.rows):
                with with_normalised_embeddings(self.model):
                    row |= validate(self.model, self.held_out)
                    if row["validation_loss"] < state.best_loss:
                        state.best_epoch, state.best_loss = state.epoch, row["validation_loss"]
                        self.best = self._copied_weights()
            self.state = state.next_epoch(row)
            self.save()
            on_epoch(row)
        return self._final_weights()

    def batches(self, epoch: int, first: int) -> Iterator[StepInputs]:
        """The batches of an epoch from number `first` on, with their negatives and preferences, on the CPU."""
        config, size = self.config, self.config.data.batch_sessions
        order = epoch_order(self.rows, config.data.session_order, config.data.seed, epoch)
        for number in range(first, self.epoch_batches):
            inputs = draw_inputs(
                self.data,
                order[number * size : (number + 1) * size],
                self.model.config,
                config,
                random_of(config.data.seed, epoch, number),
                device=self.device,
                correction=self.correction,
                rank=rank(),
                world=world(),
            )
            if self.graphs:
                inputs = padded_to_bucket(inputs, self.model.config.max_length)
            # Memory is pinned here, in the thread that runs ahead of the steps.
            yield map_tensors(inputs, Tensor.pin_memory) if self.device.type == "cuda" else inputs

    def step(self, inputs: StepInputs) -> list[float]:
        """One step of the optimiser.

        Args:
            inputs: the next batch, on the device.

        Returns:
            Means over the batch of what `StepLosses.names` lists.

        Raises:
            InputError: the loss is not finite, or above `loss_limit`.
        """
        config, state = self.config, self.state
        self.model.train()
        seed = np.random.SeedSequence([config.data.seed, state.epoch + 1, state.batch + 1, rank() + 1])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        if len(inputs.batch.lengths):
            means, gradients = self.gradients(inputs)
        else:  # the last batch of an epoch may have fewer sessions than there are processes
            means, gradients = zero_gradients(self.model, inputs, self.losses)
        if world() > 1:
            for tensor in [*gradients, means]:
                dist.all_reduce(tensor)
        clip_gradients(gradients, config.optimiser.gradient_clip)
        for parameter, gradient in zip(dense_parameters(self.model), gradients, strict=False):
            parameter.grad = gradient
        steps = config.schedule.epochs * self.epoch_batches
        rate = learning_rate(self.optimiser.steps, steps, config.optimiser, config.schedule)
        self.optimiser.step(torch.cat([inputs.batch_items, inputs.uniform_items]), torch.cat(gradients[-2:]), rate)
        values: list[float] = means.tolist()  # waits for the GPU; the whole step is queued by now
        limit = config.runtime.loss_limit
        check_loss(
            values[0], limit, inputs.batch, self.data.session_ids, where=self.place(), checkpoint=self.checkpoint
        )
        return values

    def save(self) -> None:
        """Write the checkpoint, by the first process.

        Raises:
            InputError: a weight is not finite; the last checkpoint is kept.
        """
        if rank():
            return
        check_weights(self.model.state_dict(), where=f"before {self.place()}", checkpoint=self.checkpoint)
        save_training(self.checkpoint, self.model, self.optimiser, self.best, self.state, self.identity)

    def place(self) -> str:
        """The next batch, for errors."""
        return f"epoch {self.state.epoch}, batch {self.state.batch}"

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best epoch are kept; those of the last one where nothing was validated."""
        return self.config.validation.keep == "best" and bool(self.best)

    def _final_weights(self) -> dict[str, Tensor]:
        """The weights of the epoch to keep, with own clicks fitted on the held-out sessions."""
        if self.keeps_best and self.model.own_clicks is None:
            return self.best
        if self.keeps_best:
            self.model.load_state_dict(self.best)
        with with_normalised_embeddings(self.model):
            if self.model.own_clicks is not None and len(self.held_out.rows):
                fit_own_clicks(self.model, self.held_out)
            return self._copied_weights()

    def _copied_weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def _progress_bar(self, *, shown: bool) -> tqdm:
        return tqdm(
            total=self.epoch_batches,
            initial=self.state.batch,
            desc=f"epoch {self.state.epoch + 1}/{self.config.schedule.epochs}",
            unit="step",
            disable=not shown or None,  # None: only on a terminal
            mininterval=0.5,
            file=sys.stderr,
        )
