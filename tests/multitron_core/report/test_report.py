"""Model report: measurements, escaping, and a self-contained file."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.front.evaluation import evaluate_points
from multitron_core.model.folder import load_model
from multitron_core.report import measure, page, write_report
from multitron_core.report.__main__ import main
from multitron_core.report.contents import example_preferences
from multitron_core.report.measurements import ablation, examples, ranks_of, steps_of
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training.config import training_config
from multitron_core.training.presets import named
from multitron_core.training.trainer import train

ITEMS = 60
HOSTILE = '<script>alert("&")</script>'
SMALL = {"epochs": 2, "batch_sessions": 32, "uniform_negatives": 64, "in_batch_negatives": 4, "kept_negatives": 20}


def shop_sessions(sessions: int, seed: int, vocabulary: Vocabulary) -> EncodedSessions:
    """Sessions of consecutive items; every fifth session orders its last item."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 9, sessions)
    items = np.concatenate([(random.integers(ITEMS) + np.arange(n)) % ITEMS + 1 for n in lengths]).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ordered = np.zeros(len(items), bool)
    ordered[offsets[1:][::5] - 1] = True
    ids = pl.Series([f"{HOSTILE} {i}" for i in range(sessions)])
    return EncodedSessions(ids, offsets, items, ordered, vocabulary.hash)


@pytest.fixture(scope="module")
def prepared() -> PreparedSessions:
    vocabulary = Vocabulary(pl.Series([f"{HOSTILE} item {i}" for i in range(ITEMS)]))
    train_part, test = shop_sessions(400, 1, vocabulary), shop_sessions(80, 2, vocabulary)
    counts = {"sessions": 400, "clicks": len(train_part.items), "orders": 80}
    statistics = {
        "train": counts,
        "test": counts,
        "items": ITEMS,
        "in": {},
        "dropped": {f"{HOSTILE} rare": 3},
        "split": f"{HOSTILE} split",
    }
    return PreparedSessions(train_part, test, vocabulary, statistics)


