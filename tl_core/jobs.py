"""Runs in the background: a queue, a worker process for whoever is next, asked to stop, ended when it does not.

The queue is the file `queued` in the folders of those that wait. It goes on whenever a run joins it, a worker ends or
a page looks after it (`keep_queue`), which also ends what takes too long where others use the machine. Runs in the
foreground neither wait nor are waited for.
Must not know training; the worker is started by name, so that nothing here imports torch.
"""

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import filelock
import psutil

from tl_core import tokens
from tl_core.errors import JobError, TLError
from tl_core.files import read_json, writing_to_home
from tl_core.limits import overtime
from tl_core.runs import LIVE_STATES, RESUMABLE_STATES, Run
from tl_core.settings import Settings, read_settings

WORKER_MODULE = "tl_core.ml.worker"
QUEUE_INTERVAL = 2.0  # seconds between two looks at the queue: how long a killed worker keeps the next one waiting

_log = logging.getLogger(__name__)
# Workers started by this process: until they are asked after, the system keeps those that ended as zombies.
_children: set[subprocess.Popen[bytes]] = set()


def enqueue(run: Run, settings: Settings, token: str | None = None) -> None:
    """Let a new or resumable run wait for its turn, which may be at once; one that waits already keeps its place.

    A `token` is kept in the memory of this process, which therefore is the one to start the run; once it has ended
    somebody else starts the run without. Raises JobError for a run that is being worked on or already finished, and
    when its folder cannot be written.
    """
    with writing_to_home(settings), run.hold():
        check_resumable(run)
        if token:
            tokens.keep(run, token)  # first: in the queue it may be started at any moment
        try:
            run.join_queue(os.getpid() if token else None)
        except OSError:
            tokens.forget(run)
            raise
    start_next(settings)
    if tokens.kept(run):
        threading.Thread(target=_keep_for, args=(run, settings), name=f"queue for {run.id}", daemon=True).start()
        atexit.unregister(_let_go)  # of a run before: once is enough, however many come
        atexit.register(_let_go, settings)


def check_room_in_queue(owner: str, settings: Settings) -> None:
    """Raises JobError in shared mode where as many runs of the owner wait as may."""
    waiting = sum(Run(settings.runs_dir / run_id).owner() == owner for run_id in queue_of(settings))
    if settings.shared and waiting >= settings.waiting_runs:
        raise JobError(
            f"{waiting} runs of yours wait already, and no more may (TL_WAITING_RUNS); stop one, or wait for the first"
        )


def queue_of(settings: Settings) -> list[str]:
    """The ids of the runs that wait, the next one first."""
    waiting = []
    for file in settings.runs_dir.glob("*/queued"):
        if (since := Run(file.parent).queued_since()) is not None:
            waiting.append((since, file.parent.name))
    return [run_id for _, run_id in sorted(waiting)]


def start_next(settings: Settings) -> list[Run]:
    """Start those that have waited longest, as far as `settings.parallel_runs` allows; the runs that were started.

    A run that cannot be started now stays in the queue and is passed over. Raises JobError when the home folder cannot
    be written.
    """
    for worker in list(_children):
        if worker.poll() is not None:
            _children.discard(worker)
    if not queue_of(settings):
        return []
    started: list[Run] = []
    with _queue_locked(settings):
        free = settings.parallel_runs - len(_working(settings))
        for run in (Run(settings.runs_dir / run_id) for run_id in queue_of(settings)):
            if len(started) >= free:
                break
            starter = run.waits_for()
            if starter is not None and starter["pid"] != os.getpid():
                continue
            try:
                _children.add(start_worker(run, tokens.kept(run)))
            except JobError as failure:
                _log.warning("run %s has to wait on: %s", run.id, failure.message)
                continue
            tokens.forget(run)
            started.append(run)
    return started


def keep_queue(settings: Settings, stopped: threading.Event) -> None:
    """Look after the queue until `stopped`: a worker that was killed starts no next one. For a thread of its own."""
    while not stopped.is_set():
        _try_next(settings)
        stopped.wait(QUEUE_INTERVAL)


def _keep_for(run: Run, settings: Settings) -> None:
    """Look after the queue until the run, which nobody else can start, has its token, or waits no longer."""
    while tokens.kept(run):
        time.sleep(QUEUE_INTERVAL)
        _try_next(settings)
        if run.queued_since() is None:  # stopped, or continued by somebody in the foreground
            tokens.forget(run)


