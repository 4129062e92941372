"""What the events of runs have told so far, read on from where one stopped: a look at a long run costs its new bytes.

A memory of this process and nothing more: whoever finds it empty reads the file from its beginning. Must not know what
the events mean.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core.runs import Run

# Of as many runs as people look at at once; a long run's events take some megabytes.
RUNS_REMEMBERED = 8


@dataclass(frozen=True)
class Reading:
    """All events up to a place in the file; another object, and `events` another list, once there are more."""

    events: list[dict[str, Any]]
    offset: int


_remembered: OrderedDict[Path, Reading] = OrderedDict()
_remembering = threading.Lock()


def read_on(run: Run) -> Reading:
    """The run's events so far."""
    with _remembering:
        before = _remembered.get(run.dir, Reading([], 0))
        if before.offset > events_size(run):  # another run's folder, made where this one's was
            before = Reading([], 0)
        new, offset = run.events_since(before.offset)
        reading = Reading([*before.events, *new], offset) if new else Reading(before.events, offset)
        _remembered[run.dir] = reading
        _remembered.move_to_end(run.dir)
        while len(_remembered) > RUNS_REMEMBERED:
            _remembered.popitem(last=False)
    return reading


def events_size(run: Run) -> int:
    """Bytes of events so far."""
    return size_of(run.dir / "events.jsonl")


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
