"""MultiTRON: a causal session transformer conditioned on the preference vector pi.

Sources: Wilm, Normann, Stepprath, "Pareto Front Approximation for Multi-Objective Session-Based Recommender Systems"
(RecSys 2024, arXiv 2407.16828), and its predecessor TRON (arXiv 2307.14906).

Sessions are padded on the right. Attention is causal, so no real step attends to the padding after it and padding
changes no state. Callers group sessions by length to keep the padding small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multitron_core.model.config import ModelConfig


class EncoderLayer(nn.Module):
    """A pre-norm transformer encoder layer: attention and a ReLU feed-forward network of the model's width."""

    def __init__(self, dimension: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(dimension)
        self.attention_in = nn.Linear(dimension, 3 * dimension)
        self.attention_out = nn.Linear(dimension, dimension)
        self.norm2 = nn.LayerNorm(dimension)
        self.feed_forward_in = nn.Linear(dimension, dimension)
        self.feed_forward_out = nn.Linear(dimension, dimension)
        nn.init.xavier_uniform_(self.attention_in.weight)
        nn.init.zeros_(self.attention_in.bias)
        nn.init.zeros_(self.attention_out.bias)

    def forward(self, x: Tensor) -> Tensor:  # (sessions, steps, d) -> (sessions, steps, d)
        query, key, value = map(self._split, self.attention_in(self.norm1(x)).chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )  # (sessions, heads, steps, d / heads)
        return self.rest(x, attended.transpose(1, 2).flatten(2))

    def at(self, x: Tensor, last: Tensor) -> Tensor:
        """The layer for one step per session: only its query is computed, over all keys up to it.

        Args:
            x: float [sessions, steps, d], input of the layer.
            last: int64 [sessions], the step of each session.

        Returns:
            float [sessions, 1, d].
        """
        index = last[:, None, None].expand(-1, 1, x.shape[2])
        x_last = x.gather(1, index)  # (sessions, 1, d)
        normed = self.norm1(x)
        d = x.shape[2]
        weight, bias = self.attention_in.weight, self.attention_in.bias
        query = F.linear(normed.gather(1, index), weight[:d], bias[:d])
        key, value = F.linear(normed, weight[d:], bias[d:]).chunk(2, dim=-1)
        mask = torch.arange(x.shape[1], device=x.device)[None, :] <= last[:, None]  # (sessions, steps)
        attended = F.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), attn_mask=mask[:, None, None, :]
        )
        return self.rest(x_last, attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:  # (sessions, steps, d) -> (sessions, heads, steps, d / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def rest(self, x: Tensor, attended: Tensor) -> Tensor:
        """The part after the attention: output projection and feed-forward network; all float [..., d]."""
        x = x + self._drop(self.attention_out(attended))
        hidden = self._drop(F.relu(self.feed_forward_in(self.norm2(x))))
        return x + self._drop(self.feed_forward_out(hidden))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class MultiTRON(nn.Module):
    """The model R(clicks, pi): one state per step, and from a state one score per item.

    Args:
        config: shape of the model; weights are drawn from torch's global random state.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d = config.dimension
        self.item_embedding = nn.Embedding(config.items + 1, d, padding_idx=0)  # tied with the output layer
        self.position_embedding = nn.Embedding(config.max_length, d)
        self.linear = nn.Linear(d + len(config.objectives), d)
        self.layers = nn.ModuleList(EncoderLayer(d, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d)
        self.own_clicks = nn.Parameter(torch.zeros(len(config.objectives))) if config.own_clicks == "added" else None
        with torch.no_grad():
            if config.initialisation == "xavier":
                nn.init.xavier_uniform_(self.item_embedding.weight)
                nn.init.xavier_uniform_(self.position_embedding.weight)
            else:
                self.item_embedding.weight.normal_(0.0, config.item_scale)
                self.position_embedding.weight.normal_(0.0, config.position_scale)
            self.item_embedding.weight[0].zero_()

    def forward(self, items: Tensor, lengths: Tensor, pi: Tensor) -> Tensor:
        """States after each click.

        Args:
            items: int64 [sessions, steps], indices from 1, 0 after the end of a session; steps <= max_length.
            lengths: int64 [sessions], clicks per session, >= 1.
            pi: float [objectives] for all sessions, or [sessions, objectives].

        Returns:
            float [sessions, steps, d]; values after the end of a session have no meaning.
        """
        embedded = self.item_embedding(items)
        x = self._embed(embedded, lengths, pi)
        for layer in self.layers:
            x = layer(x)
        states: Tensor = self.norm(x)
        if self.own_clicks is None:
            return states
        return states + self.own_part(embedded.cumsum(1), pi if pi.dim() == 1 else pi[:, None, :])

    def last_states(self, items: Tensor, lengths: Tensor, pi: Tensor) -> Tensor:
        """The state after each session's last click, float [sessions, d]; arguments as in `forward`.

        The last layer computes this step only.
        """
        embedded = self.item_embedding(items)
        x = self._embed(embedded, lengths, pi)
        for layer in self.layers[:-1]:
            x = layer(x)
        last_layer = self.layers[-1]
        assert isinstance(last_layer, EncoderLayer)  # ModuleList has no element type
        states: Tensor = self.norm(last_layer.at(x, lengths - 1)).squeeze(1)
        if self.own_clicks is None:
            return states
        return states + self.own_part(embedded.sum(1), pi)  # the embedding of padding is zero

    def own_part(self, clicks: Tensor, pi: Tensor) -> Tensor:
        """What own clicks add to states: items that the session clicked, and similar ones, score higher.

        The sum over objectives o of pi_o own_clicks_o, times the sum of the embeddings clicked so far. Copying clicked
        items to the scores follows RepeatNet (Ren et al., AAAI 2019); a weight per objective models how much likelier a
        clicked item is ordered than clicked again. The term ranks the items of one step. It also raises all of their
        scores with the number of clicks, so losses of event probabilities exclude it (`losses.order_loss`).

        Args:
            clicks: float [..., d], sum of the item embeddings of the session's clicks up to the state's step.
            pi: float [objectives] or [..., objectives].

        Returns:
            float [..., d].
        """
        assert self.own_clicks is not None, "a model of config.own_clicks 'added'"
        often = (self.own_clicks * pi).sum(-1, keepdim=True)  # ([...,] 1)
        return often * clicks

    def scores(self, states: Tensor) -> Tensor:
        """Scores of every item, float [..., items]; item i is at i - 1."""
        return F.linear(states, self.item_embedding.weight[1:])

    def _embed(self, embedded: Tensor, lengths: Tensor, pi: Tensor) -> Tensor:
        d = self.config.dimension
        weight, bias = self.linear.weight, self.linear.bias
        # Linear([E; pi]) in two parts: pi is the same for all steps of a session, so its part is computed once.
        preference = F.linear(pi, weight[:, d:], bias)  # (d) or (sessions, d)
        if preference.dim() == 2:
            preference = preference[:, None, :]
        x = F.linear(embedded, weight[:, :d]) + preference  # (sessions, steps, d)
        steps = torch.arange(embedded.shape[1], device=embedded.device)
        if self.config.positions == "end":  # the last click has the last position; padding may have any
            steps = (self.config.max_length - lengths[:, None] + steps[None, :]).clamp(max=self.config.max_length - 1)
        x = x * math.sqrt(d / 2) + self.position_embedding(steps)
        return F.dropout(x, self.config.dropout, self.training)


@contextmanager
def with_normalised_embeddings(model: MultiTRON) -> Iterator[None]:
    """Item embeddings of the norm that the config sets, inside the context; the weights are restored afterwards.

    A training step normalises the rows that it reads, so under "unit" the stored rows may have any length: it only
    scales how far a step rotates a row. All other readers of the weights need the normalised rows.
    """
    if model.config.item_norm == "free":
        yield
        return
    weight = model.item_embedding.weight
    in_training = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.copy_(F.normalize(in_training, dim=1))
        yield
    finally:
        with torch.no_grad():
            weight.copy_(in_training)
