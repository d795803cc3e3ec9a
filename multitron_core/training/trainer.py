"""Training: from prepared sessions and a preset to a model folder, resumable to the bit.

    python -m multitron_core.training --sessions <prepared> --preset diginetica --out <folder>
    torchrun --nproc-per-node 2 -m multitron_core.training ...

A run keeps `<out>.checkpoint` beside its folder until it is finished; the folder itself appears last and whole. All
randomness of a batch (order, negatives, pi, dropout) is a function of (seed, epoch, number), so a checkpoint holds
weights, the optimiser's means and the place, and no random state.

Several processes each compute a share of every batch's sessions against the whole batch's negatives and add their
gradients: they give the losses and weights of one process, within float tolerance, at dropout 0.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from multitron_core.errors import InputError
from multitron_core.losses.negatives import draw_negatives
from multitron_core.losses.objective_losses import OBJECTIVE_LOSSES
from multitron_core.losses.regularisers import regulariser
from multitron_core.losses.scalarisation import scalarisation
from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import write_model_folder
from multitron_core.model.transformer import MultiTRON, with_normalised_embeddings
from multitron_core.sessions.batches import epoch_order, make_batch, random_of
from multitron_core.training.checkpoint import load_checkpoint, save_checkpoint
from multitron_core.training.cuda_graphs import GradientGraphs, Gradients, padded_to_bucket
from multitron_core.training.data import _preferences, event_rates, popularity_correction, split_rows
from multitron_core.training.devices import (
    barrier,
    is_out_of_memory,
    pick_device,
    rank,
    search_dtype,
    threads,
    uses_bfloat16,
    world,
)
from multitron_core.training.fingerprint import TrainingData, fingerprint, refuse_another
from multitron_core.training.optimiser import Adam
from multitron_core.training.own_clicks import fit_own_clicks
from multitron_core.training.presets import Preset
from multitron_core.training.step import losses_of
from multitron_core.training.step_inputs import StepInputs, map_tensors, rectangle_overhead, step_inputs, to_device
from multitron_core.training.validation import HeldOut, validate
from multitron_core.utils.prefetch import prefetch


@dataclass
class TrainingState:
    """How far a training is; `batch` is the next one of `epoch`."""

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf


def train(
    dataset: TrainingData,
    config: Preset,
    out_dir: Path | str,
    resume: bool = True,
    *,
    device: str = "auto",
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    progress: bool = True,
) -> Path:
    """Train a model.

    Args:
        dataset: `train` (sessions in chronological order) and `vocabulary`, as `sessions.prepare_sessions` gives.
        config: a preset, see `preset.named`.
        out_dir: the model folder: `weights.safetensors`, `config.json`, `vocabulary.parquet`, `metrics.parquet`.
        resume: go on from what an interrupted run left, and return a finished folder as it is, where they are of the
            same config and data. False starts anew and replaces both.
        device: "auto", "cpu", "cuda" or "cuda:N".
        on_epoch: called with each epoch's row of the metrics, also with those of before a resume.
        progress: show a bar on standard error.

    Returns:
        `out_dir`. A killed and resumed run ends with the weights of an uninterrupted one: on a CPU, bit by bit, with
        the same number of threads.

    Raises:
        InputError: no session to train on, a folder or checkpoint of another config or data, a loss that is not finite
            or above `loss_limit` (the last good checkpoint stays), or too little memory.
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
        refuse_another(json.loads((out_dir / "config.json").read_text()).get("fingerprint"), identity, out_dir)
        return out_dir
    run = None
    try:
        run = Trainer(dataset, config, identity, checkpoint, torch.device(pick_device(device)))
        # The run seeds torch's global state before each step; the caller's own state comes back afterwards.
        with torch.random.fork_rng(), threads(config.training.threads):
            weights = run.weights(on_epoch, progress=progress and leader)
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(config, len(dataset.vocabulary), run) from error
    if leader:
        p = run.progress
        write_model_folder(
            out_dir,
            weights,
            vocabulary=dataset.vocabulary,
            preset=config.name,
            training=dataclasses.asdict(config.training),
            model=run.model_config,
            identity=identity,
            history=p.history,
            details={
                "epoch": p.best_epoch + 1 if run.keeps_best else p.epoch,
                "rates": dict(zip(run.model_config.objectives, run.rates, strict=True)),
            },
        )
        checkpoint.unlink(missing_ok=True)
    barrier()
    return out_dir


