"""The processes of runs: launched, stopped at any moment, killed, interrupted twice."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from models import save_resnet
from patience import PATIENCE
from pictures import make_folder

from tl_core.cli import main
from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.jobs import kill_run, start_worker, stop_run
from tl_core.ml.worker import work
from tl_core.runs import Run, create_run
from tl_core.settings import Settings

posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A run that takes a minute when nobody stops it, and a second when somebody does."""
    make_folder(tmp_path / "photos", {"a": 20, "b": 20})
    model = save_resnet(tmp_path / "m").path
    values = {"data": str(tmp_path / "photos"), "model": str(model), "strategy": "scratch", "minutes": 1}
    return TrainConfig.parse(values)


def ended_worker(run: Run, worker: subprocess.Popen[bytes]) -> int:
    try:
        return worker.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        pytest.fail(run.log_path.read_text())


def test_a_stop_right_after_the_launch_is_heard(config: TrainConfig, settings: Settings) -> None:
    run = create_run(config, settings)
    worker = start_worker(run)
    assert run.view().state == "starting"
    assert stop_run(run) == "stopped"
    assert ended_worker(run, worker) == 0
    assert "training" not in {event.get("name") for event in run.events()}

    worker = start_worker(run)
    assert run.view().state == "starting", "the end of the process before is not this one's"
    assert stop_run(run) == "stopped"
    assert ended_worker(run, worker) == 0


def test_the_command_line_resumes_in_the_background_and_stops_at_once(
    config: TrainConfig, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = create_run(config, settings)
    run.claim(os.getpid())
    (run.dir / "status.json").write_text('{"state": "stopped"}')
    command = [sys.executable, "-m", "tl_core", "resume", run.id, "--background"]
    subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.DEVNULL)
    assert main(["stop", "last"]) == 0
    assert "(stopped)" in capsys.readouterr().out


@posix
def test_a_termination_while_the_worker_is_still_importing_is_a_stop(config: TrainConfig, settings: Settings) -> None:
    run = create_run(config, settings)
    worker = start_worker(run)
    worker.send_signal(signal.SIGTERM)
    assert ended_worker(run, worker) == 0
    assert run.view().state == "stopped"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not before & {signal.SIGINT, signal.SIGTERM}


def test_a_worker_killed_before_it_began_is_lost_and_neither_way_of_stopping_it_pretends(
    config: TrainConfig, settings: Settings
) -> None:
    run = create_run(config, settings)
    worker = start_worker(run)
    kill_run(run)
    worker.wait(timeout=PATIENCE)
    assert run.view().state == "lost"
    for end in (kill_run, stop_run):
        with pytest.raises(JobError, match=r"has ended \(lost\); there is nothing to stop"):
            end(run)
    assert main(["stop", run.id, "--now"]) == 2


def test_a_run_is_launched_once(config: TrainConfig, settings: Settings) -> None:
    run = create_run(config, settings)
    worker = start_worker(run)
    with pytest.raises(JobError, match=r"is starting|already being worked on|is running"):
        start_worker(run)
    kill_run(run)
    worker.wait(timeout=PATIENCE)


def ticking(act: Callable[[], object]) -> Callable[[str, int, int], None]:
    """A ticker that does something once, in the midst of training."""
    done: list[object] = []

    def tick(stage: str, step: int, total: int) -> None:
        if stage == "training" and not done:
            done.append(None)
            act()

    return tick


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_ends_at_once_and_the_run_is_stopped(
    config: TrainConfig, settings: Settings, number: signal.Signals
) -> None:
    run = create_run(config, settings)
    before = signal.getsignal(signal.SIGINT)  # whoever started the tests may ignore it

    def insist() -> None:
        signal.raise_signal(number)
        assert run.view().state == "stopping"
        signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        work(run, settings, echo=None, ticker=ticking(insist))
    assert run.view().state == "stopped"
    assert signal.getsignal(signal.SIGINT) is before


@posix
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12 on
def test_a_forked_data_loader_does_not_take_signals_for_the_run(config: TrainConfig, settings: Settings) -> None:
    run = create_run(config, settings)
    seen: list[object] = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        seen.extend([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), run.stop_requested()])
        run.request_stop()

    work(run, settings, echo=None, ticker=ticking(fork))
    assert seen == [-signal.SIGTERM, False], "it outlives the first, and its exit code is of the second"


@posix
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12 on
def test_a_termination_of_all_processes_at_once_is_a_stop(
    config: TrainConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service manager does it; whatever reads ahead for the training outlives it."""
    monkeypatch.setattr("tl_core.ml.trainer.MIN_IMAGES_FOR_LOADERS", 1)
    run = create_run(config.model_copy(update={"batch_size": 2}), settings)  # so that both loaders have long to read
    others = psutil.Process().children()
    loaders: list[psutil.Process] = []
    outlived: list[psutil.Process] = []

    def terminate_all(stage: str, step: int, total: int) -> None:
        if stage == "training" and step >= 3 and not loaders:
            loaders.extend(each for each in psutil.Process().children() if each not in others)
            for process in [*loaders, psutil.Process()]:
                process.terminate()
            outlived.extend(psutil.wait_procs(loaders, timeout=1)[1])

    work(run, dataclasses.replace(settings, workers=3), echo=None, ticker=terminate_all)
    assert loaders
    assert set(outlived) == set(loaders)
    assert run.view().state == "stopped"


def test_a_failure_of_the_system_is_not_taken_for_an_unwritable_home(config: TrainConfig, settings: Settings) -> None:
    run = create_run(config, settings)

    def run_out_of_files() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        work(run, settings, echo=None, ticker=ticking(run_out_of_files))
    assert "unexpected OSError" in run.view().message
    assert "Too many open files" in run.log_path.read_text()


def test_a_run_folder_that_cannot_be_written_is_a_sentence(config: TrainConfig, settings: Settings) -> None:
    run = create_run(config, settings)
    (run.dir / "lock").mkdir()
    for begin in (lambda: work(run, settings, echo=None), lambda: start_worker(run)):
        with pytest.raises(JobError, match="cannot write to"):
            begin()


def test_a_stopped_run_that_is_resumed_and_stopped_at_once_keeps_its_figures(
    config: TrainConfig, settings: Settings
) -> None:
    run = create_run(config, settings)
    first = work(run, settings, echo=None, ticker=ticking(run.request_stop))
    figures = run.view().metrics
    assert figures is not None and first["stopped"]
    run.claim(os.getpid())
    run.request_stop()
    again = work(run, settings, echo=None)
    assert again["stopped"] and again["metrics"] == first["metrics"]
    assert (run.view().state, run.view().metrics) == ("stopped", figures)
