"""The process that works on a run: a run folder in, an exit code out. In the foreground the command line calls `work`.

    python -m tl_core.ml.worker RUN_DIR [--with-token, which is read from standard input]

Whatever happens, the run's status says how it ended, and the next one in the queue is started. Must not know what
training does.
"""

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core.delivery import announce, deliver, wish_of, withhold
from tl_core.ending import INTERRUPTED, end_with
from tl_core.errors import JobError, TLError
from tl_core.files import disk_is_full, writing_to_home
from tl_core.jobs import start_next
from tl_core.recorder import LogStream, Recorder, StopRequested
from tl_core.runs import Run
from tl_core.settings import Settings, read_settings
from tl_core.tokens import handed_over

if TYPE_CHECKING:
    from tl_core.ml.inputs import Inputs

# What the status keeps of a training by gradient steps: its own name, the report's.
STEPS = {"step": "steps_done", "total": "steps"}
FIGURES = ("split", "images", "accuracy", "accuracy_ci", "macro_f1")


def work(
    run: Run,
    settings: Settings,
    *,
    echo: LogStream | None,
    writes_log: bool = True,
    ticker: Callable[[str, int, int], None] | None = None,
    inputs: "Inputs | None" = None,
    token: str | None = None,
) -> dict[str, Any]:
    """Train the run to its end; the report, with `model_dir` None and little else when it was stopped before a model.

    Where its configuration says so, the model is then published with `token`, or the one that is at hand; the report's
    `push` says how that went.

    A first interrupt (Ctrl-C, SIGTERM) is a request to stop after the current step; a second one ends the work at once
    with KeyboardInterrupt, and the run is stopped as well. Raises JobError when another process works on the run, and
    whatever made the training fail, after the status has it.
    """
    with ExitStack() as stack:
        recorder = Recorder(run, echo, writes_log, ticker)
        with writing_to_home(settings):
            stack.enter_context(run.hold())
            if run.view().state == "succeeded":  # while this process waited for the lock
                raise JobError(f"run {run.id} has ended (succeeded); there is nothing to resume")
            run.claim(os.getpid())  # before signals are let in: a stop asked for from here on is meant for this process
            stack.enter_context(_interrupts_as_stop(run))
            recorder.start()
            announce(run, recorder, token)
        try:
            report = _train(run, settings, recorder, inputs)
        except StopRequested:
            return _stop_early(run, settings, recorder)
        except KeyboardInterrupt:
            _stop_early(run, settings, recorder)
            raise
        except BaseException as failure:
            told = _tell(failure, run, settings, recorder)
            if told is failure:
                raise
            raise told from failure
        steps = {key: report["training"][name] for key, name in STEPS.items() if name in report["training"]}
        reached = {"metrics": _figures(report), **steps}
        if report["stopped"]:
            with writing_to_home(settings):
                _say_why(run, recorder)
                withheld = withhold(run, recorder)
                recorder.finish("stopped", **reached)
            return {**report, **withheld}
        return {**report, **_succeed(run, settings, recorder, reached, token)}


def _succeed(
    run: Run, settings: Settings, recorder: Recorder, reached: dict[str, Any], token: str | None
) -> dict[str, Any]:
    """End the run, and publish its model where that is wished: {push: how that went}, or {}."""
    wish = wish_of(run)
    with writing_to_home(settings):
        (recorder.reach if wish else recorder.finish)("succeeded", **reached)
    shutil.rmtree(run.checkpoints_dir, ignore_errors=True)  # a run that has ended well is never resumed
    if wish is None:
        return {}
    try:
        return {"push": deliver(run, wish, token, settings, recorder)}
    finally:
        with writing_to_home(settings):
            recorder.finish("succeeded", **reached)


def _train(run: Run, settings: Settings, recorder: Recorder, inputs: "Inputs | None") -> dict[str, Any]:
    from tl_core.ml.libraries import load_libraries

    load_libraries()
    from tl_core.ml.training import train

    if run.stop_requested():  # while torch was imported
        raise StopRequested
    return train(run.config(), settings, recorder, inputs)


