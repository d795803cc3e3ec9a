from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from orchestration.shop.home import file_settings, load_shop, shop_or_demo
from orchestration.shop.settings import demo_settings
from orchestration.shop.toml import write_shop


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
def test_load_shop_names_the_nearest_known_setting(scoring: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        load_shop(home_with(tmp_path, scoring))
    assert advice in str(refusal.value)


def test_load_shop_names_all_wrong_settings_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_overrides_replace_any_setting(
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


def test_overrides_replace_one_key_of_a_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_load_shop_names_a_wrong_variable(
    variable: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path, demo_settings())
    monkeypatch.setenv(variable, "many")
    with pytest.raises(InputError, match=advice):
        load_shop(tmp_path)


def test_overrides_are_separate_from_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_load_shop_shows_no_secret_in_the_wrong_place(
    line: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "wJalrXUtnFEMI")
    with pytest.raises(InputError, match="2 settings are wrong") as refusal:
        load_shop(home_with(tmp_path, line))
    assert "wJalrXUtnFEMI" not in str(refusal.value)
    assert variable in str(refusal.value)
