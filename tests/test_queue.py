"""The queue of runs in the background: who is next, who is started when, and what ends the waiting."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from models import save_resnet
from patience import PATIENCE
from pictures import make_folder

from tl_core import api
from tl_core.cli import main
from tl_core.config import TrainConfig
from tl_core.errors import ConfigError, JobError
from tl_core.files import read_json, write_json
from tl_core.jobs import (
    check_room_in_queue,
    enqueue,
    keep_queue,
    kill_run,
    queue_of,
    request_stop,
    start_next,
    stop_run,
)
from tl_core.runs import LIVE_STATES, Run, create_run, list_runs
from tl_core.settings import Settings, read_settings
from tl_core.terminal import lines_of_runs, spoken_place


@pytest.fixture
def config(tmp_path: Path, settings: Settings) -> Iterator[TrainConfig]:
    """A run that takes a minute when nobody ends it; afterwards no worker is left behind."""
    make_folder(tmp_path / "photos", {"a": 20, "b": 20})
    model = save_resnet(tmp_path / "m").path
    values = {"data": str(tmp_path / "photos"), "model": str(model), "strategy": "scratch", "minutes": 1}
    yield TrainConfig.parse(values)
    for run in list_runs(settings):
        if run.view().state == "queued":
            request_stop(run)
    for run in list_runs(settings):
        if run.works_in_background() and run.view().state in LIVE_STATES:
            kill_run(run)
    wait_for(lambda: not any(run.works_in_background() for run in list_runs(settings)))
    start_next(settings)  # reaps


@pytest.fixture
def busy(config: TrainConfig, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A background run whose worker does nothing until it is told to end."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    create_run(config, settings).claim(process.pid, background=True)
    yield process
    if process.poll() is None:
        process.communicate(b"\n")


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def state(run: Run) -> str:
    return run.view().state


def test_runs_wait_in_the_order_in_which_they_joined(
    config: TrainConfig, settings: Settings, busy: subprocess.Popen[bytes]
) -> None:
    made = [create_run(config, settings) for _ in range(3)]
    joined = [made[1], made[2], made[0]]
    for run in joined:
        enqueue(run, settings)
    enqueue(made[1], settings)
    assert queue_of(settings) == [run.id for run in joined], "joining again changes no place"
    views = [run.view(queue_of(settings)) for run in joined]
    assert [(view.state, view.place) for view in views] == [("queued", 1), ("queued", 2), ("queued", 3)]
    assert joined[0].view().place == 0
    assert start_next(settings) == []


def test_a_worker_that_ends_starts_the_next(config: TrainConfig, settings: Settings) -> None:
    first = api.train_in_background(config, owner="5f3a")
    second = api.train_in_background(config)
    assert (state(first), state(second)) == ("starting", "queued")
    assert (first.owner(), second.owner()) == ("5f3a", "local")
    assert stop_run(first) == "stopped"
    wait_for(lambda: state(second) != "queued")
    assert queue_of(settings) == []
    assert state(second) in LIVE_STATES, second.log_path.read_text()
    assert second.works_in_background()


def test_a_run_that_is_ended_at_once_makes_room_for_the_next(config: TrainConfig, settings: Settings) -> None:
    first, second = (api.train_in_background(config) for _ in range(2))
    kill_run(first)
    assert state(first) == "lost"
    assert state(second) in LIVE_STATES


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_killed_worker_does_not_block_the_queue(config: TrainConfig, settings: Settings) -> None:
    first, second = (api.train_in_background(config) for _ in range(2))
    killed = (read_json(first.dir / "process.json") or {})["pid"]
    os.kill(killed, signal.SIGKILL)
    stopped = threading.Event()
    keeper = threading.Thread(target=keep_queue, args=(settings, stopped))
    keeper.start()
    try:
        wait_for(lambda: state(second) != "queued")
        wait_for(lambda: not psutil.pid_exists(killed))  # not even as a zombie
    finally:
        stopped.set()
        keeper.join()
    assert (state(first), state(second) in LIVE_STATES) == ("lost", True)


def test_as_many_work_at_once_as_may(
    config: TrainConfig, settings: Settings, busy: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_PARALLEL_RUNS", "2")
    runs = [create_run(config, settings) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda run: enqueue(run, read_settings()), runs))
    states = sorted(state(run) for run in runs)
    assert states.count("queued") == 3 and len(queue_of(settings)) == 3


def test_runs_in_the_foreground_neither_wait_nor_are_waited_for(config: TrainConfig, settings: Settings) -> None:
    foreground, background = (create_run(config, settings) for _ in range(2))
    foreground.claim(os.getpid())
    enqueue(background, settings)
    assert (state(foreground), state(background)) == ("starting", "starting")


def test_a_queued_run_that_is_resumed_in_the_foreground_leaves_the_queue(
    config: TrainConfig, settings: Settings, busy: subprocess.Popen[bytes]
) -> None:
    run = create_run(config, settings)
    enqueue(run, settings)
    with run.hold():
        run.claim(os.getpid())
    assert (state(run), queue_of(settings)) == ("starting", [])
    with pytest.raises(JobError, match="is starting"):
        enqueue(run, settings)


@pytest.mark.parametrize("end", [request_stop, stop_run, kill_run])
def test_a_queued_run_that_is_stopped_leaves_the_queue(
    config: TrainConfig, settings: Settings, busy: subprocess.Popen[bytes], end: Callable[[Run], object]
) -> None:
    run = create_run(config, settings)
    enqueue(run, settings)
    end(run)
    assert (state(run), queue_of(settings)) == ("stopped", [])
    with pytest.raises(JobError, match=r"has ended \(stopped\)"):
        end(run)
    enqueue(run, settings)
    assert (state(run), queue_of(settings)) == ("queued", [run.id]), "it can be continued"


def test_a_resumed_run_that_leaves_the_queue_keeps_its_figures_and_no_old_failure(
    config: TrainConfig, settings: Settings, busy: subprocess.Popen[bytes]
) -> None:
    run = create_run(config, settings)
    status = {"state": "failed", "step": 7, "total": 9, "started": 10.0, "updated": 15.0, "error": {"message": "no"}}
    write_json(run.dir / "status.json", status)
    enqueue(run, settings)
    assert state(run) == "queued"
    request_stop(run)
    view = run.view()
    assert (view.state, view.step, view.total, view.seconds, view.message) == ("stopped", 7, 9, 5, "")


def test_a_live_run_is_asked_to_stop_without_waiting(
    config: TrainConfig, settings: Settings, busy: subprocess.Popen[bytes]
) -> None:
    (run,) = list_runs(settings)
    request_stop(run)
    assert state(run) == "stopping"


def test_a_run_that_has_succeeded_does_not_join(config: TrainConfig, settings: Settings) -> None:
    run = create_run(config, settings)
    write_json(run.dir / "status.json", {"state": "succeeded"})
    with pytest.raises(JobError, match="nothing to resume"):
        enqueue(run, settings)
    assert (state(run), queue_of(settings)) == ("succeeded", [])


def test_a_run_that_cannot_start_holds_nobody_up(
    config: TrainConfig, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    held, free = (create_run(config, settings) for _ in range(2))
    held.join_queue()
    with held.hold():
        enqueue(free, settings)
    assert (state(held), state(free)) == ("queued", "starting")
    assert "already being worked on" in caplog.text


def test_the_command_line_knows_who_waits(
    config: TrainConfig,
    settings: Settings,
    busy: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place in ("1st", "2nd"):
        assert main(["train", "--data", config.data, "--model", config.model, "--background"]) == 0
        assert f"waits for its turn, {place} in the queue" in capsys.readouterr().out
    assert main(["runs"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("queued     2nd in the queue")
    assert main(["stop", "last"]) == 0
    assert "has ended (stopped); `python -m tl_core resume" in capsys.readouterr().out
    assert [view["place"] for view in api.runs()] == [0, 1, 0]


def test_places_are_spoken() -> None:
    spoken = [spoken_place(place).split()[0] for place in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)]
    assert spoken == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
    assert spoken_place(0) == "not begun"


def test_a_queued_run_is_shown_with_its_place_even_when_it_has_figures(config: TrainConfig, settings: Settings) -> None:
    view = dataclasses.replace(create_run(config, settings).view(), place=2, metrics={"accuracy": 0.5})
    assert lines_of_runs([view.to_json()])[0].endswith("queued     2nd in the queue")


def test_shared_mode_is_a_switch_that_is_on_where_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    for space, word in itertools.product((False, True), (None, "1", "no")):
        for name, value in (("SPACE_ID", "a/b" if space else None), ("TL_SHARED", word)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        assert read_settings().shared is (space if word is None else word == "1")
    monkeypatch.setenv("TL_SHARED", "perhaps")
    with pytest.raises(ConfigError, match="TL_SHARED is 'perhaps'; it must be 1 or 0"):
        read_settings()


def test_a_visitor_of_a_shared_page_cannot_fill_the_queue_for_others(
    config: TrainConfig, settings: Settings, busy: subprocess.Popen[bytes]
) -> None:
    shared = dataclasses.replace(settings, shared=True, waiting_runs=2)
    for _ in range(2):
        check_room_in_queue("one", shared)
        enqueue(create_run(config, settings, "one"), settings)
    with pytest.raises(JobError, match="2 runs of yours wait already"):
        check_room_in_queue("one", shared)
    check_room_in_queue("another", shared)
    check_room_in_queue("one", settings)
