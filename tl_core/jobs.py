"""Runs in the background: start a worker process, ask it to stop, end it when it does not.

Must not know training; the worker is started by name, so that nothing here imports torch.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tl_core.errors import JobError
from tl_core.files import read_json
from tl_core.runs import LIVE_STATES, RESUMABLE_STATES, Run

WORKER_MODULE = "tl_core.ml.worker"


def start_worker(run: Run) -> subprocess.Popen[bytes]:
    """Start a process for the run, in a session of its own, with its output in log.txt."""
    project = str(Path(__file__).resolve().parent.parent)
    paths = [project, *filter(None, [os.environ.get("PYTHONPATH")])]
    with run.log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", WORKER_MODULE, str(run.dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )


def stop_run(run: Run, *, wait_seconds: float | None = None) -> str:
    """Ask a live run to finish its step and end; returns its state, after `wait_seconds` at most.

    Raises JobError when the run is not live.
    """
    state = run.view().state
    if state not in LIVE_STATES:
        raise JobError(f"run {run.id} is {state}, so there is nothing to stop")
    run.request_stop()
    deadline = None if wait_seconds is None else time.monotonic() + wait_seconds
    while (state := run.view().state) in LIVE_STATES and (deadline is None or time.monotonic() < deadline):
        time.sleep(0.1)
    return state


def kill_run(run: Run) -> None:
    """End a run's process and everything it started, at once. What was not saved is lost."""
    process = read_json(run.dir / "process.json")
    if process is None or not run.is_alive():
        return
    family = [psutil.Process(process["pid"])]
    family += family[0].children(recursive=True)
    for member in family:
        try:
            member.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def check_resumable(run: Run) -> None:
    """Raises JobError for a run that is live or already finished."""
    state = run.view().state
    if state not in RESUMABLE_STATES:
        advice = (
            f"watch it with `runs`, end it with `stop {run.id}`"
            if state in LIVE_STATES
            else "there is nothing to resume"
        )
        raise JobError(f"run {run.id} is {state}; {advice}")
