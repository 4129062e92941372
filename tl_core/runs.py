"""The run folder: one training run as files, and the only channel between a worker and whoever watches it.

    <home>/runs/<id>/  config.json  owner.json  process.json  status.json  stop  events.jsonl  log.txt  lock
                       checkpoints/  model/  report.json  published.json

Each file has one writer and is replaced atomically (`events.jsonl` and `log.txt` only grow). The worker stores a state:
running, succeeded, stopped or failed; the reader derives the others from what it finds (`derive_state`).
This module must not know what training is: no torch, no starting of processes.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import filelock
import psutil

from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.settings import Settings

StoredState = Literal["running", "succeeded", "stopped", "failed"]
State = Literal["queued", "starting", "running", "stopping", "lost", "succeeded", "stopped", "failed"]
LIVE_STATES = frozenset({"starting", "running", "stopping"})
RESUMABLE_STATES = frozenset({"queued", "lost", "stopped", "failed"})

# A process's start time is read from the system's clock ticks; two readings of the same process differ by less.
_START_TIME_TOLERANCE = 2.0
# Long enough for a finishing worker to let go, short enough not to be felt.
_LOCK_PATIENCE = 1.0


def derive_state(stored: StoredState | None, started: bool, alive: bool, stop_requested: bool) -> State:
    """The state of a run, from its stored state and what the reader sees of its process.

    | stored   | process                     | state                                    |
    | -------- | --------------------------- | ---------------------------------------- |
    | none     | never started               | queued                                   |
    | none     | alive                       | starting                                 |
    | none     | gone                        | lost                                     |
    | running  | alive                       | running, or stopping if that was asked   |
    | running  | gone                        | lost                                     |
    | an end   | whatever                    | that end                                 |
    """
    if stored is not None and stored != "running":
        return stored
    if stored is None and not started:
        return "queued"
    if not alive:
        return "lost"
    if stored is None:
        return "starting"
    return "stopping" if stop_requested else "running"


@dataclass(frozen=True)
class RunView:
    """What a reader sees of a run at one moment."""

    run_id: str
    state: State
    stage: str
    step: int
    total: int
    name: str | None
    created: float  # seconds since the epoch
    updated: float
    message: str
    details: tuple[str, ...]
    metrics: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "details": list(self.details)}


@dataclass(frozen=True)
class Run:
    """A run folder. Making this value reads and writes nothing."""

    dir: Path

    @property
    def id(self) -> str:
        return self.dir.name

    @property
    def log_path(self) -> Path:
        return self.dir / "log.txt"

    @property
    def checkpoints_dir(self) -> Path:
        return self.dir / "checkpoints"

    @property
    def model_dir(self) -> Path:
        return self.dir / "model"

    @property
    def report_path(self) -> Path:
        return self.dir / "report.json"

    def config(self) -> TrainConfig:
        """Raises JobError when config.json is missing or broken, ConfigError when its options are not valid."""
        values = read_json(self.dir / "config.json")
        if values is None:
            raise JobError(f"run {self.id} has no readable config.json; it cannot be continued, start it again")
        return TrainConfig.parse(values)

    def report(self) -> dict[str, Any] | None:
        return read_json(self.report_path)

    def events(self) -> list[dict[str, Any]]:
        """All events so far; a line that a kill cut off is left out."""
        try:
            lines = (self.dir / "events.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        events = []
        for line in lines:
            with suppress(ValueError):
                events.append(json.loads(line))
        return events

    def seconds_in(self, stage: str) -> float:
        """Seconds spent in a stage, over all processes that worked on the run, each up to its last event."""
        seconds, begun = 0.0, None
        for event in self.events():
            if begun is not None and event["kind"] != "start":
                seconds += event["time"] - begun
            if event["kind"] in ("stage", "end", "start"):
                begun = event["time"] if event.get("name") == stage else None
            elif begun is not None:
                begun = event["time"]
        return seconds

    def request_stop(self) -> None:
        write_atomically(self.dir / "stop", "")

    def stop_requested(self) -> bool:
        return (self.dir / "stop").exists()

    def is_alive(self) -> bool:
        """Whether the process that process.json names still runs (a reused process id does not count)."""
        process = read_json(self.dir / "process.json")
        return process is not None and _process_lives(int(process["pid"]), float(process["started"]))

    def view(self) -> RunView:
        status = read_json(self.dir / "status.json") or {}
        config = read_json(self.dir / "config.json") or {}
        created = (self.dir / "config.json").stat().st_mtime if config else self.dir.stat().st_mtime
        error = status.get("error") or {}
        return RunView(
            run_id=self.id,
            state=derive_state(
                status.get("state"), (self.dir / "process.json").exists(), self.is_alive(), self.stop_requested()
            ),
            stage=status.get("stage", ""),
            step=status.get("step", 0),
            total=status.get("total", 0),
            name=config.get("name"),
            created=created,
            updated=status.get("updated", created),
            message=error.get("message", ""),
            details=tuple(error.get("details", ())),
            metrics=status.get("metrics"),
        )

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one process that works on this run. Raises JobError when another one does."""
        lock = filelock.FileLock(self.dir / "lock")
        try:
            lock.acquire(timeout=_LOCK_PATIENCE)
        except filelock.Timeout:
            raise JobError(
                f"run {self.id} is already being worked on; watch it with `runs`, or end it with `stop {self.id}`"
            ) from None
        try:
            yield
        finally:
            lock.release()


