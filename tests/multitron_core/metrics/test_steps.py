"""Evaluation steps: their table, and the model's states against sessions that are read alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.metrics.steps import evaluation_batches, step_states, step_table
from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.encoded import EncodedSessions


def sessions(*clicks: list[int], ordered: tuple[tuple[int, int], ...] = ()) -> EncodedSessions:
    """Sessions of item indices; `ordered` lists (session, position) of the clicks that are ordered later."""
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in clicks])]).astype(np.int64)
    flags = np.zeros(offsets[-1], dtype=bool)
    for session, position in ordered:
        flags[offsets[session] + position] = True
    items = np.array([item for session in clicks for item in session], dtype=np.int32)
    return EncodedSessions(pl.Series([f"s{i}" for i in range(len(clicks))]), offsets, items, flags, "hash")


def test_step_table_labels_targets_of_the_last_clicks() -> None:
    data = sessions([1, 2, 3, 4], [5], [6, 7], ordered=((0, 0), (0, 2), (2, 1)))
    table = step_table(evaluation_batches(data, max_length=2))
    assert table.sort("session", "target").to_dicts() == [
        {"session": 0, "target": 3, "ordered": True, "last": False},
        {"session": 0, "target": 4, "ordered": False, "last": True},
        {"session": 2, "target": 7, "ordered": True, "last": True},
    ]


def test_step_table_marks_the_last_step_of_each_session() -> None:
    assert step_table(evaluation_batches(sessions([1, 2], [1, 2]), 50))["last"].to_list() == [True, True]


def test_evaluation_batches_refuse_sessions_without_steps() -> None:
    for data in (sessions(), sessions([1], [2])):
        with pytest.raises(InputError, match="nothing to evaluate"):
            evaluation_batches(data, 50)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=8), min_size=1, max_size=6),
    st.integers(1, 3),
    st.sampled_from(["start", "end"]),
)
def test_step_states_depend_only_on_their_session(
    clicks: list[list[int]], batch_sessions: int, positions: Literal["start", "end"]
) -> None:
    torch.manual_seed(0)
    model = MultiTRON(ModelConfig(items=9, dimension=8, max_length=5, positions=positions)).eval()
    pi = torch.tensor([0.3, 0.7])
    for batch in evaluation_batches(sessions(*clicks), 5, batch_sessions=batch_sessions):
        states = step_states(model, batch, pi, whole_sessions=True)
        for place, session in enumerate(batch.sessions):
            items = torch.tensor([clicks[session][-6:][:-1]])
            alone = model(items, torch.tensor([items.shape[1]]), pi)[0]
            steps = slice(batch.starts[place], batch.starts[place] + batch.lengths[place])
            torch.testing.assert_close(states[steps], alone.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", ["start", "end"])
def test_step_states_equal_those_of_scoring(positions: Literal["start", "end"]) -> None:
    """Also with positions from the end, a state does not depend on the clicks that follow."""
    torch.manual_seed(0)
    model = MultiTRON(ModelConfig(items=9, dimension=8, max_length=5, positions=positions)).eval()
    pi = torch.tensor([0.3, 0.7])
    (batch,) = evaluation_batches(sessions([1, 2], [3, 4, 5, 6], [7, 8, 9, 1, 2, 3, 4]), 5)
    states = step_states(model, batch, pi)
    for start, length in zip(batch.starts, batch.lengths, strict=True):
        for clicks in range(1, length + 1):
            items = torch.from_numpy(batch.inputs[None, start : start + clicks])
            served = model.last_states(items, torch.tensor([clicks]), pi)[0].detach()
            torch.testing.assert_close(states[start + clicks - 1], served, atol=1e-5, rtol=1e-4)
    whole = step_states(model, batch, pi, whole_sessions=True)
    assert torch.allclose(whole, states, atol=1e-5) == (positions == "start")
