"""Runs side by side: what may be concluded from their figures, what not, and how it is shown."""

import copy
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from page import HOSTILE, NAMES, Elements, by_id, handlers_of, with_mistakes

from tl_core.files import read_json, write_json
from tl_core.runs import Run
from tl_core.ui.comparison import Entry, cautions, compare, conclusions, draw_intervals, make_entry
from tl_core.ui.panels import compare as compare_panel


@pytest.fixture
def handlers() -> dict[str, Callable[..., dict[Any, Any]]]:
    return handlers_of(compare_panel)


def entries_of(run: Run) -> tuple[Entry, Entry]:
    """The run and one like it that was never right about the hostile class."""
    entry = make_entry(run)
    assert entry is not None
    worse = with_mistakes(entry.report)
    right = sum(row["label"] == row["predicted"] for row in worse["predictions"])
    worse["metrics"]["accuracy"] = right / len(worse["predictions"])
    return entry, Entry("worse", worse, entry.tested)


def test_runs_on_the_same_pictures_are_compared_picture_by_picture(run: Run) -> None:
    better, worse = entries_of(run)
    (told,) = conclusions([worse, better])
    points = 100 * (better.accuracy - worse.accuracy)
    assert f"{better.name} is {points:.1f} points better than worse" in told and "95 % interval" in told
    assert cautions([worse, better]) == []
    assert "equally often" in conclusions([better, Entry("twin", better.report, better.tested)])[0]


def test_runs_on_other_pictures_cannot_be_compared_and_that_is_said(run: Run) -> None:
    better, worse = entries_of(run)
    for tested in (frozenset({"another picture"}), None):
        other = Entry("elsewhere", worse.report, tested)
        assert conclusions([better, other]) == []
        (said,) = cautions([better, other])
        assert "cannot be compared" in said and "elsewhere" in said


def test_a_difference_that_chance_can_explain_is_called_so(run: Run) -> None:
    better, _ = entries_of(run)
    slightly = copy.deepcopy(better.report)
    row = next(row for row in slightly["predictions"] if row["label"] == row["predicted"])
    row["predicted"] = next(name for name in NAMES if name != row["label"])
    slightly["metrics"]["accuracy"] -= 1 / len(slightly["predictions"])
    assert "may be chance" in conclusions([better, Entry("slightly", slightly, better.tested)])[0]


def test_intervals_and_figures_stand_side_by_side(run: Run) -> None:
    better, worse = entries_of(run)
    named = Entry(HOSTILE, worse.report, worse.tested)
    page = Elements(compare([better, named]))
    assert HOSTILE in page.words and not page.all("img")
    low, high = better.interval
    assert f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%" in draw_intervals([better])
    assert better.report["strategy"] in page.words and better.report["backbone"]["id"] in page.words


def test_two_runs_of_ones_own_are_offered_and_kept_when_chosen(run: Run, handlers: dict[str, Any]) -> None:
    for number in (2, 3):
        shutil.copytree(run.dir, run.dir.with_name(f"{run.id}-{number}"))
        path = run.dir.with_name(f"{run.id}-{number}") / "owner.json"
        owner = read_json(path)
        assert owner is not None
        write_json(path, {**owner, "created_ns": owner["created_ns"] + number})
    offered = by_id(handlers["compare.offer"](None, ""))["compare-runs"]
    assert offered.value == [f"{run.id}-3", f"{run.id}-2"]
    kept = by_id(handlers["compare.offer"]([run.id, "gone"], ""))["compare-runs"]
    assert kept.value == [run.id]
    shown = by_id(handlers["compare.show"]([run.id, f"{run.id}-2"], ""))["compare-table"]
    assert "equally often" in Elements(shown).words
    assert "Choose two or more" in by_id(handlers["compare.show"]([run.id], ""))["compare-table"]
    assert "too many" in by_id(handlers["compare.show"]([run.id] * 13, ""))["notice"]
