"""Progress on a terminal that may go away."""

import sys

import pytest

from tl_core.terminal import Progress


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
