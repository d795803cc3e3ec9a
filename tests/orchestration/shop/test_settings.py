from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from orchestration.shop.home import file_settings, load_shop, shop_or_demo
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


def home_with(tmp_path: Path, scoring: str) -> Path:
    """A home whose section [scoring] is this text."""
    path = write_shop(tmp_path, demo_settings())
    before, _, after = path.read_text().partition("[scoring]")
    path.write_text(f"{before}[scoring]\n{scoring}\n[night]{after.partition('[night]')[2]}")
    return tmp_path


@pytest.mark.parametrize(
    ("scoring", "advice"),
    [
        ("kk = 3", "unknown setting [scoring] kk; did you mean k?"),
        ("exclude_clickt = true", "unknown setting [scoring] exclude_clickt; did you mean exclude_clicked?"),
        ("zzz = 3", "unknown setting [scoring] zzz; where"),
        ("[scorin]\nk = 3", "unknown setting [scorin]; did you mean [scoring]?"),
    ],
)
def test_an_unknown_setting_is_shown_its_nearest_name(scoring: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        load_shop(home_with(tmp_path, scoring))
    assert advice in str(refusal.value)


def test_all_wrong_settings_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_TRITON__BACKEND", "pithon")
    with pytest.raises(InputError, match="4 settings are wrong") as refusal:
        load_shop(home_with(tmp_path, 'k = 0\nkk = 3\npi = ["1.20"]'))
    lines = str(refusal.value).splitlines()[1:]
    assert len(lines) == 4
    assert any("[scoring] k: Input should be greater" in line and "shop.toml, scoring.k" in line for line in lines)
    assert any("did you mean k?" in line for line in lines)
    assert any("1.20" in line for line in lines)
    assert any("MULTITRON_TRITON__BACKEND" in line and "pithon" in line for line in lines)


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("SCORING__K", "30", "scoring.k", 30),
        ("SCORING__PI", '["0.10", "0.90"]', "scoring.pi", ("0.10", "0.90")),
        ("SCORING__EXCLUDE_CLICKED", "true", "scoring.exclude_clicked", True),
        ("CALENDAR__LAST_DAY", "2026-01-05", "calendar.last_day", dt.date(2026, 1, 5)),
        ("TABLES__ROOT", "s3://bucket/shop", "tables.root", "s3://bucket/shop"),
        ("SOURCE__PATH", "2026", "source.path", "2026"),
        ("TRITON__URLS", '["a:1", "b:2"]', "triton.urls", ("a:1", "b:2")),
        ("MODEL__TRAINING__EPOCHS", "3", "model.training", {"epochs": 3}),
        ("MODEL__TRAINING", "{ beta = [0.5, 0.5] }", "model.training", {"beta": [0.5, 0.5]}),
    ],
)
def test_every_setting_can_come_from_the_environment(
    variable: str, text: str, path: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path, demo_settings())
    monkeypatch.setenv(f"MULTITRON_{variable}", text)
    section, name = path.split(".")
    assert getattr(getattr(load_shop(tmp_path).settings, section), name) == value
    assert file_settings(tmp_path) == demo_settings(), "the file stays as it is"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MULTITRON_HOME", raising=False)
    assert shop_or_demo().settings == load_shop(tmp_path).settings


def test_one_key_of_a_channel_can_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, demo_settings())
    monkeypatch.setenv("MULTITRON_CHANNELS__NEWSLETTER__K", "5")
    assert load_shop(tmp_path).settings.channels["newsletter"] == {**demo_settings().channels["newsletter"], "k": 5}
    monkeypatch.setenv("MULTITRON_CHANNELS__NEWSLETTER__K", "0")
    with pytest.raises(InputError, match="MULTITRON_CHANNELS__NEWSLETTER__K"):
        load_shop(tmp_path)


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("MULTITRON_SCORNG__K", r"unknown setting \[scorng\]; did you mean \[scoring\]\?.*MULTITRON_SCORNG__K"),
        ("MULTITRON_SCORING__KK", r"MULTITRON_SCORING__KK"),
        ("MULTITRON_SCORING__K", r"\[scoring\] k: .*where: MULTITRON_SCORING__K, scoring.k; found: 'many'"),
        ("MULTITRON_SCORING__", r"unknown setting \[scoring\]"),
        ("MULTITRON_TRITON__URLS", r"\[triton\] urls: .*MULTITRON_TRITON__URLS"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, demo_settings())
    monkeypatch.setenv(variable, "many")
    with pytest.raises(InputError, match=advice):
        load_shop(tmp_path)


def test_settings_and_credentials_of_the_environment_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path, demo_settings())
    monkeypatch.setenv("MULTITRON_SOURCE__PATH", "elsewhere")
    monkeypatch.setenv("MULTITRON_SOURCE_AWS_REGION", "eu-west-1")
    shop = load_shop(tmp_path)
    assert shop.source_options == {"AWS_REGION": "eu-west-1"}
    assert shop.settings.source.path == "elsewhere"
    assert shop.storage_options is None


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        ('secret_access_key = "wJalrXUtnFEMI"', "MULTITRON_STORAGE__SECRET"),
        ('k = "wJalrXUtnFEMI"', "MULTITRON_SOURCE__AWS_KEY"),
        ('k = "https://user:wJalrXUtnFEMI@example.com"', "MULTITRON_SCORING__TOKEN"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(
    line: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "wJalrXUtnFEMI")
    with pytest.raises(InputError, match="2 settings are wrong") as refusal:
        load_shop(home_with(tmp_path, line))
    assert "wJalrXUtnFEMI" not in str(refusal.value)
    assert variable in str(refusal.value)
