"""The vocabulary: encoding, hash, file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.sessions.vocabulary import Vocabulary

ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30),
    st.lists(st.text(max_size=8), unique=True, max_size=30),
)


def series(values: list[Any]) -> pl.Series:
    return pl.Series(values, dtype=pl.String if values and isinstance(values[0], str) else pl.Int64)


@given(ids)
def test_vocabulary_decode_inverts_encode(values: list[Any]) -> None:
    vocabulary = Vocabulary(series(values))
    indices = vocabulary.encode(series(values))
    assert indices.dtype == pl.Int32
    assert indices.to_list() == list(range(1, len(values) + 1))
    assert vocabulary.decode(indices).to_list() == values
    assert vocabulary.decode(indices).dtype == vocabulary.item_ids.dtype


def test_vocabulary_index_0_is_not_an_item() -> None:
    vocabulary = Vocabulary(pl.Series([70, 30]))
    assert vocabulary.encode(pl.Series([30, 5, 70, 30])).to_list() == [2, 0, 1, 2]
    for wrong in (0, 3, -1):
        with pytest.raises(InputError, match="outside the vocabulary"):
            vocabulary.decode(np.array([1, wrong]))


def test_vocabulary_hash_depends_on_order_type_and_bounds() -> None:
    ids: list[list[Any]] = [[1, 2], [2, 1], ["1", "2"], ["12"], ["a", "bc"], ["ab", "c"]]
    hashes = [Vocabulary(series(values)).hash for values in ids]
    assert len(set(hashes)) == len(hashes)


def test_vocabulary_hash_is_stable() -> None:
    # Deployed models store the hash; with another value, all of them would refuse their sessions.
    expected = "9355b077c8bc927705d7fddb0ce26978371ae06e69dc22075452ea5136e7b4d4"
    assert Vocabulary(pl.Series([9, 70000, -4])).hash == expected


def test_vocabulary_save_and_load(tmp_path: Path) -> None:
    vocabulary = Vocabulary(pl.Series(["b", "a"]))
    vocabulary.save(tmp_path / "vocabulary.parquet")
    loaded = Vocabulary.load(tmp_path / "vocabulary.parquet")
    assert loaded.item_ids.to_list() == ["b", "a"]
    assert loaded.hash == vocabulary.hash
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 no")
    for name in ("damaged.parquet", "missing.parquet"):
        with pytest.raises(InputError, match=name):
            Vocabulary.load(tmp_path / name)


@pytest.mark.parametrize(
    ("values", "message"), [([1, 1], "distinct and not null"), ([1, None], "distinct and not null"), ([0.5], "Int64")]
)
def test_vocabulary_refuses_invalid_ids(values: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vocabulary(pl.Series(values))


def test_vocabulary_encode_refuses_other_types() -> None:
    with pytest.raises(InputError, match="another type"):
        Vocabulary(pl.Series([1])).encode(pl.Series(["1"]))
