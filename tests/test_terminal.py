"""Progress on a terminal, which may be a file, or go away."""

import io
import sys
from types import SimpleNamespace

import pytest

from tl_core import terminal
from tl_core.terminal import BAR_INTERVAL, LINE_INTERVAL, Progress

SENDING = "sending the model, bytes"


class GonePipe:
    """A pipe whose reader has read enough, as `| head` does."""

    def __init__(self) -> None:
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return False


def test_a_reader_that_goes_away_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = GonePipe()
    monkeypatch.setattr(sys, "stderr", pipe)
    monkeypatch.setattr("tl_core.terminal.LINE_INTERVAL", 0.0)
    with Progress() as progress:
        for step in range(5):
            progress.show("training", step, 5)
            print("a line of the log", file=progress, flush=True)
    assert pipe.tried == 1


class Screen(io.StringIO):
    """What somebody looks at, or a file."""

    def __init__(self, live: bool) -> None:
        super().__init__()
        self.live = live

    def isatty(self) -> bool:
        return self.live


def printed(monkeypatch: pytest.MonkeyPatch, live: bool, *ticks: tuple[float, str, int, int]) -> str:
    """What a line says of ticks (seconds since the one before, title, done, total), and that it then goes away."""
    now, screen = SimpleNamespace(seconds=50.0), Screen(live)
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress() as progress:
        for seconds, *told in ticks:
            now.seconds += seconds
            progress.show(*told)
    return screen.getvalue()


def test_bytes_are_counted_on_one_line_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [
        (0.0, SENDING, 0, 44_000_000),
        (10.0, SENDING, 11_000_000, 44_000_000),
        (30.0, SENDING, *2 * (44_000_000,)),
    ]
    first = f"{SENDING} 11,000,000/44,000,000, 30 s left"
    last = f"{SENDING} 44,000,000/44,000,000, 0 s left"
    text = printed(monkeypatch, True, *ticks)
    assert text == f"\r{first}\r{last.ljust(len(first))}\r{' ' * len(last)}\r"


def test_bytes_that_had_arrived_before_are_no_part_of_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [(0.0, SENDING, 3000, 5000), (10.0, SENDING, 4000, 5000)]
    assert f"{SENDING} 4,000/5,000, 10 s left" in printed(monkeypatch, True, *ticks)


def test_what_is_over_in_a_moment_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for live, interval in ((True, BAR_INTERVAL), (False, LINE_INTERVAL)):
        ticks = [(0.0, SENDING, 0, 5000), (interval / 2, SENDING, 5000, 5000)]
        assert printed(monkeypatch, live, *ticks) == ""


def test_a_log_gets_whole_lines_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [(0.0, SENDING, 0, 5000), *((LINE_INTERVAL / 4, SENDING, 500 * tick, 5000) for tick in range(1, 9))]
    lines = printed(monkeypatch, False, *ticks).splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [f"{SENDING} 2,000/5,000", f"{SENDING} 4,000/5,000"]
