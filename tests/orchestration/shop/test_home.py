from __future__ import annotations

from pathlib import Path

import pytest

from multitron_core.errors import InputError
from orchestration.shop.home import load_shop, shop_or_demo
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop


def demo_with(**sections: object) -> Settings:
    """The demo's settings, with other sections in place of some."""
    return Settings.model_validate({**demo_settings().model_dump(), **sections})


def test_load_shop_refuses_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make demo"):
        load_shop(tmp_path)
    (tmp_path / "shop.toml").write_text("[source\n")
    with pytest.raises(InputError, match="TOML"):
        load_shop(tmp_path)


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
def test_load_shop_names_the_wrong_setting_and_its_file(line: str, named: str, tmp_path: Path) -> None:
    path = write_shop(tmp_path, demo_settings())
    path.write_text(path.read_text().split("[scoring]")[0] + f"[scoring]\n{line}\n")
    with pytest.raises(InputError) as refusal:
        load_shop(tmp_path)
    assert named in str(refusal.value)
    assert "shop.toml" in str(refusal.value)


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ("[channels.newsletter]\npi = '0.50'", ["newsletter", "owner"]),
        ("[channels.newsletter]\nowner = 'a'\npi = '0.5'", ["0.5"]),
        ("[channels.newsletter]\nowner = 'a'\npi = '0.50'\nkk = 3", ["newsletter", "kk"]),
        ("[channels.newsletter]\nowner = 'a'\npi = '0.50'\nk = 21", ["newsletter", "21", "[scoring]"]),
        ("[channels.newsletter]\nowner = 'a'\npi = '0.50'\ntable = 'recs'", ["newsletter", "recs"]),
        ("[channels.newsletter]\nowner = 'a'\npi = '0.50'\nobjective = 'order_density'", ["newsletter", "either"]),
        ("[quality]\nmin_overlap = 2.0", ["quality.min_overlap", "2.0"]),
        ("[tables]\nkeep_days = 0", ["tables.keep_days"]),
    ],
)
def test_load_shop_refuses_wrong_channels_and_limits(sections: str, named: list[str], tmp_path: Path) -> None:
    source, calendar = '[source]\npath = "raw"\nformat = "table"\n', "[calendar]\nfirst_day = 2026-01-01\n"
    (tmp_path / "shop.toml").write_text(f"{source}{calendar}{sections}\n")
    with pytest.raises(InputError) as refusal:
        load_shop(tmp_path)
    for word in [*named, "shop.toml"]:
        assert word in str(refusal.value)


def test_shop_or_demo_is_the_demo_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MULTITRON_HOME", raising=False)
    assert shop_or_demo().settings == demo_settings()
    monkeypatch.setenv("MULTITRON_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        shop_or_demo()


def test_shop_resolves_relative_paths_against_its_home(tmp_path: Path) -> None:
    write_shop(tmp_path, demo_settings())
    shop = load_shop(tmp_path)
    assert shop.source_path == str(tmp_path / "raw")
    assert shop.lake_root == str(tmp_path / "lake")
    assert shop.lake().uri("events") == str(tmp_path / "lake" / "events")
    remote = {"path": "s3://shop/raw", "format": "otto"}
    write_shop(tmp_path, demo_with(source=remote, tables={"root": "s3://bucket/shop"}))
    shop = load_shop(tmp_path)
    assert shop.source_path == "s3://shop/raw"
    assert shop.lake_root == "s3://bucket/shop"


def test_shop_takes_servers_from_the_environment_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, demo_with(triton={"urls": ["c:3"]}))
    shop = load_shop(tmp_path)
    assert shop.triton_urls == ("c:3",)
    monkeypatch.setenv("MULTITRON_TRITON_URL", "a:1,b:2")
    assert shop.triton_urls == ("a:1", "b:2")


def test_shop_takes_the_scorer_from_the_environment_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, demo_settings())
    shop = load_shop(tmp_path)
    assert not shop.scores_in_process
    monkeypatch.setenv("MULTITRON_SCORER", "in_process")
    assert shop.scores_in_process
    monkeypatch.setenv("MULTITRON_SCORER", "tritn")
    with pytest.raises(InputError, match="tritn"):
        _ = shop.scores_in_process


def test_shop_takes_storage_options_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, demo_with(tables={"root": "s3://bucket/shop"}))
    shop = load_shop(tmp_path)
    assert shop.lake().storage_options is None
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_REGION", "eu-central-1")
    assert shop.lake().storage_options == {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REGION": "eu-central-1"}
    assert shop.lake().uri("recommendations") == "s3://bucket/shop/recommendations"
