from __future__ import annotations

from pathlib import Path

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


def series(values: list) -> pl.Series:
    return pl.Series(values, dtype=pl.String if values and isinstance(values[0], str) else pl.Int64)


@given(ids)
def test_encoding_and_decoding_are_inverse(values: list) -> None:
    vocabulary = Vocabulary(series(values))
    indices = vocabulary.encode(series(values))
    assert indices.dtype == pl.Int32
    assert indices.to_list() == list(range(1, len(values) + 1))
    assert vocabulary.decode(indices).to_list() == values
    assert vocabulary.decode(indices).dtype == vocabulary.item_ids.dtype


def test_an_unknown_item_is_index_0_and_index_0_is_no_item() -> None:
    vocabulary = Vocabulary(pl.Series([70, 30]))
    assert vocabulary.encode(pl.Series([30, 5, 70, 30])).to_list() == [2, 0, 1, 2]
    for wrong in (0, 3, -1):
        with pytest.raises(InputError, match="outside the vocabulary"):
            vocabulary.decode(np.array([1, wrong]))


def test_the_hash_tells_order_type_and_boundaries_apart() -> None:
    hashes = [
        Vocabulary(pl.Series(values, dtype=dtype)).hash
        for values, dtype in [
            ([1, 2], pl.Int64),
            ([2, 1], pl.Int64),
            (["1", "2"], pl.String),
            (["12"], pl.String),
            (["a", "bc"], pl.String),
            (["ab", "c"], pl.String),
        ]
    ]
    assert len(set(hashes)) == len(hashes)


def test_the_hash_never_changes() -> None:
    # Deployed models carry it: another value would make every one of them refuse its sessions.
    expected = "9355b077c8bc927705d7fddb0ce26978371ae06e69dc22075452ea5136e7b4d4"
    assert Vocabulary(pl.Series([9, 70000, -4])).hash == expected


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary(pl.Series(["b", "a"]))
    vocabulary.save(tmp_path / "vocabulary.parquet")
    loaded = Vocabulary.load(tmp_path / "vocabulary.parquet")
    assert loaded.item_ids.to_list() == ["b", "a"]
    assert loaded.hash == vocabulary.hash
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 no")
    for name in ("damaged.parquet", "missing.parquet"):
        with pytest.raises(InputError, match=name):
            Vocabulary.load(tmp_path / name)


def test_what_is_no_vocabulary_is_refused() -> None:
    for wrong in (pl.Series([1, 1]), pl.Series([1, None]), pl.Series([0.5])):
        with pytest.raises(InputError):
            Vocabulary(wrong)
    with pytest.raises(InputError, match="another type"):
        Vocabulary(pl.Series([1])).encode(pl.Series(["1"]))
