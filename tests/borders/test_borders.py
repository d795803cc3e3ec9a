"""Input from outside is either accepted as a valid value or refused with an InputError.

The values are generated. `make borders` runs every property so often that there are at least 10,000 cases in total.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.errors import InputError
from multitron_core.events.raw_source import RawSource
from multitron_core.events.read import read_events
from multitron_core.lake.lake import Lake
from multitron_core.lake.replace_where import checked_date, predicate
from multitron_core.preference.keys import pi_grid, pi_key, pi_vector
from multitron_core.utils.redaction import redacted, without_credentials
from orchestration.automation.alerts import WEBHOOK_VARIABLE, webhook
from orchestration.automation.rerun_commands import rerun_command
from orchestration.runtime.partitions import night_of
from orchestration.shop import models
from orchestration.shop.home import URL_VARIABLE, Shop, load_shop
from orchestration.shop.settings import Settings, demo_settings

PROPERTIES = 16
CASES = int(os.environ.get("MULTITRON_BORDER_CASES", "0"))
"""Total number of cases; 0 for a few cases per property."""

often = settings(max_examples=max(1, -(-CASES // PROPERTIES)) if CASES else 12)
TEXT = st.text(max_size=60)
NASTY = st.one_of(
    TEXT,
    st.sampled_from(
        [
            "' OR 1=1 --",
            "0.50'; DROP",
            "../../etc",
            "a/b",
            "0.5",
            "00.50",
            "1.01",
            "NaN",
            "2026-02-30",
            "\x00",
            "$(id)",
            "",
        ]
    ),
)


def as_variable(text: str) -> str:
    """The text without the characters that an environment variable cannot contain."""
    return text.replace("\x00", "").encode("utf-8", "ignore").decode()


ANYTHING = st.one_of(
    NASTY, st.floats(), st.integers(), st.none(), st.booleans(), st.dates(), st.datetimes(), st.binary(max_size=8)
)


@often
@given(st.one_of(NASTY, st.floats(), st.integers(-3, 3)))
def test_pi_key_is_valid_or_refused(value: str | float) -> None:
    try:
        key = pi_key(value)
    except InputError:
        return
    assert re.fullmatch(r"0\.\d\d|1\.00", key)
    click, order = pi_vector(key)
    assert round(click + order, 10) == 1.0


@often
@given(st.lists(st.one_of(NASTY, st.floats(0, 1).map(lambda value: round(value, 2))), max_size=6))
def test_pi_grid_is_sorted_or_refused(values: list[str | float]) -> None:
    try:
        grid = pi_grid(values)
    except InputError:
        return
    assert list(grid) == sorted(set(grid)) != []


@often
@given(ANYTHING)
def test_checked_date_is_a_date_or_refused(value: Any) -> None:
    try:
        day = checked_date(value)
    except InputError:
        return
    assert type(day) is dt.date


@often
@given(st.dictionaries(NASTY, st.one_of(NASTY, st.dates()), max_size=3))
def test_predicate_is_a_conjunction_or_refused(key: dict[str, str | dt.date]) -> None:
    try:
        sql = predicate(key)
    except InputError:
        return
    if sql is not None:
        each = r"[a-z]\w* = '[\w.:+-]+'"
        assert re.fullmatch(rf"{each}( AND {each})*", sql, re.ASCII)


@often
@given(NASTY)
def test_lake_uri_is_in_the_lake_or_refused(name: str) -> None:
    try:
        uri = Lake("/lake").uri(name)
    except InputError:
        return
    assert Path(uri).parent == Path("/lake")


@often
@given(st.one_of(NASTY, st.tuples(NASTY, NASTY).map("|".join)))
def test_night_of_refuses_plain_text(key: str) -> None:
    try:
        night_of(key)
    except InputError:
        return
    raise AssertionError("plain text was accepted as the key of a night")


@often
@given(NASTY, NASTY)
def test_night_of_two_parts_is_valid_or_refused(day: str, pi: str) -> None:
    key = dg.MultiPartitionKey({"date": day, "pi": pi})
    try:
        found, preference = night_of(key)
    except InputError:
        return
    assert (type(found), pi_key(preference)) == (dt.date, preference)


@often
@given(st.binary(max_size=200))
def test_load_shop_refuses_random_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "shop.toml").write_bytes(content)
        with pytest.raises(InputError):
            load_shop(folder)


SECTIONS = sorted(Settings.model_fields)
VALUES = st.recursive(
    st.one_of(NASTY, st.floats(), st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)


@often
@given(st.sampled_from(SECTIONS), st.data())
def test_settings_are_valid_or_refused(section: str, data: st.DataObject) -> None:
    base = demo_settings().model_dump()
    names = sorted(base[section]) if isinstance(base[section], dict) and base[section] else ["x"]
    changed = {**base, section: {**base[section], data.draw(st.sampled_from([*names, "unknown"])): data.draw(VALUES)}}
    try:
        read = Settings.model_validate(changed)
    except ValueError:  # the base of pydantic's ValidationError and of InputError
        return
    assert all(re.fullmatch(r"0\.\d\d|1\.00", pi) for pi in read.preferences)
    assert read.night.begins_hours < read.night.deadline_hours


@often
@given(st.one_of(NASTY, st.from_regex(r"[a-z.]{1,9}:[0-9]{1,6}", fullmatch=True)).map(as_variable))
def test_triton_urls_are_addresses_or_refused(address: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(URL_VARIABLE, address)
        try:
            urls = Shop(home=Path("/shop"), settings=demo_settings()).triton_urls
        except InputError:
            return
    assert all(re.fullmatch(r"[A-Za-z0-9.\[\]:-]+:\d{1,5}", url) for url in urls)


@often
@given(st.one_of(NASTY, TEXT.map("http://".__add__), TEXT.map("https://".__add__)).map(as_variable))
def test_webhook_is_an_http_url_or_refused(address: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WEBHOOK_VARIABLE, address)
        try:
            url = webhook()
        except InputError:
            return
    assert url is None or url.startswith(("https://", "http://", "HTTP"))


@often
@given(TEXT, st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=6, max_size=40), TEXT)
def test_redacted_text_contains_no_secret(before: str, secret: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", secret)
        assert secret not in redacted(f"{before}{secret}{after}").replace("***", "\x01")
        with pytest.raises(InputError):
            without_credentials(f"s3://user:{'x' * 8}@bucket/{after}")


@often
@given(NASTY, st.one_of(st.none(), NASTY))
def test_rerun_command_is_quoted_for_the_shell(home: str, partition: str | None) -> None:
    shop = Shop(home=Path("/") / home.replace("\x00", ""), settings=demo_settings())
    words = shlex.split(rerun_command(shop, "scoring", partition))
    assert words[0] == f"MULTITRON_HOME={shop.home}"
    assert words[-1] == (partition if partition else words[-1])
    assert len(words) == (11 if partition else 9)


@often
@given(NASTY)
def test_newest_model_is_in_its_folder_or_refused(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(home=Path(folder), settings=demo_settings())
        shop.models.mkdir()
        (shop.models / "newest.json").write_text(json.dumps({"folder": name}))
        try:
            found = models.newest(shop)
        except InputError:
            return
        assert found.parent == shop.models
        assert found.name not in ("", ".", "..")


@often
@given(NASTY, st.dates())
def test_day_pattern_is_below_path_or_refused(pattern: str, day: dt.date) -> None:
    try:
        source = RawSource("/raw", "table", files=pattern)
        found = source.day_pattern(day)
    except InputError:
        return
    assert found.startswith("/raw/")


FILES = {
    "diginetica": ("train-item-views.csv", "sessionId;userId;itemId;timeframe;eventdate\n"),
    "yoochoose": ("yoochoose-clicks.dat", ""),
    "otto": ("sessions.jsonl", ""),
    "table": ("events.csv", "session_id,item_id,ts,event_type\n"),
}
FIELDS = st.one_of(
    st.sampled_from(
        ["1", "7", "NA", "2016-05-26", "2014-04-07T10:51:09.277Z", "click", "order", "a b", '"', "{}", "0", "-1"]
    ),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12),
)


@often
@given(st.sampled_from(sorted(FILES)), st.lists(st.lists(FIELDS, max_size=6), min_size=1, max_size=6))
def test_read_events_of_any_lines(format: str, rows: list[list[str]]) -> None:
    """Every line becomes an event or a reject with its number."""
    name, header = FILES[format]
    separator = {"diginetica": ";", "otto": " "}.get(format, ",")
    lines = [separator.join(row).replace("\x00", "") for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
        try:
            log = read_events(Path(folder), format, orders_required=False)
            events, rejects = pl.collect_all([log.events, log.rejects])
        except InputError:
            return
    written = 1 + len(lines) if header else len(lines)
    for frame in (events, rejects):
        assert frame.filter(~pl.col("line").is_between(0, written)).is_empty()
    assert rejects.filter(pl.col("reason").fill_null("") == "").is_empty()
    assert not any(events[name].null_count() for name in ("session_id", "item_id", "ts"))
