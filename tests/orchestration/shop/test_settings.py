from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from orchestration.shop.home import load_shop, shop_or_demo
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop

FULL = {
    "source": {
        "path": "/data/events",
        "format": "table",
        "files": "events-{date}.csv",
        "columns": {"item_id": 'sku "new"', "event_types": {"view": "click", "buy": "order"}},
        "max_reject_share": 0.02,
    },
    "calendar": {"first_day": dt.date(2026, 3, 1), "last_day": dt.date(2026, 3, 9)},
    "sessions": {"split_days": 2, "state_days": 5},
    "model": {"preset": "diginetica", "device": "cpu", "training": {"epochs": 3, "beta": [0.5, 0.5]}},
    "scoring": {"pi": ["0.10", "0.90"], "k": 10},
    "triton": {"urls": ["a:8001", "b:8001"], "scorer": "triton"},
}


@pytest.mark.parametrize("settings", [demo_settings(), Settings.model_validate(FULL)])
def test_what_is_written_is_what_is_loaded(settings: Settings, tmp_path: Path) -> None:
    write_shop(tmp_path, settings)
    assert load_shop(tmp_path).settings == settings


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('pi = ["0.5"]', "scoring.pi"),
        ('pi = ["0.50", "0.50"]', "0.50"),
        ("k = 0", "scoring.k"),
        ("kk = 3", "scoring.kk"),
        ('pi = ["1.20"]', "1.20"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(line: str, named: str, tmp_path: Path) -> None:
    path = write_shop(tmp_path, demo_settings())
    text = path.read_text().split("[scoring]")[0] + f"[scoring]\n{line}\n"
    path.write_text(text)
    with pytest.raises(InputError) as refusal:
        load_shop(tmp_path)
    assert named in str(refusal.value)
    assert "shop.toml" in str(refusal.value)


def test_what_is_no_toml_and_what_is_missing_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make demo"):
        load_shop(tmp_path)
    (tmp_path / "shop.toml").write_text("[source\n")
    with pytest.raises(InputError, match="TOML"):
        load_shop(tmp_path)


def test_without_a_home_the_demo_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MULTITRON_HOME", raising=False)
    assert shop_or_demo().settings == demo_settings()
    monkeypatch.setenv("MULTITRON_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        shop_or_demo()


def test_paths_are_taken_from_the_home_and_servers_from_the_environment_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path, demo_settings())
    shop = load_shop(tmp_path)
    assert shop.source_path == str(tmp_path / "raw")
    assert shop.triton_urls == ()
    monkeypatch.setenv("MULTITRON_TRITON_URL", "a:1,b:2")
    assert shop.triton_urls == ("a:1", "b:2")
    write_shop(tmp_path, Settings.model_validate({**FULL, "source": {"path": "s3://shop/raw", "format": "otto"}}))
    assert load_shop(tmp_path).source_path == "s3://shop/raw"


def test_the_scorer_of_the_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, demo_settings())
    shop = load_shop(tmp_path)
    assert not shop.scores_in_process
    monkeypatch.setenv("MULTITRON_SCORER", "in_process")
    assert shop.scores_in_process
    monkeypatch.setenv("MULTITRON_SCORER", "tritn")
    with pytest.raises(InputError, match="tritn"):
        _ = shop.scores_in_process
