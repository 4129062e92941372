"""The run folder: one training run as files, and the only channel between a worker and whoever watches it.

    <home>/runs/<id>/  config.json  owner.json  parts.json  process.json  status.json  stop  events.jsonl  log.txt
                       lock  checkpoints/  model/  report.json  published.json

Files are replaced atomically (`events.jsonl` and `log.txt` only grow), by one writer at a time: whoever holds `lock`.
Only `stop` may be written by anyone. The worker stores a state: running, succeeded, stopped or failed; the reader
derives the others from what it finds (`derive_state`).
This module must not know what training is: no torch, no starting of processes.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import filelock
import psutil

from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.files import UNFINISHED, existing_path, read_json, write_json, writing_to_home
from tl_core.settings import Settings

StoredState = Literal["running", "succeeded", "stopped", "failed"]
State = Literal["queued", "starting", "running", "stopping", "lost", "succeeded", "stopped", "failed"]
LIVE_STATES = frozenset({"starting", "running", "stopping"})
RESUMABLE_STATES = frozenset({"queued", "lost", "stopped", "failed"})

# A process's start time is read from the system's clock ticks; two readings of the same process differ by less.
_START_TIME_TOLERANCE = 2.0
# Long enough for a finishing worker to let go, short enough not to be felt.
_LOCK_PATIENCE = 1.0
# Forked data loaders may keep the lock of a killed worker until they miss it, which torch lets them check every 5 s.
_ORPHANS_PATIENCE = 10.0


def derive_state(stored: StoredState | None, started: bool, alive: bool, stop_requested: bool) -> State:
    """The state of a run, from its stored state and what the reader sees of its process.

    | stored   | process                     | state                                    |
    | -------- | --------------------------- | ---------------------------------------- |
    | none     | never started               | queued                                   |
    | none     | alive                       | starting, or stopping if that was asked  |
    | none     | gone                        | lost                                     |
    | running  | alive                       | running, or stopping if that was asked   |
    | running  | gone                        | lost                                     |
    | an end   | whatever                    | that end                                 |

    A process is "started" from the moment it is named (`Run.claim`), by the one that launched it or, in the
    foreground, by itself. That also takes away what an earlier process stored: a run that is resumed is starting, not
    stopped, and a request to stop counts from then on.
    """
    if stored is not None and stored != "running":
        return stored
    if stored is None and not started:
        return "queued"
    if not alive:
        return "lost"
    if stop_requested:
        return "stopping"
    return "starting" if stored is None else "running"


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
        """All events so far; a line that a kill cut off, be it within a character, is left out."""
        try:
            lines = (self.dir / "events.jsonl").read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        events = []
        for line in lines:
            with suppress(ValueError):
                events.append(json.loads(line.decode()))
        return events

    def seconds_in(self, stage: str) -> float:
        """Seconds spent in a stage, over all processes that worked on the run, each up to its last event."""
        return sum(seconds for name, seconds in self._spans() if name == stage)

    def seconds_worked(self) -> float:
        """Seconds that processes worked on the run, each from its start to its last event so far."""
        return sum(seconds for _, seconds in self._spans())

    def _spans(self) -> Iterator[tuple[str, float]]:
        """(stage, seconds) from each event to the next one of the same process."""
        stage, before = "", None
        for event in self.events():
            if before is not None and event["kind"] != "start":
                yield stage, max(0.0, event["time"] - before)  # a clock may be set back
            if event["kind"] in ("stage", "start", "end"):
                stage = event.get("name", "")
            before = event["time"]

    def request_stop(self) -> None:
        (self.dir / "stop").touch()

    def stop_requested(self) -> bool:
        return (self.dir / "stop").exists()

    def is_alive(self) -> bool:
        """Whether the process that process.json names still runs (a reused process id does not count)."""
        process = read_json(self.dir / "process.json")
        return process is not None and _process_lives(int(process["pid"]), float(process["started"]))

    def claim(self, pid: int) -> None:
        """Say which process works on this run from now on. Only for who holds the run.

        What an earlier process stored, left half-written or was asked is forgotten. Nothing happens where that process
        is named already and has stored nothing: its launcher claimed for it, and a request to stop since then stands.
        """
        status, named = self.dir / "status.json", read_json(self.dir / "process.json")
        if named is not None and named["pid"] == pid and self.is_alive() and not status.exists():
            return
        for left in (self.dir / "stop", status, *self.dir.glob(f".*{UNFINISHED}")):
            left.unlink(missing_ok=True)
        write_json(self.dir / "process.json", {"pid": pid, "started": psutil.Process(pid).create_time()})

    def created_ns(self) -> int:
        """When the run was made, in nanoseconds since the epoch."""
        stamp = (read_json(self.dir / "owner.json") or {}).get("created_ns")
        return stamp if isinstance(stamp, int) else self.dir.stat().st_mtime_ns

    def view(self) -> RunView:
        status = read_json(self.dir / "status.json") or {}
        config = read_json(self.dir / "config.json") or {}
        created = self.created_ns() / 1e9
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
        orphaned = (self.dir / "process.json").exists() and not self.is_alive()
        lock = filelock.FileLock(self.dir / "lock")
        try:
            lock.acquire(timeout=_ORPHANS_PATIENCE if orphaned else _LOCK_PATIENCE)
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
            write_json(run.dir / "owner.json", {"owner": "local", "created_ns": time.time_ns()})
            write_json(run.dir / "config.json", config.to_json())  # last: with it the folder is a run
        except OSError:
            shutil.rmtree(run.dir, ignore_errors=True)
            raise
    return run


def list_runs(settings: Settings) -> list[Run]:
    """All runs, oldest first by the time they were made."""
    if not settings.runs_dir.is_dir():
        return []
    runs = [Run(folder) for folder in settings.runs_dir.iterdir() if (folder / "config.json").is_file()]
    return sorted(runs, key=lambda run: (run.created_ns(), run.id))


def find_run(text: str, settings: Settings) -> Run:
    """The run meant by an id, a unique prefix of one, a run folder, or `last`. Raises JobError otherwise."""
    folder = existing_path(text)
    if folder is not None and (folder / "config.json").is_file() and (folder / "owner.json").is_file():
        return Run(folder.resolve())
    runs = list_runs(settings)
    if not runs:
        raise JobError(f"there is no run {text!r}: no run was made yet in {settings.home}; start one with `train`")
    if text == "last":
        return runs[-1]
    named = [run for run in runs if text and (read_json(run.dir / "config.json") or {}).get("name") == text]
    matches = (
        [run for run in runs if run.id == text] or named or [run for run in runs if text and run.id.startswith(text)]
    )
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise JobError(f"{text!r} could mean {len(matches)} runs; give more of the id", [run.id for run in matches])
    raise JobError(f"there is no run {text!r}; the newest are listed here", [run.id for run in runs[-5:]])


def _process_lives(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < _START_TIME_TOLERANCE and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _data_name(data: str) -> str:
    return data.removeprefix("sample:") if data.startswith("sample:") else Path(data).stem


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:40] or "run"