def _out_of_memory(config: Preset, items: int, run: Trainer | None) -> InputError:
    """The error that names what to lower, and where it happened."""
    sizes = {"items": items, "dimension": config.model_config(items).dimension}
    if run is None:
        return InputError(
            "out of memory",
            where="training, before its first batch",
            found=sizes,
            hint="lower dimension, or prepare the sessions again with fewer items (min_item_clicks)",
        )
    settings = run.config
    return InputError(
        "out of memory",
        where=f"epoch {run.progress.epoch}, batch {run.progress.batch} on {run.device}",
        found={"batch_sessions": settings.batch_sessions, "uniform_negatives": settings.uniform_negatives} | sizes,
        hint=("set cuda_graphs to false, since graphs keep memory for each size of batch, or " if run.graphed else "")
        + "lower batch_sessions, then uniform_negatives; for a large catalogue dimension, or take "
        "optimiser='lazy_adam', which keeps a number less for each weight; the checkpoint before stays",
    )


class Trainer:
    """One training: its model, optimiser and place. A class because a step changes all three."""

    def __init__(
        self, dataset: TrainingData, preset: Preset, identity: str, checkpoint: Path, device: torch.device
    ) -> None:
        self.dataset, self.preset, self.identity, self.checkpoint, self.device = (
            dataset,
            preset,
            identity,
            checkpoint,
            device,
        )
        self.data, self.config = dataset.train, preset.training
        self.model_config: ModelConfig = preset.model_config(len(dataset.vocabulary))
        self.objectives = self.config.objectives(self.model_config.objectives)
        if len(self.objectives) != len(self.config.beta):
            raise InputError(
                "beta does not have a number for each objective",
                where="training.train",
                found={"objectives": self.model_config.objectives, "beta": self.config.beta},
                hint=f"give {len(self.objectives)} numbers, or let Preset.with_objectives do it",
            )
        # Summed over the steps of an epoch; the means are columns `train_...` of the metrics.
        self.sums = ("loss", *(f"{objective.name}_loss" for objective in self.objectives), "regulariser")
        self.rows, held_out = split_rows(self.data, self.config.validation_share)
        self.rates = event_rates(self.data, self.rows, self.model_config)
        for objective, rate in zip(self.objectives, self.rates, strict=True):
            if OBJECTIVE_LOSSES[objective.loss].ranks and objective.share == 1.0 and rate == 0.0:
                raise InputError(
                    f"no training session has a target with a later {objective.event}",
                    where=f"TrainingConfig.{objective.event}_loss",
                    found=objective.loss,
                    hint=f"use {objective.event}_loss='bce', ordered_share below 1, or training data with "
                    f"{objective.event}s",
                )
        self.correction = popularity_correction(self.data, self.rows, self.model_config, self.config)
        self.batches = math.ceil(len(self.rows) / self.config.batch_sessions)
        self.autocast = torch.bfloat16 if uses_bfloat16(self.config.precision, device) else None
        self.search = search_dtype(self.config.negative_search, device)
        # Its losses have no correction: the best epoch is that of the paper's loss, whatever the recipe.
        self.held_out = HeldOut(self.data, held_out, self.config, self.rates, self.search)
        self.progress = TrainingState()
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            self.model = MultiTRON(self.model_config).to(device)
        embedding = self.model.item_embedding.weight
        self.others = [parameter for parameter in self.model.parameters() if parameter is not embedding]
        self.adam = Adam(self.model, embedding, lazy=self.config.optimiser == "lazy_adam")
        self.best: dict[str, Tensor] = {}
        self.graphed = self.config.cuda_graphs and device.type == "cuda"
        self.gradients: Callable[[StepInputs], Gradients] = (
            GradientGraphs(self._gradients) if self.graphed else self._gradients
        )

    def weights(self, on_epoch: Callable[[dict[str, float]], None] | None, *, progress: bool) -> dict[str, Tensor]:
        """Train from where the run stands to its end; the weights of the epoch to keep."""
        if self.checkpoint.exists():
            self._load()
        for row in self.progress.history:
            if on_epoch:
                on_epoch(row)
        while not self._finished():
            self._epoch(progress)
            if on_epoch:
                on_epoch(self.progress.history[-1])
        if self.keeps_best and self.model.own_clicks is None:
            return self.best
        if self.keeps_best:
            self.model.load_state_dict(self.best)
        with with_normalised_embeddings(self.model):
            if self.model.own_clicks is not None and len(self.held_out.rows):
                fit_own_clicks(self.model, self.held_out)
            return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    @property
    def keeps_best(self) -> bool:
        """Whether the best epoch is kept, rather than the last: it is where there is validation."""
        return self.config.keep == "best" and bool(self.best)

    def _finished(self) -> bool:
        p = self.progress
        if p.epoch >= self.config.epochs:
            return True
        waited = p.epoch - 1 - p.best_epoch
        return 0 < self.config.patience <= waited and p.best_epoch >= 0

    def _epoch(self, progress: bool) -> None:
        p = self.progress
        bar = tqdm(
            total=self.batches,
            initial=p.batch,
            desc=f"epoch {p.epoch + 1}/{self.config.epochs}",
            unit="step",
            disable=not progress or None,  # None: shown on a terminal only
            mininterval=0.5,
            file=sys.stderr,
        )
        with bar, closing(prefetch(self._works(p.epoch, p.batch))) as works:
            began = time.perf_counter()
            for work in works:
                sums = self._step(to_device(work, self.device))
                p.sums = [total + value for total, value in zip(p.sums or [0.0] * len(sums), sums, strict=True)]
                p.steps += work.whole_steps
                p.batch += 1
                now = time.perf_counter()
                p.seconds, began = p.seconds + now - began, now
                bar.update()
                means = {each.name: f"{p.sums[1 + i] / p.steps:.3f}" for i, each in enumerate(self.objectives)}
                bar.set_postfix(means, refresh=False)
                if p.batch % self.config.checkpoint_steps == 0 and p.batch < self.batches:
                    self._save()
        row: dict[str, float] = {"epoch": p.epoch + 1}
        row |= {f"train_{name}": total / p.steps for name, total in zip(self.sums, p.sums, strict=True)}
        row |= {"seconds": p.seconds, "sessions_per_second": len(self.rows) / p.seconds}
        if len(self.held_out.rows):
            with with_normalised_embeddings(self.model):
                row |= validate(self.model, self.held_out)
                if row["validation_loss"] < p.best_loss:
                    p.best_epoch, p.best_loss = p.epoch, row["validation_loss"]
                    state = self.model.state_dict()
                    self.best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        self.progress = TrainingState(
            epoch=p.epoch + 1, history=[*p.history, row], best_epoch=p.best_epoch, best_loss=p.best_loss
        )
        self._save()

    def _works(self, epoch: int, first: int) -> Iterator[StepInputs]:
        """The batches of an epoch from `first` on, with their negatives and preferences."""
        config, size = self.config, self.config.batch_sessions
        order = epoch_order(self.rows, config.session_order, config.seed, epoch)
        for number in range(first, self.batches):
            random = random_of(config.seed, epoch, number)
            batch = make_batch(self.data, order[number * size : (number + 1) * size], self.model_config.max_length)
            negatives = draw_negatives(
                batch, self.model_config.items, config.uniform_negatives, config.in_batch_negatives, random
            )
            pi = _preferences(config, random, len(batch.lengths))
            work = step_inputs(
                batch,
                negatives,
                pi,
                self.model_config,
                overhead=rectangle_overhead(self.device),
                correction=self.correction,
                rank=rank(),
                world=world(),
            )
            if self.graphed:
                work = padded_to_bucket(work, self.model_config.max_length)
            # What the copy to a GPU needs is done here, ahead of the step.
            yield map_tensors(work, Tensor.pin_memory) if self.device.type == "cuda" else work

    def _step(self, work: StepInputs) -> list[float]:
        """One step of the optimiser; sums over the batch's steps of what `sums` names."""
        p = self.progress
        self.model.train()
        seed = np.random.SeedSequence([self.config.seed, p.epoch + 1, p.batch + 1, rank() + 1])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        if len(work.batch.lengths):
            means, gradients = self.gradients(work)
        else:  # the last batch of an epoch may have fewer sessions than there are processes
            means, gradients = self._nothing(work)
        if world() > 1:
            for tensor in [*gradients, means]:
                dist.all_reduce(tensor)
        for parameter, gradient in zip(self.others, gradients, strict=False):
            parameter.grad = gradient
        if self.config.gradient_clip:
            norm = torch.nn.utils.get_total_norm(gradients)
            torch._foreach_mul_(gradients, (self.config.gradient_clip / (norm + 1e-6)).clamp(max=1.0))
        self.adam.step(
            torch.cat([work.batch_items, work.uniform_items]), torch.cat(gradients[-2:]), self._learning_rate()
        )
        values: list[float] = means.tolist()  # waits for a GPU, which has the whole step by now
        self._check_loss(values[0], work)
        return [value * work.whole_steps for value in values]

    def _gradients(self, work: StepInputs) -> Gradients:
        """Means of what `sums` names, float64, and the gradients: of `others`, of batch and of uniform rows."""
        embedding = self.model.item_embedding.weight.detach()
        batch_rows = embedding.index_select(0, work.batch_items).requires_grad_()
        uniform_rows = embedding.index_select(0, work.uniform_items).requires_grad_()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast is not None):
            losses = losses_of(self.model, batch_rows, uniform_rows, work, self.config, self.rates, self.search)
        pi = work.pi[work.negatives.session_of_step]
        penalty = regulariser(self.config.regulariser, self.config.regulariser_g)(losses, pi)
        total = scalarisation(self.config.scalarisation)(losses, pi) + self.config.regularisation * penalty
        elementwise = torch.cat([total[:, None], losses, penalty[:, None]], dim=1)
        means = work.weights.double() @ elementwise.detach().double()
        gradients = torch.autograd.grad(
            total @ work.weights, [*self.others, batch_rows, uniform_rows], allow_unused=True, materialize_grads=True
        )
        return means, list(gradients)

    def _nothing(self, work: StepInputs) -> Gradients:
        """The gradients of no session."""
        rows = [self.model.item_embedding.weight[items] for items in (work.batch_items, work.uniform_items)]
        means = torch.zeros(len(self.sums), dtype=torch.float64, device=self.device)
        return means, [torch.zeros_like(tensor) for tensor in [*self.others, *rows]]

    def _learning_rate(self) -> float:
        config, step = self.config, self.adam.steps
        rate = config.learning_rate * min(1.0, (step + 1) / (config.warmup_steps + 1))
        if config.schedule == "cosine":
            rate *= 0.5 * (1.0 + math.cos(math.pi * step / (config.epochs * self.batches)))
        return rate

    def _check_loss(self, loss: float, work: StepInputs) -> None:
        if loss <= self.config.loss_limit:  # False for NaN too
            return
        ids = self.data.session_ids.gather(work.batch.sessions).to_list()
        raise InputError(
            "the loss has exploded" if math.isfinite(loss) else "the loss is not finite",
            where=f"epoch {self.progress.epoch}, batch {self.progress.batch}, sessions {', '.join(map(str, ids[:8]))}"
            + (f" and {len(ids) - 8} more" if len(ids) > 8 else ""),
            found=loss,
            hint="lower learning_rate, or raise loss_limit if the loss is meant to be so large; the checkpoint before "
            f"is {self.checkpoint}",
        )

    def _save(self) -> None:
        if rank():
            return
        state = self.model.state_dict()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
            raise InputError(
                "a weight is not finite",
                where=f"epoch {self.progress.epoch}, before batch {self.progress.batch}",
                hint=f"lower learning_rate; the checkpoint before is {self.checkpoint}",
            )
        tensors = {f"model.{name}": tensor for name, tensor in state.items()}
        tensors |= {f"adam.{name}": tensor for name, tensor in self.adam.state().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        save_checkpoint(
            self.checkpoint, tensors, {"fingerprint": self.identity, "progress": dataclasses.asdict(self.progress)}
        )

    def _load(self) -> None:
        tensors, state = load_checkpoint(self.checkpoint)
        refuse_another(state.get("fingerprint"), self.identity, self.checkpoint)

        def under(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        self.adam.load(under("adam."))
        self.best = under("best.")
        self.progress = TrainingState(**state["progress"])
