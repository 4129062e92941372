"""Runs in the background: start a worker process, ask it to stop, end it when it does not.

Must not know training; the worker is started by name, so that nothing here imports torch.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tl_core.errors import JobError
from tl_core.files import read_json, writing_to_home
from tl_core.runs import LIVE_STATES, RESUMABLE_STATES, Run
from tl_core.settings import read_settings

WORKER_MODULE = "tl_core.ml.worker"


def start_worker(run: Run) -> subprocess.Popen[bytes]:
    """Start a process for the run, in a session of its own, with its output in log.txt; from here on it can be stopped.

    Raises JobError for a run that is being worked on or already finished, and when its folder cannot be written.
    """
    project = str(Path(__file__).resolve().parent.parent)
    paths = [project, *filter(None, [os.environ.get("PYTHONPATH")])]
    with ExitStack() as stack:
        with writing_to_home(read_settings()):
            stack.enter_context(run.hold())
            log = stack.enter_context(run.log_path.open("ab"))
        check_resumable(run)
        stack.enter_context(_signals_held_back())
        worker = subprocess.Popen(
            [sys.executable, "-m", WORKER_MODULE, str(run.dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        run.claim(worker.pid)
        return worker


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """SIGINT and SIGTERM wait, here until a worker is both started and named, and in the worker until it is ready.

    A child inherits what its parent holds back; the worker lets them in once they mean "stop after this step".
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_run(run: Run) -> str:
    """Ask a live run to finish its step and wait until it has ended; returns its state.

    Raises JobError when the run is not live.
    """
    _check_live(run)
    run.request_stop()
    while (state := run.view().state) in LIVE_STATES:
        time.sleep(0.1)
    return state


def kill_run(run: Run) -> None:
    """End a live run's process and everything it started, at once. What was not saved is lost.

    Raises JobError when the run is not live.
    """
    _check_live(run)
    process = read_json(run.dir / "process.json") or {}
    try:
        family = [psutil.Process(process["pid"])]
        family += family[0].children(recursive=True)
    except psutil.NoSuchProcess:
        return  # it ended by itself in this moment
    for member in family:
        try:
            member.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def _check_live(run: Run) -> None:
    state = run.view().state
    if state not in LIVE_STATES:
        raise JobError(f"run {run.id} has ended ({state}); there is nothing to stop")


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
