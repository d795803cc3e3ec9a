"""Integers parsed from text, compared with `int`."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from multitron_core.events.formats.digits import read_integers

NUMBERS = st.lists(st.text("0123456789", min_size=1, max_size=18), max_size=50)


@given(NUMBERS)
def test_read_integers_between_other_bytes(numbers: list[str]) -> None:
    text, ends = "x" * 24, []
    for number in numbers:
        text += number
        ends.append(len(text))
        text += "}]ÿ"[: len(number) % 3]
    found = read_integers(
        np.frombuffer(text.encode("latin-1"), np.uint8), np.array(ends, dtype=np.int64), np.array([*map(len, numbers)])
    )
    assert found.tolist() == [*map(int, numbers)]


def test_read_integers_of_one_length() -> None:
    text = np.frombuffer(b" " * 24 + b"1661724000278,1662328774770", np.uint8)
    assert read_integers(text, np.array([37, 51]), 13).tolist() == [1661724000278, 1662328774770]
    assert read_integers(text, np.zeros(0, np.int64), 13).tolist() == []
