"""A run's results as pictures to publish beside its card: the confusion matrix, and the curves of its training.

Must not know the run, nor the card.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from tl_core.drawing import (
    BACKGROUND,
    GAP,
    INK,
    LARGE,
    LINES,
    MARGIN,
    NORMAL,
    QUIET,
    SMALL,
    as_png,
    font,
    name_class,
    width_of,
    write_upwards,
)

CONFUSION_MATRIX = "results/confusion-matrix.png"
TRAINING_CURVES = "results/training-curves.png"

# Of more classes those are drawn that are confused most: a cell has 6 pixels then, which an eye can find.
MOST_CLASSES = 200
GRID, MOST_CELL = 1200, 130  # pixels
CELL_WITH_FIGURE, CELL_WITH_NAME, CELL_WITH_LINES = 40, 16, 10
NUMBER_SPACING = 36  # pixels at least between two numbers beside cells that are too small for a name each

NO_PICTURES = "#f1f1f1"
# From few to all of a row. Blue and orange stay apart in every kind of colour blindness (Okabe & Ito 2008).
RIGHT, WRONG = ((222, 235, 247), (8, 69, 148)), ((254, 230, 206), (191, 66, 0))
PARTS = {
    "training": "#56b4e9",
    "validation": "#0b4f8a",
    "from random weights: training": "#e9a15b",
    "from random weights: validation": "#b34700",
}
_SHADES = (0.01, 0.1, 0.5, 1.0)
_LEGEND = (620, 2 * (SMALL + 3 * GAP))
_PANEL = (640, 420)
_FINE = 3  # lines are drawn so much larger and shrunk: Pillow's own are jagged
_MARKED = 60  # more points than this make a line of dots

Curves = dict[str, dict[str, dict[int, float]]]  # {"loss" or "accuracy": {part: {step: value}}}


def result_pictures(report: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> dict[str, bytes]:
    """{place in the repository: PNG} of what there is to draw; `events` are those of the run, oldest first."""
    metrics, pictures = report.get("metrics") or {}, {}
    labels, matrix = metrics.get("labels"), metrics.get("confusion_matrix")
    if labels and matrix:
        pictures[CONFUSION_MATRIX] = as_png(draw_confusion_matrix(labels, matrix))
    curves = read_curves(events)
    if curves:
        kept = (report.get("training") or {}).get("shipped_step")
        pictures[TRAINING_CURVES] = as_png(draw_curves(curves, kept))
    return pictures


def draw_confusion_matrix(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> Image.Image:
    """Rows are what a picture is, columns what the model took it for; the darker, the larger the share of its row.

    A class without room for its name, or whose name the font has not all letters of, goes by its number, from 1.
    """
    shown = choose_classes(matrix, MOST_CLASSES)
    cell = max(1, min(MOST_CELL, GRID // len(shown)))
    side = cell * len(shown)
    plate = _Plate.for_classes([labels[each] for each in shown], shown, cell)
    title = f"{sum(map(sum, matrix)):,} pictures judged, {len(labels):,} classes"
    if len(shown) < len(labels):
        title += f"; the {len(shown):,} that are confused most"
    left, top = MARGIN + NORMAL + GAP + plate.width + GAP, MARGIN + LARGE + 2 * GAP + NORMAL + GAP + plate.height + GAP
    width = max(left + side, MARGIN + width_of(title, LARGE), MARGIN + _LEGEND[0]) + MARGIN
    picture = Image.new("RGB", (width, top + side + _LEGEND[1] + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, INK, font(LARGE))
    draw.text((left, MARGIN + LARGE + 2 * GAP), f"taken for{plate.unit}", QUIET, font(NORMAL))
    said = f"picture of{plate.unit}"
    write_upwards(picture, said, (MARGIN, top + min(side, width_of(said, NORMAL))), QUIET, NORMAL)
    plate.write(picture, left, top)
    _draw_cells(draw, [[matrix[row][column] for column in shown] for row in shown], matrix, shown, (left, top), cell)
    _draw_legend(draw, MARGIN, top + side + 2 * GAP)
    return picture


def choose_classes(matrix: Sequence[Sequence[int]], limit: int) -> list[int]:
    """Places of the classes to show, in their order: all, or the `limit` with most mistakes in their row and column."""
    classes = range(len(matrix))
    if len(matrix) <= limit:
        return list(classes)
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    mistakes = [sum(matrix[each]) + columns[each] - 2 * matrix[each][each] for each in classes]
    return sorted(sorted(classes, key=lambda each: -mistakes[each])[:limit])


def shade(share: float, right: bool) -> tuple[int, int, int]:
    """The colour of a cell that holds this share (0 to 1] of its row. One mistake among many is still seen: the root
    of the share goes from light to dark."""
    light, dark = RIGHT if right else WRONG
    red, green, blue = (round(a + (b - a) * math.sqrt(share)) for a, b in zip(light, dark, strict=True))
    return red, green, blue


def read_curves(events: Iterable[Mapping[str, Any]]) -> Curves:
    """Loss and accuracy by step, of run and control; what a resumed run does again replaces what was lost."""
    curves: Curves = {}
    control = False
    for event in events:
        kind = event.get("kind")
        if kind == "stage":
            control = str(event.get("name", "")).endswith("the control")
        elif kind in ("training", "validation"):
            part = f"from random weights: {kind}" if control else str(kind)
            for figure in ("loss", "accuracy"):
                value = event.get(figure)
                if value is None or (figure, kind) == ("accuracy", "training"):
                    continue
                points = curves.setdefault(figure, {}).setdefault(part, {})
                for later in [step for step in points if step >= event["step"]]:
                    del points[later]
                points[event["step"]] = float(value)
    return curves


def draw_curves(curves: Curves, kept_step: int | None = None) -> Image.Image:
    """Loss and accuracy side by side, over optimiser steps; a line stands at the step whose weights were kept."""
    panels = [figure for figure in ("loss", "accuracy") if figure in curves]
    parts = [part for part in PARTS if any(part in curves[figure] for figure in panels)]
    left, top = MARGIN + 60, MARGIN + LARGE + 2 * GAP
    pitch = left + _PANEL[0]
    height = top + _PANEL[1] + 3 * GAP + 2 * NORMAL + (len(parts) + 1) // 2 * (NORMAL + GAP) + MARGIN
    picture = Image.new("RGB", (pitch * len(panels) + MARGIN, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    last = max(step for figure in panels for points in curves[figure].values() for step in points)
    for place, figure in enumerate(panels):
        draw.text((place * pitch + left, MARGIN), figure, INK, font(LARGE))
        _draw_panel(picture, (place * pitch + left, top), figure, curves[figure], max(1, last), kept_step)
    for place, part in enumerate(parts):
        x = left + place % 2 * 420
        y = top + _PANEL[1] + 3 * GAP + 2 * NORMAL + place // 2 * (NORMAL + GAP)
        draw.line([(x, y + NORMAL // 2), (x + 40, y + NORMAL // 2)], PARTS[part], 5)
        draw.text((x + 52, y), part, INK, font(NORMAL))
    return picture


# ---------------------------------------------------------------- the matrix


@dataclass(frozen=True)
class _Plate:
    """What stands beside the rows and above the columns."""

    names: list[str]  # one for each class; none where only numbers are written, now and then
    numbers: list[int]
    cell: int
    size: int
    width: int
    height: int
    upright: bool = False

    @classmethod
    def for_classes(cls, labels: Sequence[str], places: Sequence[int], cell: int) -> "_Plate":
        numbers = [place + 1 for place in places]
        if cell < CELL_WITH_NAME:
            return cls([], numbers, cell, SMALL, width_of(f"{max(numbers)}", SMALL), SMALL)
        size = min(NORMAL, cell - 2)
        names = [name_class(label, number, size) for label, number in zip(labels, numbers, strict=True)]
        widest = max(width_of(name, size) for name in names)
        upright = widest <= cell - 4
        return cls(names, numbers, cell, size, widest, size if upright else widest, upright)

    @property
    def unit(self) -> str:
        return "" if self.names else " class number"

    def write(self, picture: Image.Image, left: int, top: int) -> None:
        draw, cell, face = ImageDraw.Draw(picture), self.cell, font(self.size)
        if not self.names:
            step = next(n for n in (1, 2, 5, 10, 20, 25, 50, 100, 200) if n * cell >= NUMBER_SPACING)
            for place, number in enumerate(self.numbers):
                if place % step == step - 1 or place == 0:
                    middle = place * cell + cell // 2
                    draw.text((left - GAP // 2, top + middle), f"{number}", INK, face, anchor="rm")
                    draw.text((left + middle, top - GAP), f"{number}", INK, face, anchor="ms")
            return
        for place, name in enumerate(self.names):
            middle = place * cell + cell // 2
            draw.text((left - GAP // 2, top + middle), name, INK, face, anchor="rm")
            if self.upright:
                draw.text((left + middle, top - GAP), name, INK, face, anchor="ms")
            else:
                corner = (left + middle - (self.size + 4) // 2, top - GAP // 2)
                write_upwards(picture, name, corner, INK, self.size)


def _draw_cells(
    draw: ImageDraw.ImageDraw,
    figures: Sequence[Sequence[int]],
    matrix: Sequence[Sequence[int]],
    shown: Sequence[int],
    corner: tuple[int, int],
    cell: int,
) -> None:
    (left, top), end = corner, cell * len(shown)
    written = _figure_size(figures, cell)
    for row, values in enumerate(figures):
        total, y = sum(matrix[shown[row]]), top + row * cell
        if not total:
            draw.rectangle([left, y, left + end - 1, y + cell - 1], NO_PICTURES)
        for column, value in enumerate(values):
            if not value:
                continue
            x, colour = left + column * cell, shade(value / total, row == column)
            draw.rectangle([x, y, x + cell - 1, y + cell - 1], colour)
            if written:
                ink = BACKGROUND if _luminance(colour) < 0.3 else INK
                draw.text((x + cell // 2, y + cell // 2), f"{value:,}", ink, font(written), anchor="mm")
    every = 1 if cell >= CELL_WITH_LINES else 10
    for place in [*range(0, len(shown), every), len(shown)]:
        draw.line([(left + place * cell, top), (left + place * cell, top + end)], LINES)
        draw.line([(left, top + place * cell), (left + end, top + place * cell)], LINES)


def _figure_size(figures: Sequence[Sequence[int]], cell: int) -> int:
    """Pixels of the figures in the cells; 0 where they have no room."""
    longest = f"{max(map(max, figures)):,}"
    sizes = [size for size in (LARGE, NORMAL, SMALL) if width_of(longest, size) <= cell - 6]
    return sizes[0] if sizes and cell >= CELL_WITH_FIGURE else 0


def _draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
    for line, (words, right) in enumerate((("right", True), ("wrong", False))):
        y = top + line * (SMALL + 2 * GAP)
        draw.text((left, y), f"{words}, share of its row:", INK, font(SMALL))
        for place, share in enumerate(_SHADES):
            x = left + 220 + place * 100
            draw.rectangle([x, y, x + 28, y + SMALL + 2], shade(share, right), LINES)
            draw.text((x + 36, y), f"{share:.0%}", INK, font(SMALL))


# ---------------------------------------------------------------- the curves


def _draw_panel(
    picture: Image.Image,
    corner: tuple[int, int],
    figure: str,
    parts: Mapping[str, Mapping[int, float]],
    last: int,
    kept_step: int | None,
) -> None:
    values = [value for points in parts.values() for value in points.values()]
    low, high = (0.0, max(values) or 1.0) if figure == "loss" else (math.floor(min(values) * 10 - 0.01) / 10, 1.0)
    low = max(0.0, low)
    (width, height), (left, top) = _PANEL, corner
    fine = Image.new("RGB", (width * _FINE, height * _FINE), BACKGROUND)
    lines = ImageDraw.Draw(fine)

    def at(step: float, value: float) -> tuple[float, float]:
        across, up = step / last, (value - low) / (high - low)
        return (8 + across * (width - 16)) * _FINE, (height - 8 - up * (height - 16)) * _FINE

    marks = _marks(low, high)
    for value in marks:
        lines.line([(0, at(0, value)[1]), (width * _FINE, at(0, value)[1])], LINES, _FINE)
    if kept_step is not None and kept_step <= last:
        x = at(kept_step, low)[0]
        lines.line([(x, 0), (x, height * _FINE)], QUIET, _FINE)
    for part, colour in PARTS.items():
        points = [at(step, value) for step, value in sorted(parts.get(part, {}).items())]
        if not points:
            continue
        lines.line(points, colour, 3 * _FINE, joint="curve")
        if len(points) == 1 or (part.endswith("validation") and len(points) <= _MARKED):
            for x, y in points:
                lines.ellipse([x - 4 * _FINE, y - 4 * _FINE, x + 4 * _FINE, y + 4 * _FINE], colour)
    picture.paste(fine.resize(_PANEL, Image.Resampling.LANCZOS), corner)
    draw = ImageDraw.Draw(picture)
    for value in marks:
        said = f"{value:.0%}" if figure == "accuracy" else f"{value:g}"
        draw.text((left - GAP, top + at(0, value)[1] / _FINE), said, QUIET, font(SMALL), anchor="rm")
    for step in _marks(0, last):
        draw.text((left + at(step, low)[0] / _FINE, top + height + GAP // 2), f"{step:,.0f}", QUIET, font(SMALL), "mt")
    under = "step" if kept_step is None else f"step; the weights of step {kept_step:,} were kept"
    draw.text((left + width // 2, top + height + GAP + NORMAL), under, QUIET, font(SMALL), anchor="mt")


def _marks(low: float, high: float) -> list[float]:
    """Four to nine round numbers from `low` to `high`."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]


def _luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    red, green, blue = (c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