def create_run(config: TrainConfig, settings: Settings) -> Run:
    """Make a new run folder with its configuration. Raises JobError when the home folder cannot take it."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    stem = f"{stamp}-{_slug(config.name or _data_name(config.data) + '-' + config.strategy)}"
    with writing_to_home(settings):
        settings.runs_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.runs_dir).free
        if free < settings.min_free_bytes:
            raise JobError(
                f"{settings.home} has {free / 1e6:,.0f} MB of free space and a run needs "
                f"{settings.min_free_bytes / 1e6:,.0f} MB; free some, or set TL_HOME to another disk"
            )
        for number in range(1000):
            run = Run(settings.runs_dir / (stem if number == 0 else f"{stem}-{number + 1}"))
            try:
                run.dir.mkdir()
            except FileExistsError:
                continue
            break
        else:
            raise JobError(f"there are already 1,000 runs named {stem}; give another --name")
        try:
            write_json(run.dir / "config.json", config.to_json())
            write_json(run.dir / "owner.json", {"owner": "local"})
        except OSError:
            shutil.rmtree(run.dir, ignore_errors=True)
            raise
    return run


def list_runs(settings: Settings) -> list[Run]:
    """All runs, oldest first."""
    if not settings.runs_dir.is_dir():
        return []
    folders = [folder for folder in settings.runs_dir.iterdir() if (folder / "config.json").is_file()]
    return [Run(folder) for folder in sorted(folders, key=lambda folder: folder.name)]


def find_run(text: str, settings: Settings) -> Run:
    """The run meant by an id, a unique prefix of one, a run folder, or `last`. Raises JobError otherwise."""
    if (Path(text) / "config.json").is_file() and (Path(text) / "owner.json").is_file():
        return Run(Path(text).resolve())
    runs = list_runs(settings)
    if not runs:
        raise JobError(f"there is no run {text!r}: no run was made yet in {settings.home}; start one with `train`")
    if text == "last":
        return runs[-1]
    matches = [run for run in runs if run.id == text] or [run for run in runs if text and run.id.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise JobError(f"{text!r} could mean {len(matches)} runs; give more of the id", [run.id for run in matches])
    raise JobError(f"there is no run {text!r}; the newest are listed here", [run.id for run in runs[-5:]])


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
        """Say that this process works on the run now; an old request to stop is forgotten."""
        process = psutil.Process()
        write_json(self.run.dir / "process.json", {"pid": process.pid, "started": process.create_time()})
        (self.run.dir / "stop").unlink(missing_ok=True)
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
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **values}, ensure_ascii=False)
        with (self.run.dir / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def say(self, line: str) -> None:
        """A line for the log, in plain words."""
        if self.writes_log:
            with self.run.log_path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        if self.echo is not None:
            print(line, file=self.echo, flush=True)

    def note(self, text: str) -> None:
        """Something decided on the person's behalf, or worth knowing: in the log and the events."""
        self.event("note", text=text)
        self.say(text)

    def finish(self, state: StoredState, **values: Any) -> None:
        """The last word on this run: its end, with `metrics` or `error` as values."""
        self._status |= {"state": state, "stage": state, **values}
        self._write_status()
        self.event("end", state=state)

    def _write_status(self) -> None:
        self._last_write = time.monotonic()
        write_json(self.run.dir / "status.json", self._status | {"updated": time.time()})


@contextmanager
def writing_to_home(settings: Settings) -> Iterator[None]:
    """Turn the system's refusal to write under the home folder into a JobError."""
    try:
        yield
    except OSError as failure:
        raise JobError(
            f"cannot write to {settings.home}: {failure.strerror or failure}; "
            "free some space or set TL_HOME to a folder that can be written"
        ) from failure


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new text, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none or it cannot be read as one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _process_lives(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < _START_TIME_TOLERANCE and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _data_name(data: str) -> str:
    return data.removeprefix("sample:") if data.startswith("sample:") else Path(data).stem


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "run"
