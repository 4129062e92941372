"""How often each class is recognised, as a picture to publish beside a card: recall with its interval, worst first.

Must not know the run, nor the card.
"""

from collections.abc import Mapping, Sequence
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
)

RECALL_CHART = "results/recall-by-class.png"

# Of more classes the worst are drawn: a picture that is much higher than a screen shows nothing at a glance.
MOST_CLASSES = 50
WIDTH, ROW = 800, 34  # pixels of the scale, and of a class
BAR, DOT = 8, 7  # pixels: how thick an interval is, and half of how wide its dot
INTERVAL, RECALL = "#9ecae1", "#084594"
_MARKS = range(0, 101, 20)  # percent


def recall_chart(report: Mapping[str, Any]) -> dict[str, bytes]:
    """{place in the repository: PNG}; nothing where the report has no class with an interval."""
    rows = (report.get("metrics") or {}).get("per_class") or []
    judged = [(number, row) for number, row in enumerate(rows, 1) if row.get("support") and row.get("recall_ci")]
    return {RECALL_CHART: as_png(draw_recalls(judged))} if judged else {}


def draw_recalls(judged: Sequence[tuple[int, Mapping[str, Any]]]) -> Image.Image:
    """A line for each (number, {label, recall, recall_ci, support}): a dot at its recall on a bar from one end of the
    interval to the other, and how many of its pictures that are. Shares are from 0 to 1."""
    shown = sorted(judged, key=lambda each: each[1]["recall"])[:MOST_CLASSES]
    names = [name_class(row["label"], number) for number, row in shown]
    counts = [f"{round(row['recall'] * row['support']):,} of {row['support']:,}" for _, row in shown]
    title = f"Recall of {len(judged):,} classes, worst first"
    if len(shown) < len(judged):
        title += f"; the worst {len(shown):,}"
    left, top = MARGIN + max(width_of(name, NORMAL) for name in names) + 2 * GAP, MARGIN + LARGE + 3 * GAP
    right, bottom = left + WIDTH, top + ROW * len(shown)
    ends = right + 2 * GAP + max(width_of(count, SMALL) for count in counts), MARGIN + width_of(title, LARGE)
    picture = Image.new("RGB", (max(ends) + MARGIN, bottom + SMALL + 2 * GAP + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, INK, font(LARGE))
    for mark in _MARKS:
        x = place(mark / 100, left)
        draw.line([(x, top), (x, bottom)], LINES)
        draw.text((x, bottom + GAP), f"{mark} %", QUIET, font(SMALL), anchor="mt")
    for number, ((_, row), name, count) in enumerate(zip(shown, names, counts, strict=True)):
        y = top + ROW * number + ROW // 2
        low, high = (place(end, left) for end in row["recall_ci"])
        x = place(row["recall"], left)
        draw.rectangle([low, y - BAR // 2, high, y + BAR // 2], INTERVAL)
        draw.ellipse([x - DOT, y - DOT, x + DOT, y + DOT], RECALL)
        draw.text((left - 2 * GAP, y), name, INK, font(NORMAL), anchor="rm")
        draw.text((right + 2 * GAP, y), count, QUIET, font(SMALL), anchor="lm")
    return picture


def place(share: float, left: int) -> int:
    """Where a share is on a scale that begins at `left`."""
    return left + round(WIDTH * share)
