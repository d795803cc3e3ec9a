"""SVG charts: positions of points, labels and reference lines, and text alternatives."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from multitron_core.report.charts import LARGE, MARKERS, Series, bars, chart, swatch, viridis

SVG = "{http://www.w3.org/2000/svg}"


def drawn(series: list[Series], **options: object) -> ET.Element:
    text = chart(series, title="t", description="d", x_label="x", y_label="y", **options)  # type: ignore[arg-type]
    return ET.fromstring(text)


def test_chart_places_points_by_their_values() -> None:
    picture = drawn([Series("a", [0.0, 1.0, 2.0], [10.0, None, 30.0])], x_range=(0.0, 2.0), y_range=(10.0, 30.0))
    circles = list(picture.iter("circle"))
    assert len(circles) == 2, "a point whose y is None is not drawn"
    (x0, y0), (x1, y1) = [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in circles]
    assert x0 < x1 == pytest.approx(400 - 14)
    assert y0 == pytest.approx(300 - 46)
    assert y1 == pytest.approx(14)


def test_chart_has_a_text_alternative_and_tooltips() -> None:
    picture = drawn([Series("a", [0.0, 1.0], [1.0, 2.0], tooltips=["<first>", "second"])], size=LARGE)
    assert picture.get("role") == "img"
    assert [picture.find("title").text, picture.find("desc").text] == ["t", "d"]  # type: ignore[union-attr]
    assert "<first>" in [each.text for each in picture.iter("title")]


def test_chart_labels_do_not_overlap() -> None:
    crowd = Series("a", [0.5] * 3, [0.5, 0.501, 0.502], labels={0: "pi 0.50", 1: "pi 0.51", 2: "pi 0.52"})
    picture = drawn([crowd], x_range=(0.0, 1.0), y_range=(0.0, 1.0))
    labels = [each for each in picture.iter("text") if each.get("class") == "label"]
    places = [(each.get("x"), each.get("y")) for each in labels]
    assert 1 <= len(labels) == len(set(places))


def test_chart_labels_a_reference_line_within_the_axes() -> None:
    picture = drawn([Series("a", [0.0, 1.0], [1.0, 2.0])], reference_lines=[(5.0, "popularity")])
    (line,) = [each for each in picture.iter("line") if each.get("class") == "level"]
    assert 14 <= float(line.get("y1", "")) <= 254
    assert "popularity" in [each.text for each in picture.iter("text")]


def test_chart_draws_a_single_point() -> None:
    assert list(drawn([Series("a", [1.0], [0.0])]).iter("circle"))


@pytest.mark.parametrize("marker", [*MARKERS, "star"])
def test_swatch_has_a_line_and_every_marker(marker: str) -> None:
    series = Series("a", [0.0, 1.0], [0.0, 1.0], marker=marker, hollow=[True, False])
    drawn([series])
    line, *mark = ET.fromstring(swatch(series))
    assert line.tag == "path"
    assert len(mark) == 1


def test_bars_have_heights_proportional_to_values() -> None:
    picture = ET.fromstring(bars([("2", 0.5), ("3", 1.0)], title="t", description="d", x_label="x", y_label="y"))
    half, whole = [float(each.get("height", "")) for each in picture.iter("rect")]
    assert whole == pytest.approx(2 * half, abs=0.2)


def test_viridis_lightness_increases() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    shades = [lightness(viridis(i / 20)) for i in range(21)]
    assert shades == sorted(shades)
