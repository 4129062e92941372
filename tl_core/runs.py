"""The run folder: one training run as files, and the only channel between a worker and whoever watches it.

    <home>/runs/<id>/  config.json  owner.json  parts.json  revisions.json  queued  process.json  status.json  stop
                       events.jsonl  log.txt  lock  checkpoints/  model/  report.json  published.json  unpublished.json

Files are replaced atomically (`events.jsonl` and `log.txt` only grow), by one writer at a time: whoever holds `lock`.
Only `stop` may be written by anyone. The worker stores a state: running, succeeded, stopped or failed; the reader
derives the others from what it finds (`derive_state`).
This module must not know what training is: no torch, no starting of processes.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.files import UNFINISHED, existing_path, read_json, write_atomically, write_json, writing_to_home
from tl_core.journal import read_events, read_tail, spans_of
from tl_core.processes import lives, name_process
from tl_core.settings import Settings
from tl_core.states import LIVE_STATES as LIVE_STATES
from tl_core.states import RESUMABLE_STATES as RESUMABLE_STATES
from tl_core.states import State as State
from tl_core.states import StoredState as StoredState
from tl_core.states import derive_state as derive_state

# The owner of everything where one person uses this project: on the command line, and on a page of one's own.
LOCAL_OWNER = "local"

# Long enough for a finishing worker to let go, short enough not to be felt.
_LOCK_PATIENCE = 1.0
# Forked data loaders may keep the lock of a killed worker until they miss it, which torch lets them check every 5 s.
_ORPHANS_PATIENCE = 10.0


@dataclass(frozen=True)
class RunView:
    """What a reader sees of a run at one moment."""

    run_id: str
    state: State
    stage: str
    step: int
    total: int
    name: str | None
    strategy: str
    model: str
    data: str
    place: int  # in the queue, from 1; 0 where it is not queued, or nobody asked
    created: float  # seconds since the epoch
    updated: float
    seconds: float  # that processes worked on it
    message: str
    details: tuple[str, ...]
    metrics: dict[str, Any] | None
    unpublished: dict[str, Any] | None = None  # what was to be published and is not: repo_id, error, details, command

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
    def choice_path(self) -> Path:
        """What `--strategy auto` chose."""
        return self.dir / "choice.json"

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
        return self.events_since(0)[0]

    def events_since(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """The events after the first `offset` bytes, and the offset to ask with next time; only what is new is read."""
        return read_events(self.dir / "events.jsonl", offset)

    def log_tail(self, lines: int) -> str:
        """The last lines of the log; however long it is, only its end is read."""
        return read_tail(self.log_path, lines)

    def seconds_in(self, stage: str) -> float:
        """Seconds spent in a stage, over all processes that worked on the run, each up to its last event."""
        return sum(seconds for name, seconds in spans_of(self.events()) if name == stage)

    def seconds_worked(self) -> float:
        """Seconds that processes worked on the run, each from its start to its last event so far."""
        return sum(seconds for _, seconds in spans_of(self.events()))

    def request_stop(self, why: str = "") -> None:
        (self.dir / "stop").write_text(why, encoding="utf-8")

    def stop_requested(self) -> bool:
        return (self.dir / "stop").exists()

    def is_alive(self) -> bool:
        """Whether the process that process.json names still runs (a reused process id does not count)."""
        return lives(self._process())

    def works_in_background(self) -> bool:
        """Whether a worker that was launched for this run still runs."""
        process = self._process()
        return process is not None and bool(process.get("background")) and lives(process)

    def _process(self) -> dict[str, Any] | None:
        return read_json(self.dir / "process.json")

    def claim(self, pid: int, *, background: bool = False) -> None:
        """Say which process works on this run from now on. Only for who holds the run.

        The run leaves the queue; what an earlier process stored, left half-written or was asked is forgotten. Nothing
        happens where that process is named already and has stored nothing: its launcher claimed for it, and a request
        to stop since then stands.
        """
        status, queued, named = self.dir / "status.json", self.dir / "queued", self._process()
        if lives(named) and named["pid"] == pid and not status.exists() and not queued.exists():
            return
        worked = _seconds(named, read_json(status) or {})
        for left in (self.dir / "stop", *self.dir.glob(f".*{UNFINISHED}")):
            left.unlink(missing_ok=True)
        process = {**name_process(pid), "background": background, "seconds_before": worked}
        write_json(self.dir / "process.json", process)
        # In this order a reader sees the run in the queue, then starting, and no earlier end in between.
        status.unlink(missing_ok=True)
        queued.unlink(missing_ok=True)

    def queued_since(self) -> int | None:
        """When the run joined the queue, in nanoseconds since the epoch; None where it is not in it."""
        try:
            since, *_ = (self.dir / "queued").read_text().split() or [""]
        except FileNotFoundError:
            return None
        return int(since) if since.isdecimal() else 0

    def waits_for(self) -> dict[str, Any] | None:
        """The process that alone can start the run from the queue, as it was named; None where any may, or it is gone.

        It has been given what the run needs and no file may hold: an access token.
        """
        try:
            _, _, name = (self.dir / "queued").read_text().partition(" ")
            named = json.loads(name) if name else None
        except (FileNotFoundError, ValueError):
            return None
        return named if lives(named) else None

    def join_queue(self, starter: int | None = None) -> None:
        """Wait for a process; a run that waits already keeps its place. Only for who holds the run.

        Where a `starter` is given, its process id, no other process starts the run as long as that one lives.
        """
        since = self.queued_since()
        if since is None or starter is not None:
            name = "" if starter is None else " " + json.dumps(name_process(starter))
            write_atomically(self.dir / "queued", f"{since or time.time_ns()}{name}")

    def wait_for_anybody(self) -> None:
        """Keep the place in the queue, and let any process start the run. Only for who holds it."""
        if (since := self.queued_since()) is not None:
            write_atomically(self.dir / "queued", str(since))

    def leave_queue(self) -> None:
        """End the run without a process, as stopped; figures it has reached are kept. Only for who holds the run."""
        status = read_json(self.dir / "status.json") or {}
        status.pop("error", None)
        write_json(self.dir / "status.json", {**status, "state": "stopped", "stage": "stopped"})
        (self.dir / "queued").unlink(missing_ok=True)

    def owner(self) -> str:
        """Whose run it is: LOCAL_OWNER or the hash of somebody's token; "", who is nobody, where that is unreadable."""
        return str((read_json(self.dir / "owner.json") or {}).get("owner", ""))

    def created_ns(self) -> int:
        """When the run was made, in nanoseconds since the epoch."""
        stamp = (read_json(self.dir / "owner.json") or {}).get("created_ns")
        return stamp if isinstance(stamp, int) else self.dir.stat().st_mtime_ns

    def view(self, queue: Sequence[str] = ()) -> RunView:
        """The run at this moment; its place is the one in `queue`, the ids of all that wait, in order."""
        # In this order: a process that ends while we look has stored its end before, and is not taken for lost.
        queued, process = (self.dir / "queued").exists(), self._process()
        alive, stop_requested = lives(process), self.stop_requested()
        status = read_json(self.dir / "status.json") or {}
        reached = status.get("reached")
        state = derive_state(status.get("state"), process is not None, alive, stop_requested, queued, reached)
        config = read_json(self.dir / "config.json") or {}
        created = self.created_ns() / 1e9
        error = status.get("error") or {}
        return RunView(
            run_id=self.id,
            state=state,
            stage=status.get("stage", ""),
            step=status.get("step", 0),
            total=status.get("total", 0),
            name=config.get("name"),
            strategy=str((read_json(self.choice_path) or config).get("strategy", "")),
            model=str(config.get("model", "")),
            data=str(config.get("data", "")),
            place=queue.index(self.id) + 1 if state == "queued" and self.id in queue else 0,
            created=created,
            updated=status.get("updated", created),
            seconds=_seconds(process, status, time.time() if state in LIVE_STATES else None),
            message=error.get("message", ""),
            details=tuple(error.get("details", ())),
            metrics=status.get("metrics"),
            unpublished=read_json(self.dir / "unpublished.json"),
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

    def remove(self) -> None:
        """Take the run away with everything in it. Raises JobError where a process works on it."""
        with self.hold():
            (self.dir / "config.json").unlink(missing_ok=True)  # without it the folder is no run, whatever is left
            shutil.rmtree(self.dir, ignore_errors=True)


def create_run(config: TrainConfig, settings: Settings, owner: str = LOCAL_OWNER) -> Run:
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
            write_json(run.dir / "owner.json", {"owner": owner, "created_ns": time.time_ns()})
            write_json(run.dir / "config.json", config.to_json())  # last: with it the folder is a run
        except OSError:
            shutil.rmtree(run.dir, ignore_errors=True)
            raise
    return run


def list_runs(settings: Settings, owner: str | None = None) -> list[Run]:
    """The runs of an owner, or of all for None, oldest first by the time they were made."""
    if not settings.runs_dir.is_dir():
        return []
    runs = [Run(folder) for folder in settings.runs_dir.iterdir() if (folder / "config.json").is_file()]
    if owner is not None:
        runs = [run for run in runs if run.owner() == owner]
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


def _seconds(process: dict[str, Any] | None, status: dict[str, Any], now: float | None = None) -> float:
    """Seconds worked, by earlier processes and by the named one until `now`, or until it last said something."""
    before = float((process or {}).get("seconds_before", 0.0))
    if "started" not in status:
        return before
    return before + max(0.0, (now or status["updated"]) - status["started"])  # a clock may be set back


def _data_name(data: str) -> str:
    return data.removeprefix("sample:") if data.startswith("sample:") else Path(data).stem


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:40] or "run"
