"""The formulas of the paper and of the authors' code, written out: float64 numpy, one session and one step at a time.

What the tests of parity compare with. Nothing here is fast, stabilised or shared with the product. Equations are those
of Wilm, Normann, Stepprath (RecSys 2024, arXiv 2407.16828), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multitron_core.losses.negatives import Negatives
from multitron_core.model.config import ModelConfig
from multitron_core.sessions.batches import Batch
from multitron_core.training.config import TrainingConfig

Weights = Mapping[str, np.ndarray]


def labelled_clicks(events: Sequence[tuple[str, int]]) -> tuple[list[int], list[bool]]:
    """Clicks of a session in time order, and whether each is ordered later: a scan from the session's end."""
    ordered: set[int] = set()
    clicks: list[int] = []
    labels: list[bool] = []
    for kind, item in reversed(events):
        if kind == "order":
            ordered.add(item)
        elif kind == "click":
            clicks.insert(0, item)
            labels.insert(0, item in ordered)
    return clicks, labels


def steps_of(clicks: list[int], labels: list[bool], most: int) -> tuple[list[int], list[int], list[bool]]:
    """Inputs, targets and the targets' labels of the last `most` + 1 clicks."""
    clicks, labels = clicks[-(most + 1) :], labels[-(most + 1) :]
    return clicks[:-1], clicks[1:], labels[1:]


def click_loss(own: float, others: Sequence[float]) -> float:
    """-log of the target's share of exp(logit)."""
    return -math.log(math.exp(own) / (math.exp(own) + sum(math.exp(other) for other in others)))


def order_loss(own: float, ordered: bool) -> float:
    """-log of the probability that the logit gives to the label."""
    probability = 1.0 / (1.0 + math.exp(-own))
    return -math.log(probability if ordered else 1.0 - probability)


def ordered_softmax_loss(click: float, ordered: bool, rate: float, share: float) -> float:
    """The click loss, (1 - share) of it for every step and share / rate more for ordered ones."""
    return click * (1.0 - share) + (click * share / rate if ordered else 0.0)


def drawn_too_often(item: int, inputs: Sequence[int], items: int, config: TrainingConfig) -> float:
    """q of Yi et al. (RecSys 2019), section 3, relative to a uniform sampler: expected draws of an item a session, over
    those that each item would have if all draws were uniform. `inputs` are all of the training data, one batch."""
    shares = [sum(one == other for one in inputs) / len(inputs) for other in range(1, items + 1)]
    absent = [math.exp(-len(inputs) * share) for share in shares]  # no input of the batch, as Poisson has it
    expected = config.negatives.uniform_negatives * absent[item - 1] / sum(absent)
    expected += config.negatives.in_batch_negatives * shares[item - 1]
    return expected / ((config.negatives.uniform_negatives + config.negatives.in_batch_negatives) / items)


def linear(losses: Sequence[float], pi: Sequence[float]) -> float:
    """Equation 1."""
    return sum(weight * loss for weight, loss in zip(pi, losses, strict=True))


def chebyshev(losses: Sequence[float], pi: Sequence[float], smoothness: float = 0.1) -> float:
    """Smooth maximum of the weighted losses."""
    total = sum(math.exp(weight * loss / smoothness) for weight, loss in zip(pi, losses, strict=True))
    return smoothness * math.log(total) - smoothness * math.log(len(losses))


def shares(losses: Sequence[float], pi: Sequence[float]) -> list[float]:
    """pihat of equation 3."""
    total = max(linear(losses, pi), 1e-6)
    return [weight * loss / total for weight, loss in zip(pi, losses, strict=True)]


