"""The worker's side of a run folder: it alone writes status, events and log while it works.

Must not know what the work is.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tl_core.files import json_text, write_json
from tl_core.runs import Run, StoredState


class LogStream(Protocol):
    """What log lines can be echoed to: a text stream, or something that looks like one."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class StopRequested(Exception):
    """The person asked this run to stop; raised between two steps of its work, where nothing is lost."""


@dataclass
class Recorder:
    """The worker's pen: status, events and log of one run. One per process, while it holds the run.

    `echo` also receives every log line (the terminal of a run in the foreground); `writes_log` is off where the
    process's own output already goes to log.txt. `ticker` hears (stage, step, total) at every step.
    """

    run: Run
    echo: LogStream | None = None
    writes_log: bool = True
    ticker: Callable[[str, int, int], None] | None = None
    _status: dict[str, Any] = field(default_factory=dict, init=False)
    _last_write: float = field(default=0.0, init=False)

    STATUS_INTERVAL = 0.5  # seconds between status files while only numbers change

    def start(self) -> None:
        """Say that this process works on the run now; a request to stop is forgotten if it was for an earlier one."""
        self.run.claim(os.getpid())
        self._status = {"state": "running", "stage": "starting", "step": 0, "total": 0, "started": time.time()}
        self._write_status()
        self.event("start")

    def stage(self, name: str, total: int = 0) -> None:
        """Begin a stage, named in words a person understands; `total` is its number of steps, 0 if unknown."""
        self._status |= {"stage": name, "step": 0, "total": total}
        self._write_status()
        self.event("stage", name=name, total=total)
        self.say(name)

    def progress(self, step: int, total: int) -> None:
        self._status |= {"step": step, "total": total}
        if self.ticker is not None:
            self.ticker(str(self._status["stage"]), step, total)
        if step == total or time.monotonic() - self._last_write >= self.STATUS_INTERVAL:
            self._write_status()

    def advance(self, step: int, total: int) -> None:
        """`progress` for work that may be left at any step. Raises StopRequested."""
        self.progress(step, total)
        if self.run.stop_requested():
            raise StopRequested

    def event(self, kind: str, **values: Any) -> None:
        """A line in events.jsonl; a figure that is no finite number (the loss of a diverged training) is null."""
        known = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        line = json_text({"time": round(time.time(), 3), "kind": kind, **known}) + "\n"
        with (self.run.dir / "events.jsonl").open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # a kill or a full disk cut the line before
                    line = "\n" + line
            stream.write(line.encode())

    def say(self, line: str, *, echoed: bool = True) -> None:
        """A line for the log, in plain words."""
        if self.writes_log:
            with self.run.log_path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(line + "\n")
        if self.echo is not None and echoed:
            print(line, file=self.echo, flush=True)

    def note(self, text: str) -> None:
        """Something decided on the person's behalf, or worth knowing: in the log and the events."""
        self.event("note", text=text)
        self.say(text)

    def reach(self, state: StoredState, **values: Any) -> None:
        """The run has come to its end, whatever becomes of what is still done; `finish` says the same after that."""
        self._status |= {"reached": state, **values}
        self._write_status()

    def finish(self, state: StoredState, **values: Any) -> None:
        """The last word on this run: its end, with `metrics` or `error` as values."""
        self._status |= {"state": state, "stage": state, **values}
        self._write_status()
        self.event("end", state=state)

    def _write_status(self) -> None:
        self._last_write = time.monotonic()
        write_json(self.run.dir / "status.json", self._status | {"updated": time.time()})
