from __future__ import annotations

from pathlib import Path

import polars as pl
import torch

from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import load_model, write_untrained_model
from multitron_core.sessions.vocabulary import Vocabulary


def test_an_untrained_model_is_loaded_as_a_trained_one_and_follows_its_seed(tmp_path: Path) -> None:
    config = ModelConfig(items=7, dimension=8, layers=1, max_length=4)
    vocabulary = Vocabulary(pl.Series(range(7), dtype=pl.Int64))
    before = torch.get_rng_state()
    folders = [
        write_untrained_model(tmp_path / name, config, vocabulary, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers are its own"
    first, same, other = (load_model(folder).state_dict() for folder in folders)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert Vocabulary.load(folders[0] / "vocabulary.parquet").hash == vocabulary.hash