def softmax(values: Sequence[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(p | q), with 0 log 0 = 0."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0.0)


def paper_regulariser(losses: Sequence[float], pi: Sequence[float], g: str) -> float:
    """Equation 3: KL(g(pihat) | 1/k)."""
    share = shares(losses, pi)
    return divergence(softmax(share) if g == "softmax" else share, [1.0 / len(share)] * len(share))


def released_regulariser(losses: Sequence[float], pi: Sequence[float]) -> float:
    """Cross-entropy of softmax(pihat) against 1/k."""
    return -sum(math.log(share) for share in softmax(shares(losses, pi))) / len(losses)


def cosine_regulariser(losses: Sequence[float], pi: Sequence[float]) -> float:
    """-cos of the angle between pi and the losses."""
    return -linear(losses, pi) / (math.hypot(*losses) * math.hypot(*pi))


def regulariser(losses: Sequence[float], pi: Sequence[float], config: TrainingConfig) -> float:
    if config.losses.regulariser == "none":
        return 0.0
    if config.losses.regulariser == "cosine":
        return cosine_regulariser(losses, pi)
    if config.losses.regulariser == "released":
        return released_regulariser(losses, pi)
    return paper_regulariser(losses, pi, config.losses.regulariser_g)


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:  # (d) -> (d)
    centred = x - x.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-5) * gain + bias


def attention(x: np.ndarray, weights: Weights, layer: str, heads: int) -> np.ndarray:
    """Causal attention of the steps x [steps, d], a step and a head at a time."""
    steps, d = x.shape
    width = d // heads
    projected = x @ weights[f"{layer}.attention_in.weight"].T + weights[f"{layer}.attention_in.bias"]
    query, key, value = projected[:, :d], projected[:, d : 2 * d], projected[:, 2 * d :]
    found = np.zeros((steps, d))
    for step in range(steps):
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            fit = [query[step, own] @ key[before, own] / math.sqrt(width) for before in range(step + 1)]
            found[step, own] = sum(share * value[i, own] for i, share in enumerate(softmax(fit)))
    return found @ weights[f"{layer}.attention_out.weight"].T + weights[f"{layer}.attention_out.bias"]


def states(weights: Weights, config: ModelConfig, clicks: Sequence[int], pi: Sequence[float]) -> np.ndarray:
    """The model's state after each click, float64 [clicks, d], without dropout and without what own clicks add."""
    d, n = config.dimension, len(clicks)
    first = config.max_length - n if config.positions == "end" else 0
    x = np.zeros((n, d))
    for step, item in enumerate(clicks):
        read = np.concatenate([weights["item_embedding.weight"][item], pi])
        x[step] = (weights["linear.weight"] @ read + weights["linear.bias"]) * math.sqrt(d / 2)
        x[step] += weights["position_embedding.weight"][first + step]
    for number in range(config.layers):
        layer = f"layers.{number}"

        def norm(x: np.ndarray, name: str) -> np.ndarray:
            return np.stack([layer_norm(step, weights[f"{name}.weight"], weights[f"{name}.bias"]) for step in x])

        x = x + attention(norm(x, f"{layer}.norm1"), weights, layer, config.heads)
        hidden = norm(x, f"{layer}.norm2") @ weights[f"{layer}.feed_forward_in.weight"].T
        hidden = np.maximum(hidden + weights[f"{layer}.feed_forward_in.bias"], 0.0)
        x = x + hidden @ weights[f"{layer}.feed_forward_out.weight"].T + weights[f"{layer}.feed_forward_out.bias"]
    return np.stack([layer_norm(step, weights["norm.weight"], weights["norm.bias"]) for step in x])


def own_clicks(weights: Weights, config: ModelConfig, clicks: Sequence[int], pi: Sequence[float]) -> np.ndarray:
    """What own clicks add to the state after each click, float64 [clicks, d]."""
    added = np.zeros((len(clicks), config.dimension))
    if config.own_clicks == "added":
        for step in range(len(clicks)):
            for item in clicks[: step + 1]:
                added[step] += linear(weights["own_clicks"].tolist(), pi) * weights["item_embedding.weight"][item]
    return added


def unit_items(weights: Weights) -> dict[str, np.ndarray]:
    """The weights with item embeddings of norm 1, but for the padding row."""
    items = weights["item_embedding.weight"].copy()
    items[1:] /= np.sqrt((items[1:] ** 2).sum(axis=1, keepdims=True))
    return {**weights, "item_embedding.weight": items}


@dataclass(frozen=True, eq=False)
class Problem:
    """A batch and all that was drawn for it.

    Args:
        batch: the sessions.
        negatives: what each of them drew.
        pi: float [sessions, objectives].
        rates: share of the training data's targets that have each event.
    """

    batch: Batch
    negatives: Negatives
    pi: np.ndarray
    rates: Mapping[str, float]

    def drawn_by(self, session: int) -> list[int]:
        """Every item that the session drew, as often as it drew it."""
        every = [*self.negatives.batch_items, *self.negatives.uniform_items]
        copies = [*self.negatives.batch_copies[session], *self.negatives.uniform_copies]
        return [int(item) for item, count in zip(every, copies, strict=True) for _ in range(count)]


def step_losses(weights: Weights, model: ModelConfig, config: TrainingConfig, problem: Problem) -> np.ndarray:
    """Every objective's loss of every step of a batch, float64 [steps, objectives]; the batch is all of the training
    data."""
    if model.item_norm == "unit":
        weights = unit_items(weights)
    items, batch = weights["item_embedding.weight"], problem.batch
    losses = []
    for session, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        own_steps = range(start, start + length)
        clicks, pi = [int(batch.inputs[step]) for step in own_steps], problem.pi[session]
        without = states(weights, model, clicks, pi)
        found = without + own_clicks(weights, model, clicks, pi)
        for state, unlifted, step in zip(found, without, own_steps, strict=True):
            target = int(batch.targets[step])
            drawn = [
                item
                for item in problem.drawn_by(session)
                if config.negatives.collisions == "official" or item != target
            ]
            logits = [float(state @ items[item]) for item in drawn]
            if config.negatives.popularity_correction:
                rates = [drawn_too_often(item, list(batch.inputs), model.items, config) for item in drawn]
                logits = [
                    logit - config.negatives.popularity_correction * math.log(rate)
                    for logit, rate in zip(logits, rates, strict=True)
                ]
            hardest = sorted(logits, reverse=True)[: config.negatives.kept_negatives]
            click = click_loss(float(state @ items[target]), hardest)
            of_step = [click]
            for event in model.objectives[1:]:
                kind, happened = (
                    {"order": config.losses.order_loss, "cart": config.losses.cart_loss}[event],
                    batch.labels[event][step],
                )
                loss = 0.0
                if kind != "ordered_softmax":
                    loss += order_loss(float(unlifted @ items[target]), bool(happened))
                if kind != "bce":
                    loss += ordered_softmax_loss(
                        click, bool(happened), problem.rates[event], config.losses.ordered_share
                    )
                of_step.append(loss)
            losses.append(of_step)
    return np.array(losses)


def total_loss(weights: Weights, model: ModelConfig, config: TrainingConfig, problem: Problem) -> float:
    """Equation 4 for the drawn preferences: what is minimised."""
    scalarise = {"linear": linear, "chebyshev": chebyshev}[config.losses.scalarisation]
    totals = []
    for step, losses in enumerate(step_losses(weights, model, config, problem)):
        pi = problem.pi[problem.batch.session_of_step[step]]
        totals.append(scalarise(losses, pi) + config.losses.regularisation * regulariser(losses, pi, config))
    return float(np.mean(totals))
