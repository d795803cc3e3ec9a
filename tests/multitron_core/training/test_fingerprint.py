from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from multitron_core.training import presets
from multitron_core.training.fingerprint import check_fingerprint, fingerprint
from tests.multitron_core.training.examples import shop, small


def test_fingerprint_follows_settings_and_data() -> None:
    data = shop()
    assert fingerprint(data, small()) == fingerprint(shop(), small())
    others = {fingerprint(shop(seed=2), small()), fingerprint(data, small(seed=2)), fingerprint(data, presets.demo())}
    assert fingerprint(data, small()) not in others
    assert len(others) == 3


@pytest.mark.parametrize("settings", [{}, {"gradient_clip": 1, "beta": [1, 2]}])
def test_fingerprint_hashes_the_settings_of_version_0_1(settings: dict[str, object]) -> None:
    """The JSON of 34 flat names, written out: another one would give all models another version."""
    data, preset = shop(), small(**settings)
    written = {
        "epochs": 3, "batch_sessions": 32, "learning_rate": 0.005, "warmup_steps": 0, "schedule": "constant",
        "optimiser": "adam", "gradient_clip": 0.0, "session_order": "shuffled", "seed": 1, "beta": [0.5, 0.5],
        "pi_per": "session", "trained_pi": None, "order_loss": "ordered_softmax", "cart_loss": "ordered_softmax",
        "ordered_share": 0.5, "scalarisation": "linear", "regulariser": "paper", "regularisation": 0.2,
        "regulariser_g": "identity", "uniform_negatives": 64, "in_batch_negatives": 4, "kept_negatives": 20,
        "popularity_correction": 0.0, "collisions": "masked", "validation_share": 0.1,
        "validation_pi": ["0.00", "0.50", "1.00"], "keep": "best", "patience": 0, "checkpoint_steps": 2,
        "loss_limit": 1000.0, "threads": 1, "precision": "auto", "cuda_graphs": True, "negative_search": "auto",
    }  # fmt: skip
    assert list(preset.training.flat()) == list(written)
    model = {"dimension": 16, "layers": 1, "dropout": 0.15}
    digest = hashlib.sha256(data.vocabulary.hash.encode())
    digest.update(json.dumps([model, written | settings], sort_keys=True).encode())
    for array in (data.train.offsets, data.train.items, data.train.ordered):
        digest.update(array.tobytes())
    assert fingerprint(data, preset) == digest.hexdigest()[:16]


def test_check_fingerprint_refuses_another_training() -> None:
    check_fingerprint("abc", "abc", Path("model"))
    with pytest.raises(InputError, match="other settings or other data"):
        check_fingerprint(None, "abc", Path("model"))