def _stop_early(run: Run, settings: Settings, recorder: Recorder) -> dict[str, Any]:
    """End the run as stopped; what an earlier process on it has reached is still there, and is the report."""
    reached = run.report()
    with writing_to_home(settings):
        _say_why(run, recorder)
        withheld = withhold(run, recorder)
        recorder.finish("stopped", metrics=reached and _figures(reached))
    if reached is not None:
        return {**reached, "stopped": True, **withheld}
    return {"run_id": run.id, "run_dir": str(run.dir), "model_dir": None, "stopped": True, **withheld}


def _say_why(run: Run, recorder: Recorder) -> None:
    """Where it was not the person who stopped the run, whoever did has written down why."""
    with suppress(FileNotFoundError):
        if why := (run.dir / "stop").read_text(encoding="utf-8").strip():
            recorder.note(why)


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report["metrics"][key] for key in FIGURES}


def _tell(failure: BaseException, run: Run, settings: Settings, recorder: Recorder) -> BaseException:
    """Write down how the run failed, in log and status; the error to raise, a JobError for a disk that is full."""
    with writing_to_home(settings):
        if not isinstance(failure, TLError) and disk_is_full(failure, run.dir):
            _make_room(run)
            failure = JobError(
                f"the disk that holds {settings.home} is full; make room, then `python -m tl_core resume {run.id}` "
                "continues from the last checkpoint"
            )
        elif isinstance(failure, TLError):
            lines = "\n  ".join([f"error: {failure.message}", *failure.details])
            recorder.say(lines, echoed=False)  # the caller says it
        else:
            recorder.say("".join(traceback.format_exception(failure)).rstrip(), echoed=False)  # Python shows it
        if isinstance(failure, TLError):
            error = {"message": failure.message, "details": list(failure.details)}
        else:
            sentence = f"an unexpected {type(failure).__name__}; log.txt in the run folder has the details"
            error = {"message": sentence, "details": []}
        recorder.finish("failed", error=error)
    return failure


def _make_room(run: Run) -> None:
    """Remove what did not fit, so that the run's last words do."""
    from tl_core.ml.checkpoints import remove_broken

    remove_broken(run.checkpoints_dir)


@contextmanager
def _interrupts_as_stop(run: Run) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks the run to stop; a second one, of either, is a KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    worker = os.getpid()

    def ask(number: int, _: object) -> None:
        if os.getpid() != worker:  # a forked data loader: what is sent to all processes is the worker's affair
            if number == signal.SIGTERM:  # and its end is asked for again, by who waits for it
                signal.signal(number, signal.SIG_DFL)
            return
        for each in previous:
            signal.signal(each, signal.default_int_handler)
        run.request_stop()
        with suppress(OSError):  # nobody may be reading any more
            print("stopping after this step, and saving; once more to end at once", file=sys.stderr, flush=True)

    for number in previous:
        signal.signal(number, ask)
    if hasattr(signal, "pthread_sigmask"):  # the launcher held them back until now
        signal.pthread_sigmask(signal.SIG_UNBLOCK, previous)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(arguments: list[str]) -> int:
    """Exit code: 0 succeeded or stopped, 2 the person can mend it, 130 interrupted twice, 1 our fault."""
    token = handed_over(arguments)
    run = Run(Path(arguments[0]))
    if not (run.dir / "config.json").is_file():
        raise SystemExit(f"{run.dir} is no run folder")
    try:
        work(run, read_settings(), echo=sys.stderr, writes_log=False, token=token)
    except TLError as failure:
        print(f"error: {failure.message}", *failure.details, sep="\n  ", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        _start_next()
    return 0


def _start_next() -> None:
    """Hand over to the run that has waited longest; where that fails, it is no failure of the run that has ended."""
    try:
        start_next(read_settings())
    except (TLError, OSError) as failure:
        print(f"the next run in the queue could not be started: {failure}", file=sys.stderr)


if __name__ == "__main__":
    end_with(lambda: main(sys.argv[1:]))
