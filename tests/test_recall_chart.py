"""The picture of how often each class is recognised: any number of classes, any name, every figure where it belongs."""

import io
from typing import Any

import pytest
from cards import NAMES
from PIL import Image

from tl_core.drawing import BACKGROUND
from tl_core.recall_chart import (
    INTERVAL,
    MOST_CLASSES,
    RECALL,
    RECALL_CHART,
    ROW,
    WIDTH,
    draw_recalls,
    recall_chart,
)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def a_row(label: str, recall: float, low: float = 0.0, high: float = 1.0, support: int = 20) -> dict[str, Any]:
    return {"label": label, "recall": recall, "recall_ci": [low, high], "support": support}


def a_report(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"metrics": {"per_class": list(rows)}}


def drawn(*rows: dict[str, Any]) -> Image.Image:
    return draw_recalls(list(enumerate(rows, 1)))


def dots(picture: Image.Image) -> list[tuple[int, int]]:
    """The middle of each dot, from above."""
    found = picture.load()
    places = [(x, y) for y in range(picture.height) for x in range(picture.width) if found[x, y] == rgb(RECALL)]
    rows: dict[int, list[tuple[int, int]]] = {}
    for x, y in places:
        rows.setdefault((y - places[0][1]) // ROW, []).append((x, y))
    return [tuple(round(sum(axis) / len(axis)) for axis in zip(*row, strict=True)) for row in rows.values()]


def test_the_worst_comes_first_and_every_dot_is_where_its_share_is() -> None:
    middles = dots(drawn(a_row("good", 1.0), a_row("bad", 0.25), a_row("half", 0.5)))
    assert [y - middles[0][1] for _, y in middles] == [0, ROW, 2 * ROW]
    assert [x - middles[0][0] for x, _ in middles] == pytest.approx([0, WIDTH // 4, 3 * WIDTH // 4], abs=1)


def test_a_bar_goes_from_one_end_of_the_interval_to_the_other() -> None:
    picture = drawn(a_row("a", 0.5, 0.25, 0.875))
    ((middle, y),) = dots(picture)
    row = [x for x in range(picture.width) if picture.getpixel((x, y + 4)) in (rgb(INTERVAL), rgb(RECALL))]
    assert (row[0] - middle, row[-1] - middle) == pytest.approx((-WIDTH // 4, 3 * WIDTH // 8), abs=1)


@pytest.mark.parametrize("classes", [1, MOST_CLASSES, 1000])
def test_of_many_classes_the_worst_are_drawn(classes: int) -> None:
    report = a_report(*(a_row(f"class {number}", number / classes) for number in range(classes)))
    written = recall_chart(report)[RECALL_CHART]
    picture = Image.open(io.BytesIO(written)).convert("RGB")
    assert len(dots(picture)) == min(classes, MOST_CLASSES) and len(written) < 300_000
    assert recall_chart(report)[RECALL_CHART] == written  # the same results give the same bytes
    assert picture.getpixel((0, 0)) == rgb(BACKGROUND)


def test_any_name_can_be_drawn() -> None:
    picture = drawn(*(a_row(name, 0.5) for name in NAMES[:MOST_CLASSES]))
    assert picture.width < 1500


WITHOUT_INTERVAL, WITHOUT_PICTURES = {"label": "a", "recall": 0.5, "support": 3}, a_row("a", 0, support=0)


@pytest.mark.parametrize(
    "report", [{}, {"metrics": None}, a_report(), a_report(WITHOUT_INTERVAL), a_report(WITHOUT_PICTURES)]
)
def test_without_intervals_nothing_is_drawn(report: dict[str, Any]) -> None:
    assert recall_chart(report) == {}
