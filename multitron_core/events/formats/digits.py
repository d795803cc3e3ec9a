"""Integers out of text, many at once: eight ASCII digits are one load of 64 bits and three multiplications.

The digits of a number stand in a word as bytes, the first one lowest. One multiplication adds every digit, times ten,
to its neighbour; two more do the same for pairs and for fours (SIMD within a register).
"""

from __future__ import annotations

import numpy as np

_STEPS = (
    # mask of the lanes, what adds each lane (times its weight) to the next, bits that a lane has
    (np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(10 * 2**8 + 1), np.uint64(8)),
    (np.uint64(0x00FF00FF00FF00FF), np.uint64(100 * 2**16 + 1), np.uint64(16)),
    (np.uint64(0x0000FFFF0000FFFF), np.uint64(10_000 * 2**32 + 1), np.uint64(32)),
)


def read_integers(text: np.ndarray, end: np.ndarray, length: np.ndarray | int) -> np.ndarray:
    """The numbers whose last digits stand before `end`.

    Args:
        text: uint8 [bytes]; at least 24 bytes stand before every `end`.
        end: int64 [n], where each number ends, exclusive.
        length: its digits, 1 to 18; int64 [n] or one for all. Nothing but digits may stand there.

    Returns:
        int64 [n].
    """
    words = np.ndarray((max(len(text) - 7, 0),), "<u8", buffer=text.data, strides=(1,))  # at every byte
    longest = int(np.max(length, initial=0))
    value = np.zeros(len(end), dtype=np.uint64)
    for done in range(0, longest, 8):
        surplus = np.clip(8 - (length - done), 0, 8).astype(np.uint64) * np.uint64(8)  # bits before the number
        word = words[end - (done + 8)] >> surplus << surplus  # numpy shifts everything out at 64
        for mask, weights, bits in _STEPS:
            word = (word & mask) * weights >> bits
        value += word * np.uint64(10**done)
    return value.view(np.int64)
