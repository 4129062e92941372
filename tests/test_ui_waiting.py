"""What a person who waits is told: how far it is, and once the pace is known how long it will take."""

from types import SimpleNamespace
from typing import Any

import pytest

from tl_core.ui import waiting
from tl_core.ui.waiting import tick_into

SENDING = "sending the model, bytes"


class Bar:
    """A progress bar that remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Any, str]] = []

    def __call__(self, progress: Any, desc: str) -> None:
        self.shown.append((progress, desc))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, which passes as a test says."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def shown(clock: SimpleNamespace, *ticks: tuple[float, str, int, int], in_bytes: bool = False) -> list[tuple[Any, str]]:
    """The bar after ticks (seconds since the one before, title, done, total)."""
    bar = Bar()
    tick = tick_into(bar, in_bytes=in_bytes)  # type: ignore[arg-type]  # all that it does with a gr.Progress
    for seconds, *told in ticks:
        clock.seconds += seconds
        tick(*told)
    return bar.shown


def test_bytes_are_spelled_out_and_the_bar_is_a_share_of_them(clock: SimpleNamespace) -> None:
    ticks = [(0.0, SENDING, 0, 44_000_000), (1.0, SENDING, 900, 44_000_000), (1.0, SENDING, 44_000_000, 44_000_000)]
    assert shown(clock, *ticks, in_bytes=True) == [
        (0.0, "sending the model: 0 bytes of 44.0 MB"),
        (900 / 44_000_000, "sending the model: 900 bytes of 44.0 MB"),
        (1.0, "sending the model: 44.0 MB of 44.0 MB"),
    ]


def test_the_time_left_is_told_once_the_pace_is_known_and_not_at_the_end(clock: SimpleNamespace) -> None:
    ticks = [(0.0, SENDING, 0, 4000), (1.9, SENDING, 500, 4000), (8.1, SENDING, 1000, 4000), (9.0, SENDING, 4000, 4000)]
    assert [words.partition(" of 4.0 kB")[2] for _, words in shown(clock, *ticks, in_bytes=True)] == [
        *("", "", ", about 30 s left", "")
    ]


def test_what_had_arrived_before_is_no_part_of_the_pace(clock: SimpleNamespace) -> None:
    ticks = [(0.0, SENDING, 3000, 5000), (10.0, SENDING, 4000, 5000)]
    assert shown(clock, *ticks, in_bytes=True)[-1] == (0.8, "sending the model: 4.0 kB of 5.0 kB, about 10 s left")


def test_another_piece_of_work_has_a_pace_of_its_own(clock: SimpleNamespace) -> None:
    demo = "sending the space, bytes"
    ticks = [(0.0, SENDING, 0, 100), (50.0, SENDING, 50, 100), (0.0, demo, 0, 100), (4.0, demo, 50, 100)]
    assert [words for _, words in shown(clock, *ticks, in_bytes=True)][1:] == [
        "sending the model: 50 bytes of 100 bytes, about 50 s left",
        "sending the space: 0 bytes of 100 bytes",
        "sending the space: 50 bytes of 100 bytes, about 4 s left",
    ]


def test_what_is_no_bytes_is_counted_and_what_has_no_end_is_named(clock: SimpleNamespace) -> None:
    ticks = [(0.0, "reading", 1, 8), (5.0, "reading", 2, 8), (0.0, "waiting", 0, 0)]
    assert shown(clock, *ticks) == [((1, 8), "reading"), ((2, 8), "reading, about 30 s left"), (None, "waiting")]