@pytest.fixture(scope="module")
def folder(prepared: PreparedSessions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    preset = named("demo", model={"dimension": 16}, training=SMALL | {"validation_share": 0.02})
    preset = dataclasses.replace(preset, name=f"{HOSTILE} preset")
    return train(prepared, preset, tmp_path_factory.mktemp("models") / "model", progress=False)


@pytest.fixture(scope="module")
def written(prepared: PreparedSessions, folder: Path) -> str:
    return write_report(folder, prepared).read_text()


class Page(HTMLParser):
    """Collects open tags, link targets, ids, tag names and the text of an HTML page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.add(tag)
        self.links |= {found["href"] or ""} if "href" in found else set()
        self.ids |= {found["id"] or ""} if "id" in found else set()
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_write_report_makes_a_self_contained_file(written: str) -> None:
    assert not re.search(r"https?://|src=|url\(|@import", written), "no reference to an external resource"
    found = Page(written)
    assert found.open == []
    assert "script" not in found.tags
    assert found.links == {f"#{name}" for name in found.ids}
    assert '<meta name="viewport"' in written
    assert '<html lang="en">' in written


def test_write_report_gives_charts_text_alternatives(written: str) -> None:
    pictures = re.findall(r'<svg class="chart".*?</svg>', written)
    assert len(pictures) >= 1 + 4 + 4 + 3 + 1
    for picture in pictures:
        assert re.match(
            r'<svg class="chart" viewBox="[^"]+" role="img"><title>[^<]+</title><desc>[^<]+</desc>', picture
        )


def test_write_report_escapes_text_from_the_shop(written: str) -> None:
    found = Page(written)
    assert "script" not in found.tags
    for shown in ("preset", "item", "rare", "split"):
        assert f"{HOSTILE} {shown}" in found.text, shown
    assert f"Session {HOSTILE} " in found.text


def test_page_shows_the_measured_values(written: str, folder: Path, prepared: PreparedSessions) -> None:
    contents = measure(folder, prepared)
    assert page(contents) == written, "a second measurement gives the same page"
    for value in (contents.point.pi_key, str(contents.volume.raw), str(contents.volume.normalised)):
        assert value in written
    for reference in contents.volume.reference:
        assert f"{reference:.4g}" in written
    assert (
        contents.baselines["baseline"].to_list() == pl.read_parquet(folder / "baselines.parquet")["baseline"].to_list()
    )
    assert all(name in written for name in contents.baselines["baseline"])
    assert contents.front.height == 26


def test_page_explains_missing_values(folder: Path, prepared: PreparedSessions) -> None:
    contents = measure(folder, prepared)
    no_value = pl.lit(None, pl.Float64)
    front = contents.front.with_columns(
        order_recall_20=no_value, order_density=no_value, ranks_trained=pl.col("pi_order") < 1.0
    )
    published = dataclasses.replace(prepared, statistics=prepared.statistics | {"split": None})
    config = {name: value for name, value in contents.config.items() if name not in ("epoch", "preset")}
    text = Page(page(dataclasses.replace(contents, front=front, prepared=published, config=config))).text
    assert "order recall@20: no orders in the test sessions" in text
    assert "At pi = 1, the order loss does not train the ranks" in text
    assert "Train and test follow the published split." in text
    assert "Preset unknown" in text
    assert "The weights are from epoch" not in text


def test_example_preferences_are_both_ends_and_the_chosen() -> None:
    ranking, binary = (pl.DataFrame({"ranks_trained": [True, last]}) for last in (True, False))
    assert example_preferences("0.47", ranking) == ("0.00", "0.47", "1.00")
    assert example_preferences("1.00", ranking) == ("0.00", "0.50", "1.00")
    assert example_preferences("0.98", binary) == ("0.00", "0.50", "0.95")


def test_ablation_without_change_equals_the_front(folder: Path, prepared: PreparedSessions) -> None:
    model = load_model(folder)
    steps = steps_of(prepared.test, model.config.max_length)
    front = evaluate_points(model, prepared.test, [0.5], config=training_config(folder))
    table = ablation(model, prepared.test, "0.50")
    first = table.row(0, named=True)
    assert len(steps.targets) == front["steps"][0]
    for metric in ("click_recall_20", "order_recall_20", "order_density", "last_click_recall_20"):
        assert first[metric] == pytest.approx(front[metric][0]), metric
    assert first["change"] == 0.0
    assert table.height == 6


def test_steps_of_truncates_long_sessions(prepared: PreparedSessions) -> None:
    steps = steps_of(prepared.test, 3)
    assert max(map(len, steps.prefixes)) == 3
    lengths = prepared.test.lengths
    assert len(steps.targets) == np.minimum(lengths - 1, 3).sum()


def test_ablation_without_the_last_click_lowers_mrr(folder: Path, prepared: PreparedSessions) -> None:
    """The next item follows the last click, so removing that click must lower the MRR."""
    model = load_model(folder)
    table = ablation(model, prepared.test, "0.50")
    mrr = dict(table.select("input", "click_mrr_20").iter_rows())
    assert mrr["all but the last click"] < mrr["all clicks"]


def test_examples_are_test_sessions_with_exact_lists(folder: Path, prepared: PreparedSessions) -> None:
    model = load_model(folder)
    found = examples(model, prepared.test, prepared.vocabulary, ("0.00", "0.50"), shown=4, k=5)
    frame = prepared.test.to_frame()
    assert [each.ordered for each in found] == [True, True, False, False]
    for each in found:
        items = prepared.vocabulary.decode(frame.filter(session_id=each.session_id)["items"].item()).to_list()
        assert [*each.clicks, each.next_item] == items
        indices = prepared.vocabulary.encode(pl.Series(items)).to_numpy()
        rank = ranks_of(model, [indices[:-1]], indices[-1:].astype(np.int64), "0.00")[0]
        assert (each.next_item in each.lists["0.00"]) == (rank <= 5)
        if rank <= 5:
            assert each.lists["0.00"][rank - 1] == each.next_item


def test_write_report_rejects_another_vocabulary(folder: Path, prepared: PreparedSessions) -> None:
    other = Vocabulary(pl.Series([f"other {i}" for i in range(ITEMS)]))
    with pytest.raises(InputError, match="another vocabulary"):
        write_report(folder, PreparedSessions(prepared.train, prepared.test, other, prepared.statistics))


def test_main_writes_a_report_or_prints_an_error(
    folder: Path, prepared: PreparedSessions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared.save(tmp_path / "sessions")
    out = tmp_path / "there" / "report.html"
    arguments = ["--model", str(folder), "--sessions", str(tmp_path / "sessions"), "--out", str(out)]
    assert main([*arguments, "--objective", "click_recall_20"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert "the best click recall@20 among" in out.read_text()
    assert main([*arguments, "--objective", "nonsense"]) == 2
    assert "no such column" in capsys.readouterr().err
