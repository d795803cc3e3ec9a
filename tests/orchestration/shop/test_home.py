"""The settings of the tables: channels, thresholds, retention and where the tables are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multitron_core.errors import InputError
from multitron_core.lake.night_comparison import Thresholds
from orchestration.runtime.partitions import partitions_of
from orchestration.runtime.resources import ShopResource
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop

CHANNELS = {
    "newsletter": {"owner": "crm@example.com", "pi": "0.37", "k": 10, "exclude_items": [7, "x y"]},
    "product_page": {
        "owner": "shop@example.com",
        "table": "item_recommendations",
        "objective": "order_density",
        "max_click_recall_loss": 0.05,
    },
}


def with_sections(**sections: Any) -> Settings:
    return Settings.model_validate({**demo_settings().model_dump(), **sections})


def test_what_is_written_is_what_is_loaded(tmp_path: Path) -> None:
    settings = with_sections(
        channels=CHANNELS, quality={"min_lists": 0.5}, tables={"root": "s3://bucket/shop", "keep_days": 7}
    )
    write_shop(tmp_path, settings)
    shop = load_shop(tmp_path)
    assert shop.settings == settings
    assert shop.lake == "s3://bucket/shop"
    assert shop.settings.quality.thresholds() == Thresholds(min_lists=0.5)
    assert [channel.exclude_items for channel in shop.settings.declared_channels] == [(7, "x y"), ()]


def test_what_nobody_set_is_the_comparisons_own(tmp_path: Path) -> None:
    settings = with_sections(channels={})
    assert settings.quality.thresholds() == Thresholds()
    assert settings.preferences == settings.scoring.pi
    write_shop(tmp_path, settings)
    assert load_shop(tmp_path).lake == str(tmp_path / "lake")


def test_a_channel_off_the_grid_adds_a_preference_to_the_nights() -> None:
    settings = with_sections(channels=CHANNELS)
    assert settings.preferences == ("0.00", "0.25", "0.37", "0.50", "0.75", "1.00")
    assert partitions_of(settings).preferences.get_partition_keys() == list(settings.preferences)


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
def test_a_wrong_setting_is_refused_when_the_shop_is_loaded(sections: str, named: list[str], tmp_path: Path) -> None:
    path = write_shop(tmp_path, with_sections(channels={}))
    text = path.read_text().split("# " + "Against the night before")[0]
    path.write_text(f"{text}\n{sections}\n")
    with pytest.raises(InputError) as refusal:
        load_shop(tmp_path)
    for word in [*named, "shop.toml"]:
        assert word in str(refusal.value)


def test_storage_options_come_from_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, with_sections(tables={"root": "s3://bucket/shop"}))
    resource = ShopResource(home=str(tmp_path))
    assert resource.lake().storage_options is None
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_REGION", "eu-central-1")
    assert resource.lake().storage_options == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "eu-central-1",
    }
    assert resource.lake().uri("recommendations") == "s3://bucket/shop/recommendations"
