"""Encoded sessions: frames, selection, folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.sessions.encoded import EncodedSessions


@pytest.fixture
def sessions() -> EncodedSessions:
    return EncodedSessions(
        session_ids=pl.Series(["a", "b", "c"]),
        offsets=np.array([0, 2, 2, 5]),
        items=np.array([4, 7, 1, 1, 2], dtype=np.int32),
        ordered=np.array([False, True, False, True, False]),
        vocabulary_hash="hash",
    )


ROWS = [
    {"session_id": "a", "items": [4, 7], "ordered": [False, True]},
    {"session_id": "b", "items": [], "ordered": []},
    {"session_id": "c", "items": [1, 1, 2], "ordered": [False, True, False]},
]


def test_encoded_sessions_to_frame(sessions: EncodedSessions) -> None:
    frame = sessions.to_frame()
    assert frame.schema == {"session_id": pl.String, "items": pl.List(pl.Int32), "ordered": pl.List(pl.Boolean)}
    assert frame.to_dicts() == ROWS


def test_encoded_sessions_select_keeps_order_of_rows(sessions: EncodedSessions) -> None:
    assert sessions.select(np.array([2, 0])).to_frame().to_dicts() == [ROWS[2], ROWS[0]]
    assert sessions.select(np.array([1, 1])).to_frame().to_dicts() == [ROWS[1], ROWS[1]]
    assert len(sessions.select(np.array([], dtype=np.int64))) == 0


def test_encoded_sessions_load_memory_maps_arrays(sessions: EncodedSessions, tmp_path: Path) -> None:
    sessions.save(tmp_path / "sessions")
    loaded = EncodedSessions.load(tmp_path / "sessions")
    assert isinstance(loaded.items, np.memmap)
    assert loaded.to_frame().equals(sessions.to_frame())
    assert loaded.vocabulary_hash == "hash"


def test_encoded_sessions_load_refuses_damaged_files(sessions: EncodedSessions, tmp_path: Path) -> None:
    sessions.save(tmp_path / "sessions")
    np.save(tmp_path / "sessions" / "items.npy", np.array([1, 2], dtype=np.int32))
    with pytest.raises(InputError, match=r"lengths of the arrays.*do not match"):
        EncodedSessions.load(tmp_path / "sessions")
    (tmp_path / "sessions" / "items.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"encoded sessions cannot be read.*sessions"):
        EncodedSessions.load(tmp_path / "sessions")


def test_encoded_sessions_load_refuses_other_types(sessions: EncodedSessions, tmp_path: Path) -> None:
    sessions.save(tmp_path)
    np.save(tmp_path / "items.npy", np.array([4, 7, 1, 1, 2], dtype=np.float32))
    with pytest.raises(InputError, match=r"items\.npy holds float32 \(5,\), expected one dimension of int32"):
        EncodedSessions.load(tmp_path)
