"""MultiTRON: a causal session transformer conditioned on the preference vector pi.

Sources: Wilm, Normann, Stepprath, "Pareto Front Approximation for Multi-Objective Session-Based Recommender Systems"
(RecSys 2024, arXiv 2407.16828), and its predecessor TRON (arXiv 2307.14906).

Sessions are padded on the right. With causal attention no real step looks at padding behind it, so padding changes
no state; callers group sessions by length to keep it small.
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
    """A pre-norm transformer encoder layer: attention and a ReLU feed-forward of the model's width."""

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
        """The same layer for one step a session: only that query is computed, over all keys up to it.

        Args:
            x: float [sessions, steps, d], the layer's input.
            last: int64 [sessions], the step of each session that is wanted.

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
        """What comes behind the attention: its output projection and the feed-forward; all float [..., d]."""
        x = x + self._drop(self.attention_out(attended))
        hidden = self._drop(F.relu(self.feed_forward_in(self.norm2(x))))
        return x + self._drop(self.feed_forward_out(hidden))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class MultiTRON(nn.Module):
    """The model R(clicks, pi): a state a step, and a score for every item from a state.

    Args:
        config: the shape; weights are initialised from torch's global random state.
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
            items: int64 [sessions, steps], 1-based indices, 0 behind a session's end; steps <= max_length.
            lengths: int64 [sessions], clicks a session, >= 1.
            pi: float [objectives] for all sessions, or [sessions, objectives].

        Returns:
            float [sessions, steps, d]; what stands behind a session's end has no meaning.
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

        The last layer computes that one step alone.
        """
        embedded = self.item_embedding(items)
        x = self._embed(embedded, lengths, pi)
        for layer in self.layers[:-1]:
            x = layer(x)
        last_layer = self.layers[-1]
        assert isinstance(last_layer, EncoderLayer)  # ModuleList forgets the type
        states: Tensor = self.norm(last_layer.at(x, lengths - 1)).squeeze(1)
        if self.own_clicks is None:
            return states
        return states + self.own_part(embedded.sum(1), pi)  # the embedding of padding is zero

    def own_part(self, clicks: Tensor, pi: Tensor) -> Tensor:
        """What own clicks add to states, so that items that the session clicked score higher, and those near them: a
        visitor who comes back.

        sum over objectives o of pi_o own_clicks_o, times the sum of the embeddings clicked so far. That a model of this
        kind scores by copying is an old idea (RepeatNet, AAAI 2019); weighed by objective it says how much likelier a
        seen item is to be ordered than to be clicked again. It ranks the items of one step. It also lifts all of them,
        the more clicks there were, so it is no part of what says how likely an event is (`losses.order_loss`).

        Args:
            clicks: float [..., d], the sum of the item embeddings of the session's clicks up to each state's.
            pi: float, [objectives] or [..., objectives].

        Returns:
            float [..., d].
        """
        assert self.own_clicks is not None, "a model of config.own_clicks 'added'"
        often = (self.own_clicks * pi).sum(-1, keepdim=True)  # ([...,] 1)
        return often * clicks

    def scores(self, states: Tensor) -> Tensor:
        """Scores of every item, float [..., items]; the item of index i stands at i - 1."""
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
        if self.config.positions == "end":  # the last click has the last position; behind the end anything will do
            steps = (self.config.max_length - lengths[:, None] + steps[None, :]).clamp(max=self.config.max_length - 1)
        x = x * math.sqrt(d / 2) + self.position_embedding(steps)
        return F.dropout(x, self.config.dropout, self.training)


@contextmanager
def with_normalised_embeddings(model: MultiTRON) -> Iterator[None]:
    """Item embeddings of the norm that the config asks for, inside the context.

    The step normalises the rows that it reads, so under "unit" the weights behind them may have any length in training:
    it only sets how far a step turns a row. Whatever else reads the weights wants the rows themselves.
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
