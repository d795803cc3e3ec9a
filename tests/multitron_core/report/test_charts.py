"""Charts: what is drawn is where it should be, and says what it is without colour."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from multitron_core.report.charts import LARGE, MARKERS, Series, bars, chart, swatch, viridis

SVG = "{http://www.w3.org/2000/svg}"


def drawn(series: list[Series], **options: object) -> ET.Element:
    text = chart(series, title="t", description="d", x_label="x", y_label="y", **options)  # type: ignore[arg-type]
    return ET.fromstring(text)


def test_points_lie_where_their_values_say() -> None:
    picture = drawn([Series("a", [0.0, 1.0, 2.0], [10.0, None, 30.0])], x_range=(0.0, 2.0), y_range=(10.0, 30.0))
    circles = list(picture.iter("circle"))
    assert len(circles) == 2, "a point without a value is left out"
    (x0, y0), (x1, y1) = [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in circles]
    assert x0 < x1 == pytest.approx(400 - 14)
    assert y0 == pytest.approx(300 - 46)
    assert y1 == pytest.approx(14)


def test_it_says_what_it_is() -> None:
    picture = drawn([Series("a", [0.0, 1.0], [1.0, 2.0], hints=["<first>", "second"])], size=LARGE)
    assert picture.get("role") == "img"
    assert [picture.find("title").text, picture.find("desc").text] == ["t", "d"]  # type: ignore[union-attr]
    assert "<first>" in [each.text for each in picture.iter("title")]


def test_labels_do_not_cover_points_or_each_other() -> None:
    crowd = Series("a", [0.5] * 3, [0.5, 0.501, 0.502], labels={0: "pi 0.50", 1: "pi 0.51", 2: "pi 0.52"})
    picture = drawn([crowd], x_range=(0.0, 1.0), y_range=(0.0, 1.0))
    labels = [each for each in picture.iter("text") if each.get("class") == "label"]
    places = [(each.get("x"), each.get("y")) for each in labels]
    assert 1 <= len(labels) == len(set(places))


def test_a_level_is_named_and_always_in_the_picture() -> None:
    picture = drawn([Series("a", [0.0, 1.0], [1.0, 2.0])], levels=[(5.0, "popularity")])
    (line,) = [each for each in picture.iter("line") if each.get("class") == "level"]
    assert 14 <= float(line.get("y1", "")) <= 254
    assert "popularity" in [each.text for each in picture.iter("text")]


def test_one_value_has_a_range() -> None:
    assert list(drawn([Series("a", [1.0], [0.0])]).iter("circle"))


@pytest.mark.parametrize("marker", [*MARKERS, "star"])
def test_every_marker_can_be_drawn_and_explained(marker: str) -> None:
    series = Series("a", [0.0, 1.0], [0.0, 1.0], marker=marker, hollow=[True, False])
    drawn([series])
    line, *mark = ET.fromstring(swatch(series))
    assert line.tag == "path"
    assert len(mark) == 1


def test_bars_stand_on_zero() -> None:
    picture = ET.fromstring(bars([("2", 0.5), ("3", 1.0)], title="t", description="d", x_label="x", y_label="y"))
    half, whole = [float(each.get("height", "")) for each in picture.iter("rect")]
    assert whole == pytest.approx(2 * half, abs=0.2)


def test_viridis_grows_lighter() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    shades = [lightness(viridis(i / 20)) for i in range(21)]
    assert shades == sorted(shades)
