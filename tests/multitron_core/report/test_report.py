"""The report of a model: what it measures is right, and the file stands alone."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.errors import InputError
from multitron_core.front import evaluate_points
from multitron_core.model import load_model
from multitron_core.model_folder import training_config
from multitron_core.preset import named
from multitron_core.report import measure, page, write_report
from multitron_core.report.__main__ import main
from multitron_core.report.contents import shown_preferences
from multitron_core.report.measurements import ablation, examples, ranks_of, steps_of
from multitron_core.sessions import PreparedSessions
from multitron_core.training import train
from multitron_core.vocabulary import Vocabulary

ITEMS = 60
HOSTILE = '<script>alert("&")</script>'
SMALL = {"epochs": 2, "batch_sessions": 32, "uniform_negatives": 64, "in_batch_negatives": 4, "kept_negatives": 20}


def shop_sessions(sessions: int, seed: int, vocabulary: Vocabulary) -> EncodedSessions:
    """Walks over neighbouring items; every fifth session orders its last item."""
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
    """Tags that are open, names that are linked to, names that are there, and the text between the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: set[str] = set()
        self.names: set[str] = set()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.add(tag)
        self.links |= {found["href"] or ""} if "href" in found else set()
        self.names |= {found["id"] or ""} if "id" in found else set()
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_file_stands_alone(written: str) -> None:
    assert not re.search(r"https?://|src=|url\(|@import", written), "it must ask nobody for anything"
    found = Page()
    found.feed(written)
    assert found.open == []
    assert "script" not in found.tags
    assert found.links == {f"#{name}" for name in found.names}
    assert '<meta name="viewport"' in written
    assert '<html lang="en">' in written


def test_every_picture_has_words(written: str) -> None:
    pictures = re.findall(r'<svg class="chart".*?</svg>', written)
    assert len(pictures) >= 1 + 4 + 4 + 3 + 1
    for picture in pictures:
        assert re.match(
            r'<svg class="chart" viewBox="[^"]+" role="img"><title>[^<]+</title><desc>[^<]+</desc>', picture
        )


def test_write_report_escapes_text_from_the_shop(written: str) -> None:
    found = Page()
    found.feed(written)
    assert "script" not in found.tags
    for shown in ("preset", "item", "rare", "split"):
        assert f"{HOSTILE} {shown}" in found.text, shown
    assert f"Session {HOSTILE} " in found.text


def test_it_shows_what_was_measured(written: str, folder: Path, prepared: PreparedSessions) -> None:
    contents = measure(folder, prepared)
    assert page(contents) == written, "measured twice, it says the same"
    for value in (contents.point.pi_key, str(contents.volume.raw), str(contents.volume.normalised)):
        assert value in written
    for reference in contents.volume.reference:
        assert f"{reference:.4g}" in written
    assert (
        contents.baselines["baseline"].to_list() == pl.read_parquet(folder / "baselines.parquet")["baseline"].to_list()
    )
    assert all(name in written for name in contents.baselines["baseline"])
    assert contents.front.height == 26


def test_the_lists_are_of_both_ends_and_of_the_chosen_preference() -> None:
    ranking, binary = (pl.DataFrame({"ranks_trained": [True, last]}) for last in (True, False))
    assert shown_preferences("0.47", ranking) == ("0.00", "0.47", "1.00")
    assert shown_preferences("1.00", ranking) == ("0.00", "0.50", "1.00")
    assert shown_preferences("0.98", binary) == ("0.00", "0.50", "0.95")


def test_ranks_behind_prefixes_are_those_of_the_front(folder: Path, prepared: PreparedSessions) -> None:
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


def test_long_sessions_are_cut_as_the_front_cuts_them(prepared: PreparedSessions) -> None:
    steps = steps_of(prepared.test, 3)
    assert max(map(len, steps.prefixes)) == 3
    lengths = prepared.test.lengths
    assert len(steps.targets) == np.minimum(lengths - 1, 3).sum()


def test_what_is_kept_from_the_model_changes_its_ranks(folder: Path, prepared: PreparedSessions) -> None:
    """Items follow each other: the last click says everything, without it the next item is further away."""
    model = load_model(folder)
    table = ablation(model, prepared.test, "0.50")
    recall = dict(table.select("told", "click_mrr_20").iter_rows())
    assert recall["everything but the last click"] < recall["all clicks so far"]


def test_examples_are_sessions_of_the_test_set(folder: Path, prepared: PreparedSessions) -> None:
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


def test_another_vocabulary_is_refused(folder: Path, prepared: PreparedSessions) -> None:
    other = Vocabulary(pl.Series([f"other {i}" for i in range(ITEMS)]))
    with pytest.raises(InputError, match="another vocabulary"):
        write_report(folder, PreparedSessions(prepared.train, prepared.test, other, prepared.statistics))


def test_the_command(
    folder: Path, prepared: PreparedSessions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared.save(tmp_path / "sessions")
    out = tmp_path / "there" / "report.html"
    arguments = ["--model", str(folder), "--sessions", str(tmp_path / "sessions"), "--out", str(out)]
    assert main([*arguments, "--objective", "click_recall_20"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert "the best click recall@20" in out.read_text()
    assert main([*arguments, "--objective", "nonsense"]) == 1
    assert "no such column" in capsys.readouterr().err
