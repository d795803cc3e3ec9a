"""The vocabulary: the source id of each item index.

Index 0 is padding; item i of the vocabulary (from 0) has index i + 1. Encoded sessions, models and deployed versions
store the hash of their vocabulary, so that sessions cannot be scored with a model that uses other indices.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from multitron_core.errors import InputError


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Items in index order.

    Args:
        item_ids: `Int64` or `String` series of distinct values without nulls; the id of index i is at i - 1.

    Raises:
        InputError: The ids have another type, or are null or repeated.
    """

    item_ids: pl.Series

    def __post_init__(self) -> None:
        if self.item_ids.dtype not in (pl.Int64, pl.String):
            raise InputError(
                "item ids must be Int64 or String", found=str(self.item_ids.dtype), hint="cast the item ids first"
            )
        if self.item_ids.null_count() or self.item_ids.n_unique() != len(self.item_ids):
            raise InputError("item ids must be distinct and not null", hint="take the distinct item ids")
        object.__setattr__(self, "item_ids", self.item_ids.alias("item_id"))

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def hash(self) -> str:
        """Hexadecimal SHA-256 of the type and the ids in order; the same on every machine and in every version."""
        digest = hashlib.sha256(f"{self.item_ids.dtype}\n".encode())
        step = 1 << 20
        for start in range(0, len(self), step):
            ids = self.item_ids.slice(start, step).cast(pl.String)
            # Each id follows its length, so that ["a", "bc"] and ["ab", "c"] have different hashes.
            lines = pl.select(pl.concat_str(ids.str.len_bytes().cast(pl.String), pl.lit(":"), ids)).to_series()
            digest.update("".join(lines.to_list()).encode())
        return digest.hexdigest()

    def encode(self, ids: pl.Series) -> pl.Series:
        """Indices (`Int32`, 1-based) of source ids; 0 for ids that are not in the vocabulary.

        Raises:
            InputError: The type of the ids differs from the vocabulary's.
        """
        if ids.dtype != self.item_ids.dtype:
            raise InputError(
                "item ids are of another type than the vocabulary's",
                found=str(ids.dtype),
                hint=f"cast them to {self.item_ids.dtype}",
            )
        table = self.to_frame()
        joined = pl.DataFrame({"item_id": ids}).join(table, on="item_id", how="left", maintain_order="left")
        return joined["item_index"].fill_null(0)

    def decode(self, indices: np.ndarray | pl.Series) -> pl.Series:
        """Source ids of 1-based indices, flattened.

        Raises:
            InputError: An index is 0 (padding) or larger than the vocabulary.
        """
        indices = np.asarray(indices)
        wrong = (indices < 1) | (indices > len(self))
        if wrong.any():
            raise InputError(
                "an item index is outside the vocabulary",
                where=f"a vocabulary of {len(self)} items",
                found=int(indices[wrong][0]),
                hint="use the vocabulary of the model that gave the indices",
            )
        return self.item_ids.gather(indices.astype(np.int64).ravel() - 1)

    def to_frame(self) -> pl.DataFrame:
        """Columns `item_id` and `item_index` (Int32, 1-based), in index order."""
        return pl.DataFrame(
            {"item_id": self.item_ids, "item_index": pl.arange(1, len(self) + 1, eager=True, dtype=pl.Int32)}
        )

    def save(self, path: Path | str) -> None:
        """Write a parquet file with `item_id` and `item_index`."""
        self.to_frame().write_parquet(path)

    @classmethod
    def load(cls, path: Path | str) -> Vocabulary:
        """Read a file that `save` wrote.

        Raises:
            InputError: The file does not exist or is not a vocabulary.
        """
        try:
            frame = pl.read_parquet(path)
            return cls(frame.sort("item_index")["item_id"])
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(
                "the vocabulary cannot be read", where=path, found=str(error), hint="prepare the sessions again"
            ) from error
