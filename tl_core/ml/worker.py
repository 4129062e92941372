"""The process that works on a run: a run folder in, an exit code out. In the foreground the command line calls `work`.

    python -m tl_core.ml.worker RUN_DIR

Whatever happens, the run's status says how it ended. Must not know what training does.
"""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core.errors import JobError, TLError
from tl_core.files import disk_is_full, writing_to_home
from tl_core.recorder import LogStream, Recorder, StopRequested
from tl_core.runs import Run
from tl_core.settings import Settings, read_settings

if TYPE_CHECKING:
    from tl_core.ml.training import Inputs


def work(
    run: Run,
    settings: Settings,
    *,
    echo: LogStream | None,
    writes_log: bool = True,
    ticker: Callable[[str, int, int], None] | None = None,
    inputs: "Inputs | None" = None,
) -> dict[str, Any]:
    """Train the run to its end; the report, with `model_dir` None and little else when it was stopped before a model.

    A first interrupt (Ctrl-C, SIGTERM) is a request to stop after the current step. Raises JobError when another
    process works on the run, and whatever made the training fail, after the status has it.
    """
    with writing_to_home(settings), run.hold(), _interrupts_as_stop(run):
        recorder = Recorder(run, echo, writes_log, ticker)
        recorder.start()
        try:
            from tl_core.ml.libraries import quieten
            from tl_core.ml.training import train

            quieten()
            config = run.config()
            report = train(config, settings, recorder, inputs)
        except StopRequested:
            recorder.finish("stopped")
            return {"run_id": run.id, "run_dir": str(run.dir), "model_dir": None, "stopped": True}
        except TLError as failure:
            recorder.say(
                "\n  ".join([f"error: {failure.message}", *failure.details]), echoed=False
            )  # the caller says it
            recorder.finish("failed", error={"message": failure.message, "details": list(failure.details)})
            raise
        except BaseException as failure:
            if disk_is_full(failure, run.dir):
                _make_room(run)
                full = JobError(
                    f"the disk that holds {settings.home} is full; make room, then `python -m tl_core resume {run.id}` "
                    "continues from the last checkpoint"
                )
                recorder.finish("failed", error={"message": full.message, "details": []})
                raise full from failure
            recorder.say(traceback.format_exc().rstrip())
            sentence = f"an unexpected {type(failure).__name__}; log.txt in the run folder has the details"
            recorder.finish("failed", error={"message": sentence, "details": []})
            raise
        figures = {key: report["metrics"][key] for key in ("split", "images", "accuracy", "accuracy_ci", "macro_f1")}
        recorder.finish("stopped" if report["stopped"] else "succeeded", metrics=figures)
        return report


def _make_room(run: Run) -> None:
    """Remove the checkpoint that did not fit, so that the run's last words do."""
    from tl_core.ml.finetuning import newest_whole_checkpoint

    newest_whole_checkpoint(run.checkpoints_dir)


@contextmanager
def _interrupts_as_stop(run: Run) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks the run to stop; a second one acts as it always does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: object) -> None:
        signal.signal(number, previous[number])
        run.request_stop()

    for number in previous:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(arguments: list[str]) -> int:
    """Exit code: 0 succeeded or stopped, 2 the person can mend it, 1 our fault."""
    run = Run(Path(arguments[0]))
    if not (run.dir / "config.json").is_file():
        raise SystemExit(f"{run.dir} is no run folder")
    try:
        work(run, read_settings(), echo=sys.stderr, writes_log=False)
    except TLError as failure:
        print(f"error: {failure.message}", *failure.details, sep="\n  ", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
