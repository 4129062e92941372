"""What a run's worker writes line by line while others read: events.jsonl and log.txt, read from where it matters.

Must not know what a run is.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# What is read for the end of a log: some hundred lines, in a millisecond however long the log is.
TAIL_BYTES = 64 * 1024


def read_events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The events after the first `offset` bytes, and the offset to ask with next time; only what is new is read.

    A line that a kill cut off, be it within a character, is left out; one without its end is for the next time.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            whole, newline, _ = stream.read().rpartition(b"\n")
    except FileNotFoundError:
        return [], offset
    events = []
    for line in whole.split(b"\n"):
        with suppress(ValueError):
            events.append(json.loads(line.decode()))
    return events, offset + len(whole) + len(newline)


def spans_of(events: Iterable[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """(stage, seconds) from each event to the next one of the same process."""
    stage, before = "", None
    for event in events:
        if before is not None and event["kind"] != "start":
            yield stage, max(0.0, event["time"] - before)  # a clock may be set back
        if event["kind"] in ("stage", "start", "end"):
            stage = event.get("name", "")
        before = event["time"]


def read_tail(path: Path, lines: int) -> str:
    """The last lines of a log, of its last TAIL_BYTES: only these are read. "" where there is none yet."""
    try:
        with path.open("rb") as stream:
            begin = stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    found = text.removesuffix("\n").split("\n")
    if begin and len(found) > 1:
        found = found[1:]  # it begins within a line
    return "\n".join(found[max(0, len(found) - lines) :])