def stop_overdue(settings: Settings) -> list[Run]:
    """Ask those in the background to stop that have taken longer than one may where others wait; these runs."""
    overdue = []
    for run in _working(settings) if settings.shared else ():
        if not run.stop_requested() and (why := overtime(run, settings)):
            run.request_stop(why)
            overdue.append(run)
    return overdue


def _try_next(settings: Settings) -> None:
    try:
        start_next(settings)
        stop_overdue(settings)
    except (JobError, OSError) as failure:
        _log.warning("the queue stands still and is tried again: %s", failure)
    except Exception:  # one damaged run folder must not end the queue for everybody
        _log.exception("the queue met a fault and is tried again")


def _let_go(settings: Settings) -> None:
    """When this process ends: leave the runs that wait for it to the others, who have no token for them."""
    waiting = queue_of(settings)
    left = [run for run in tokens.runs_with_tokens(settings) if run.id in waiting]
    if not left:
        return
    with suppress(TLError, OSError):
        for run in left:
            with _queue_locked(settings), suppress(JobError), run.hold():
                run.wait_for_anybody()
        start_next(settings)


def _working(settings: Settings) -> list[Run]:
    folders = (file.parent for file in settings.runs_dir.glob("*/process.json"))
    working = (run for run in map(Run, folders) if run.works_in_background())
    return [run for run in working if run.view().state in LIVE_STATES]


@contextmanager
def _queue_locked(settings: Settings) -> Iterator[None]:
    """Be the one that lets runs out of the queue. Whoever also holds a run takes this lock first."""
    with ExitStack() as stack:
        with writing_to_home(settings):
            stack.enter_context(filelock.FileLock(settings.home / "queue.lock"))
        yield


def start_worker(run: Run, token: str | None = None) -> subprocess.Popen[bytes]:
    """Start a process for the run, in a session of its own, with its output in log.txt; from here on it can be stopped.

    It has no access token but this one and, where nobody else uses this computer, what is at hand there. Raises
    JobError for a run that is being worked on or already finished, and when its folder cannot be written.
    """
    project = str(Path(__file__).resolve().parent.parent)
    paths = [project, *filter(None, [os.environ.get("PYTHONPATH")])]
    with ExitStack() as stack:
        settings = read_settings()
        with writing_to_home(settings):
            stack.enter_context(run.hold())
            log = stack.enter_context(run.log_path.open("ab"))
        check_resumable(run)
        stack.enter_context(_signals_held_back())
        worker = subprocess.Popen(
            [sys.executable, "-m", WORKER_MODULE, str(run.dir), *([tokens.WITH_TOKEN] if token else [])],
            stdin=subprocess.PIPE if token else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**tokens.environment_of_worker(settings), "PYTHONPATH": os.pathsep.join(paths)},
        )
        if token:
            tokens.hand_over(worker, token)
        run.claim(worker.pid, background=True)
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


def request_stop(run: Run) -> None:
    """Ask a live run to end after its step, without waiting for that; one in the queue leaves it, and is stopped.

    Raises JobError for a run that has ended.
    """
    if _left_queue(run):
        return
    _check_live(run)
    run.request_stop()


def stop_run(run: Run) -> str:
    """`request_stop`, and wait until the run has ended; returns its state. Raises JobError as that does."""
    request_stop(run)
    while (state := run.view().state) in LIVE_STATES:
        time.sleep(0.1)
    return state


def kill_run(run: Run) -> None:
    """End a live run's process and everything it started, at once; one in the queue leaves it. The next one starts.

    What was not saved is lost. Raises JobError for a run that has ended.
    """
    if _left_queue(run):
        return
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
    start_next(read_settings())


def _left_queue(run: Run) -> bool:
    """Take a run that has not been started out of the queue; False where it has been, even in this moment."""
    if run.view().state != "queued":
        return False
    settings = read_settings()
    # Somebody else who holds it is about to work on it in the foreground.
    with _queue_locked(settings), writing_to_home(settings), suppress(JobError), run.hold():
        if run.view().state == "queued":
            run.leave_queue()
            return True
    return False


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
