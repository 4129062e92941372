"""The run folder: one training run as files, and the only channel between a worker and whoever watches it.

    <home>/runs/<id>/  config.json  owner.json  process.json  status.json  stop  events.jsonl  log.txt  lock
                       checkpoints/  model/  report.json  published.json

Each file has one writer and is replaced atomically (`events.jsonl` and `log.txt` only grow). The worker stores a state:
running, succeeded, stopped or failed; the reader derives the others from what it finds (`derive_state`).
This module must not know what training is: no torch, no starting of processes.
"""

import json
import re
import shutil
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
from tl_core.files import existing_path, read_json, write_atomically, write_json, writing_to_home
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
    folder = existing_path(text)
    if folder is not None and (folder / "config.json").is_file() and (folder / "owner.json").is_file():
        return Run(folder.resolve())
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
