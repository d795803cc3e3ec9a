"""Vectorised parsing of integers in text: eight ASCII digits per 64-bit load and three multiplications.

A word holds the digits of a number as bytes, the first digit in the lowest byte. One multiplication adds ten times each
digit to its neighbour; two more do the same for pairs and for groups of four (SIMD within a register).
"""

from __future__ import annotations

import numpy as np

_STEPS = (
    # mask of the lanes; multiplier that adds each weighted lane to the next one; bits per lane
    (np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(10 * 2**8 + 1), np.uint64(8)),
    (np.uint64(0x00FF00FF00FF00FF), np.uint64(100 * 2**16 + 1), np.uint64(16)),
    (np.uint64(0x0000FFFF0000FFFF), np.uint64(10_000 * 2**32 + 1), np.uint64(32)),
)


def read_integers(text: np.ndarray, end: np.ndarray, length: np.ndarray | int) -> np.ndarray:
    """Parse the numbers that end before the given positions.

    Args:
        text: uint8 [bytes], ASCII text with at least 24 bytes before every `end`.
        end: int64 [n], position behind the last digit of each number.
        length: Number of digits, 1 to 18: int64 [n], or one value for all numbers. All these bytes must be digits.

    Returns:
        int64 [n], the numbers.
    """
    words = np.ndarray((max(len(text) - 7, 0),), "<u8", buffer=text.data, strides=(1,))  # one word per byte
    longest = int(np.max(length, initial=0))
    value = np.zeros(len(end), dtype=np.uint64)
    for done in range(0, longest, 8):
        surplus = np.clip(8 - (length - done), 0, 8).astype(np.uint64) * np.uint64(8)  # bits of bytes before the number
        word = words[end - (done + 8)] >> surplus << surplus  # a shift by 64 gives 0 in numpy
        for mask, weights, bits in _STEPS:
            word = (word & mask) * weights >> bits
        value += word * np.uint64(10**done)
    return value.view(np.int64)
