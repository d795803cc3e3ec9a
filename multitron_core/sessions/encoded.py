"""Encoded sessions: clicks as vocabulary indices with labels, the input of training and scoring.

A folder of encoded sessions contains flat arrays: `items.npy` (int32), `ordered.npy` (bool), `offsets.npy` (int64) and,
if carts are an objective, `carted.npy` (bool). Session ids are in `session_ids.parquet`. The arrays are memory-mapped,
so that 200 million clicks take no memory until they are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.utils.ragged import ranges

DTYPES = {"offsets": np.int64, "items": np.int32, "ordered": np.bool_, "carted": np.bool_}
"""Types of the arrays that `EncodedSessions.save` writes and `load` accepts."""


@dataclass(frozen=True, eq=False)
class EncodedSessions:
    """Sessions of clicks with labels; session s is `items[offsets[s]:offsets[s + 1]]`.

    Args:
        session_ids: `String` [sessions].
        offsets: int64 [sessions + 1], not decreasing, from 0 to the number of clicks.
        items: int32 [clicks], 1-based indices of the vocabulary, in time order within a session.
        ordered: bool [clicks], whether the clicked item is ordered later in the same session.
        vocabulary_hash: `Vocabulary.hash` of the vocabulary of the indices.
        carted: bool [clicks], whether the clicked item is put into the cart later in the same session; None if the
            sessions were prepared without these labels.

    Raises:
        InputError: The lengths of the arrays do not match.
    """

    session_ids: pl.Series
    offsets: np.ndarray
    items: np.ndarray
    ordered: np.ndarray
    vocabulary_hash: str
    carted: np.ndarray | None = None

    def __post_init__(self) -> None:
        sizes = (len(self.session_ids) + 1, len(self.items), len(self.items))
        found = (len(self.offsets), int(self.offsets[-1]) if len(self.offsets) else -1, len(self.ordered))
        if sizes != found or any(len(labels) != len(self.items) for labels in self.labels.values()):
            raise InputError(
                "the lengths of the arrays of encoded sessions do not match",
                found={"offsets": found[0], "last offset": found[1], "ordered": found[2]},
                hint=f"expected {sizes}; prepare the sessions again",
            )

    def __len__(self) -> int:
        return len(self.session_ids)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Labels of the clicks, bool [clicks], by event: "order", and "cart" if there are such labels."""
        return {"order": self.ordered} | ({} if self.carted is None else {"cart": self.carted})

    @property
    def lengths(self) -> np.ndarray:
        """int64 [sessions], clicks per session."""
        return np.diff(self.offsets)

    def to_frame(self) -> pl.DataFrame:
        """One row per session: `session_id`, `items: list[int32]`, `ordered: list[bool]`."""
        clicks = pl.DataFrame(
            {
                "row": np.repeat(np.arange(len(self), dtype=np.int64), self.lengths),
                "items": np.asarray(self.items, dtype=np.int32),
                "ordered": np.asarray(self.ordered, dtype=bool),
            }
        )
        rows = pl.DataFrame({"row": np.arange(len(self), dtype=np.int64), "session_id": self.session_ids})
        lists = clicks.group_by("row", maintain_order=True).agg("items", "ordered")
        empty = {"items": pl.lit([], pl.List(pl.Int32)), "ordered": pl.lit([], pl.List(pl.Boolean))}
        return rows.join(lists, on="row", how="left", maintain_order="left").select(
            "session_id", *[pl.coalesce(name, value).alias(name) for name, value in empty.items()]
        )

    def select(self, rows: np.ndarray) -> EncodedSessions:
        """The sessions of the given rows (int [n]), in the given order, as new arrays."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        clicks = ranges(self.offsets[rows], lengths)
        return EncodedSessions(
            self.session_ids.gather(rows),
            offsets,
            self.items[clicks],
            self.ordered[clicks],
            self.vocabulary_hash,
            None if self.carted is None else self.carted[clicks],
        )

    def save(self, folder: Path | str) -> None:
        """Write the arrays into `folder`, which is created if it is missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, dtype in DTYPES.items():
            if getattr(self, name) is not None:
                np.save(folder / f"{name}.npy", np.asarray(getattr(self, name), dtype=dtype))
        pl.DataFrame({"session_id": self.session_ids}).write_parquet(folder / "session_ids.parquet")
        (folder / "encoded.json").write_text(json.dumps({"vocabulary_hash": self.vocabulary_hash}))

    @classmethod
    def load(cls, folder: Path | str) -> EncodedSessions:
        """Open a folder that `save` wrote; the arrays are memory-mapped and read-only.

        Raises:
            InputError: A file is missing or does not have the type that `save` writes.
        """
        folder = Path(folder).resolve()  # all files from one version of a folder that may be replaced meanwhile
        try:
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in DTYPES
                if name != "carted" or (folder / "carted.npy").exists()
            }
            for name, array in arrays.items():
                if array.dtype != DTYPES[name] or array.ndim != 1:
                    expected = f"one dimension of {np.dtype(DTYPES[name])}"
                    raise ValueError(f"{name}.npy holds {array.dtype} {array.shape}, expected {expected}")
            session_ids = pl.read_parquet(folder / "session_ids.parquet")["session_id"]
            header = json.loads((folder / "encoded.json").read_text())
            return cls(session_ids, vocabulary_hash=header["vocabulary_hash"], **arrays)
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise InputError(
                "encoded sessions cannot be read", where=folder, found=str(error), hint="prepare the sessions again"
            ) from error
