"""Curves of a training as small data frames: what the plots of the page are drawn from.

Must not know how they are drawn.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from tl_core.ui.progress import is_control

# More points than a plot has pixels tell nothing and take long to draw.
MAX_POINTS = 500
# In this order they are drawn and listed. Told apart in light and in dark, and by who cannot tell red from green.
LOSS_COLOURS = {
    "training": "#4a9b74",
    "validation": "#d98a1f",
    "control, training": "#8aa0bd",
    "control, validation": "#4f6fb0",
}
ACCURACY_COLOURS = {"validation": "#d98a1f", "control": "#4f6fb0"}
CURVE_KINDS = frozenset({"training", "validation"})
_Point = tuple[int, float, str]


def loss_curve(events: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Columns step, loss, part: the training and the validation loss at each step that told of one."""
    rows = [
        (event["step"], event["loss"], f"control, {event['kind']}" if control else event["kind"])
        for event, control in _figures(events)
        if event.get("loss") is not None
    ]
    return _frame(rows, ("step", "loss", "part"), LOSS_COLOURS)


def accuracy_curve(events: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Columns step, accuracy, part: the share of validation images that were right at each look."""
    rows = [
        (event["step"], event["accuracy"], "control" if control else "validation")
        for event, control in _figures(events)
        if event["kind"] == "validation" and event.get("accuracy") is not None
    ]
    return _frame(rows, ("step", "accuracy", "part"), ACCURACY_COLOURS)


def _figures(events: Iterable[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], bool]]:
    """(event, whether it is the control's) for each that has figures."""
    control = False
    for event in events:
        if event["kind"] == "stage":
            control = is_control(event)
        elif event["kind"] in CURVE_KINDS:
            yield event, control


def _frame(rows: Sequence[_Point], columns: tuple[str, str, str], parts: Iterable[str]) -> pd.DataFrame:
    kept: list[_Point] = []
    for part in parts:
        kept += _thinned(_in_order([row for row in rows if row[2] == part]))
    return pd.DataFrame(kept, columns=list(columns))


def _in_order(points: Iterable[_Point]) -> list[_Point]:
    """One point for each step: what a resumed run does again, from its last checkpoint, replaces what was lost."""
    kept: list[_Point] = []
    for point in points:
        while kept and kept[-1][0] >= point[0]:
            kept.pop()
        kept.append(point)
    return kept


def _thinned(points: Sequence[_Point]) -> list[_Point]:
    """At most MAX_POINTS, evenly taken, the last one kept."""
    every = max(1, -(-len(points) // MAX_POINTS))
    return list(points[::-1][::every][::-1])
