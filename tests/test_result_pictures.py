"""The pictures of a run's results: readable from 2 to 200 classes, in any script, in any colour blindness."""

import io
import random
from typing import Any

import pytest
from PIL import Image

from tl_core.drawing import BACKGROUND, MARGIN, NAME_WIDTH, name_class
from tl_core.result_pictures import (
    CONFUSION_MATRIX,
    GRID,
    MOST_CELL,
    MOST_CLASSES,
    RIGHT,
    TRAINING_CURVES,
    choose_classes,
    draw_confusion_matrix,
    read_curves,
    result_pictures,
    shade,
)

# What a person without the long- or the medium-wave cones sees of linear red, green and blue (Viénot et al. 1999).
BLINDNESS = {
    "protanopia": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deuteranopia": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
}


def a_matrix(classes: int, per_class: int = 20) -> list[list[int]]:
    draw = random.Random(classes)
    matrix = [[0] * classes for _ in range(classes)]
    for row in range(classes):
        for _ in range(per_class):
            matrix[row][row if draw.random() < 0.8 else draw.randrange(classes)] += 1
    return matrix


def names(classes: int) -> list[str]:
    return [f"class {number}" for number in range(1, classes + 1)]


def pixels(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels have exactly this colour."""
    return next((count for count, found in picture.getcolors(1 << 24) or [] if found == colour), 0)


def opened(pictures: dict[str, bytes], path: str) -> Image.Image:
    picture = Image.open(io.BytesIO(pictures[path]))
    assert picture.format == "PNG"
    return picture.convert("RGB")


def seen(colour: tuple[int, ...], blindness: tuple[tuple[float, ...], ...]) -> list[float]:
    linear = [(part / 255) ** 2.2 for part in colour]
    return [
        255 * max(0.0, sum(weight * part for weight, part in zip(row, linear, strict=True))) ** (1 / 2.2)
        for row in blindness
    ]


@pytest.mark.parametrize("classes", [2, 6, 10, 50, 200])
def test_the_matrix_is_a_light_picture_of_bearable_size_for_any_number_of_classes(classes: int) -> None:
    report = {"metrics": {"labels": names(classes), "confusion_matrix": a_matrix(classes)}}
    pictures = result_pictures(report)
    assert list(pictures) == [CONFUSION_MATRIX]
    assert len(pictures[CONFUSION_MATRIX]) < 300_000
    picture = opened(pictures, CONFUSION_MATRIX)
    assert max(picture.size) <= GRID + NAME_WIDTH + 300
    assert picture.getpixel((0, 0)) == picture.getpixel((picture.width - 1, picture.height - 1)) == (255, 255, 255)
    assert BACKGROUND == "#ffffff"
    assert result_pictures(report) == pictures  # the same results give the same bytes


@pytest.mark.parametrize("classes", [2, 10, 60, 200])
def test_every_cell_is_there_in_its_colour(classes: int) -> None:
    everything_right = [[7 * (row == column) for column in range(classes)] for row in range(classes)]
    picture = draw_confusion_matrix(names(classes), everything_right)
    cell = min(MOST_CELL, GRID // classes)
    inside = (cell - 1) ** 2 if cell >= 10 else cell * cell * 0.7
    assert pixels(picture, RIGHT[1]) >= classes * inside * 0.9  # less the figures and lines in them


def test_one_mistake_in_a_thousand_is_seen() -> None:
    matrix = [[0] * 200 for _ in range(200)]
    for each in range(200):
        matrix[each][each] = 1000
    matrix[120][7] = 1
    colour = shade(1 / 1001, right=False)
    assert pixels(draw_confusion_matrix(names(200), matrix), colour) >= 20
    assert max(255 - part for part in colour) > 30


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_right_and_wrong_stay_apart_in_colour_blindness(blindness: str, share: float) -> None:
    right, wrong = (seen(shade(share, kind), BLINDNESS[blindness]) for kind in (True, False))
    assert sum((one - other) ** 2 for one, other in zip(right, wrong, strict=True)) ** 0.5 > 40


def test_darker_is_more() -> None:
    for right in (True, False):
        brightness = [sum(shade(share, right)) for share in (0.001, 0.01, 0.1, 0.5, 1.0)]
        assert brightness == sorted(brightness, reverse=True) and len(set(brightness)) == 5


def test_figures_stand_in_the_cells_only_where_there_is_room() -> None:
    """The second matrix has the shares of the first and other figures."""

    def differs(classes: int, factor: int) -> bool:
        matrix = a_matrix(classes)
        larger = [[factor * value for value in row] for row in matrix]
        first, second = (draw_confusion_matrix(names(classes), each) for each in (matrix, larger))
        under_the_title = (0, MARGIN + 40, first.width, first.height)  # which tells how many pictures
        return first.crop(under_the_title).tobytes() != second.crop(under_the_title).tobytes()

    assert differs(6, 3)
    assert not differs(50, 3)


@pytest.mark.parametrize("name", ["日本語", "🌱", "Löwe", "кот", "قط", "", "  ", "\u200d"])
def test_a_name_that_the_font_cannot_write_is_a_number(name: str) -> None:
    matrix = [[5, 1], [2, 4]]
    assert name_class(name, 2) == "#2"
    drawn, numbered = (draw_confusion_matrix(["cat", each], matrix).tobytes() for each in (name, "#2"))
    assert drawn == numbered


def test_a_name_that_it_can_write_is_written() -> None:
    for name in ("The quick brown fox, (%)…", "0123456789", "two\nlines"):
        assert name_class(name, 2) == name.replace("\n", " ")


@pytest.mark.parametrize("odd", ["two\nlines", "tab\there", "x" * 5000, "W" * 300, "i" * 300, "\x00", "<b>", "\udcff"])
def test_any_name_can_be_drawn_and_the_picture_stays_small(odd: str) -> None:
    picture = draw_confusion_matrix([odd, "dog"], [[3, 1], [1, 3]])
    assert picture.width <= 2 * MOST_CELL + 2 * NAME_WIDTH + 200


def test_long_names_that_begin_alike_are_told_apart() -> None:
    long = "a name of a class that goes on and on and on "
    one, other = name_class(long + "a", 7), name_class(long + "b", 8)
    assert one.endswith("… #7") and other.endswith("… #8") and one[:10] == other[:10] == "a name of "


def test_of_very_many_classes_those_confused_most_are_drawn() -> None:
    classes = MOST_CLASSES + 30
    matrix = [[5 * (row == column) for column in range(classes)] for row in range(classes)]
    matrix[3][229] = 4
    chosen = choose_classes(matrix, MOST_CLASSES)
    assert len(chosen) == MOST_CLASSES and {3, 229} <= set(chosen) and chosen == sorted(chosen)
    assert max(draw_confusion_matrix(names(classes), matrix).size) < 1600


def test_a_class_without_pictures_has_a_row_of_its_own_colour() -> None:
    picture = draw_confusion_matrix(["cat", "dog"], [[3, 1], [0, 0]])
    assert pixels(picture, (241, 241, 241)) > MOST_CELL * MOST_CELL


@pytest.mark.parametrize("report", [{}, {"metrics": None}, {"metrics": {"labels": [], "confusion_matrix": []}}])
def test_nothing_is_drawn_of_nothing(report: dict[str, Any]) -> None:
    assert result_pictures(report, [{"kind": "start"}]) == {}


EVENTS: list[dict[str, Any]] = [
    {"kind": "stage", "name": "training"},
    {"kind": "validation", "step": 0, "loss": 2.0, "accuracy": 0.3},
    {"kind": "training", "step": 50, "loss": 1.0},
    {"kind": "training", "step": 100, "loss": None},
    {"kind": "training", "step": 150, "loss": 9.0},
    {"kind": "stage", "name": "training"},
    {"kind": "training", "step": 100, "loss": 0.5},
    {"kind": "validation", "step": 120, "loss": 0.6, "accuracy": 0.8},
    {"kind": "stage", "name": "training the control"},
    {"kind": "training", "step": 50, "loss": 1.5},
]


def test_curves_are_read_as_they_were_gone_on_with() -> None:
    assert read_curves(EVENTS) == {
        "loss": {
            "validation": {0: 2.0, 120: 0.6},
            "training": {50: 1.0, 100: 0.5},
            "from random weights: training": {50: 1.5},
        },
        "accuracy": {"validation": {0: 0.3, 120: 0.8}},
    }


@pytest.mark.parametrize("kept", [None, 100, 10_000])
def test_a_training_has_curves(kept: int | None) -> None:
    pictures = result_pictures({"training": {"shipped_step": kept}}, EVENTS)
    assert list(pictures) == [TRAINING_CURVES]
    picture = opened(pictures, TRAINING_CURVES)
    assert picture.width > picture.height > 300
    assert pixels(picture, (11, 79, 138)) > 300  # the validation's line


@pytest.mark.parametrize(
    "events",
    [
        EVENTS[:3],
        [{"kind": "training", "step": 0, "loss": 0.0}],
        [{"kind": "validation", "step": 5, "loss": 1e30, "accuracy": 1.0}],
        [{"kind": "validation", "step": step, "loss": 1e-9, "accuracy": 0.0} for step in range(2000)],
    ],
)
def test_odd_curves_are_drawn_too(events: list[dict[str, Any]]) -> None:
    assert opened(result_pictures({}, events), TRAINING_CURVES).height > 300
