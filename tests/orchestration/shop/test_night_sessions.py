from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multitron_core.errors import UnavailableError
from orchestration.shop.deployed import live_vocabulary
from orchestration.shop.home import Shop, load_shop
from orchestration.shop.night_sessions import MADE_FROM, night_sessions, prepared_sessions, save_night_sessions
from serving.item_scorer import one_click_sessions
from tests.orchestration.conftest import DAYS, ITEMS, copied_shop

DAY = DAYS[0]


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[Shop]:
    with copied_shop(deployed_home, tmp_path / "shop") as copy:
        yield load_shop(copy.home)


def test_night_sessions_requires_their_preparation(shop: Shop) -> None:
    with pytest.raises(UnavailableError, match=f"materialize `scoring_sessions` of {DAY}"):
        night_sessions(shop, DAY)
    saved = one_click_sessions(live_vocabulary(shop))
    assert save_night_sessions(shop, DAY, saved, events="abc") == shop.scoring_sessions(DAY)
    assert night_sessions(shop, DAY).to_frame().equals(saved.to_frame())


def test_prepared_sessions_are_those_of_the_same_events(shop: Shop) -> None:
    assert prepared_sessions(shop, DAY, "abc") is None
    save_night_sessions(shop, DAY, one_click_sessions(live_vocabulary(shop)), events="abc")
    assert prepared_sessions(shop, DAY, "abc") == ITEMS
    assert prepared_sessions(shop, DAY, "of late events too") is None
    assert prepared_sessions(shop, DAY, None) is None


@pytest.mark.parametrize("text", ['{"events": "abc", "vocabulary_hash": "of another model", "sessions": 1}', "{", "{}"])
def test_prepared_sessions_is_none_for_another_record(shop: Shop, text: str) -> None:
    save_night_sessions(shop, DAY, one_click_sessions(live_vocabulary(shop)), events="abc")
    (shop.scoring_sessions(DAY) / MADE_FROM).write_text(text)
    assert prepared_sessions(shop, DAY, "abc") is None
