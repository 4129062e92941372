"""How long a run may work where others use the machine too: whatever it does, and no longer."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from models import save_resnet
from pictures import make_folder

from tl_core import api
from tl_core.config import TrainConfig
from tl_core.files import read_json, write_json
from tl_core.jobs import keep_queue, stop_overdue
from tl_core.limits import BESIDE_TRAINING_MINUTES
from tl_core.ml.worker import work
from tl_core.runs import Run, create_run, list_runs
from tl_core.settings import Settings
from tl_core.ui.house_rules import what_is_allowed

LIMIT = 30  # minutes
TOO_LONG = LIMIT + BESIDE_TRAINING_MINUTES + 1


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, shared=True, max_run_minutes=LIMIT)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A worker that does nothing until it is told to end."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n")


def at_work(
    settings: Settings, process: subprocess.Popen[bytes], minutes: float, background: bool = True, **status: Any
) -> Run:
    """A frozen run that its worker began so many minutes ago."""
    options = {"data": "sample:shapes", "control": status.pop("control", False)}
    run = create_run(TrainConfig.parse(options), settings)
    run.claim(process.pid, background=background)
    begun = time.time() - 60 * minutes
    write_json(run.dir / "status.json", {"state": "running", "started": begun, "updated": begun, **status})
    return run


def test_a_run_that_works_too_long_is_asked_to_stop_and_told_why(
    settings: Settings, process: subprocess.Popen[bytes]
) -> None:
    run, other = at_work(settings, process, TOO_LONG), at_work(settings, process, LIMIT)
    assert stop_overdue(settings) == [run]
    assert (run.view().state, other.view().state) == ("stopping", "running")
    why = (run.dir / "stop").read_text()
    assert f"worked for {TOO_LONG} minutes" in why and "TL_MAX_RUN_MINUTES" in why and "of your own" in why
    assert stop_overdue(settings) == []  # once is enough


def test_what_earlier_processes_worked_on_it_counts(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    run = at_work(settings, process, 1)
    assert stop_overdue(settings) == []
    named = {**(read_json(run.dir / "process.json") or {}), "seconds_before": 60.0 * TOO_LONG}
    write_json(run.dir / "process.json", named)
    assert stop_overdue(settings) == [run]


@pytest.mark.parametrize("allowed", ["alone", "no limit", "foreground", "control", "pushing"])
def test_what_may_take_longer_goes_on(settings: Settings, process: subprocess.Popen[bytes], allowed: str) -> None:
    more = {"foreground": {"background": False}, "control": {"control": True}, "pushing": {"reached": "succeeded"}}
    run = at_work(settings, process, TOO_LONG, **more.get(allowed, {}))
    alone, unlimited = replace(settings, shared=False), replace(settings, max_run_minutes=None)
    assert stop_overdue({"alone": alone, "no limit": unlimited}.get(allowed, settings)) == []
    assert not run.stop_requested()
    if allowed == "control":
        write_json(run.dir / "status.json", {"state": "running", "started": time.time() - 60 * (TOO_LONG + LIMIT)})
        assert stop_overdue(settings) == [run]


def test_a_damaged_run_spares_no_other(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    damaged, run = at_work(settings, process, TOO_LONG), at_work(settings, process, TOO_LONG)
    (damaged.dir / "config.json").write_text("{")
    assert set(stop_overdue(settings)) == {damaged, run}


def test_whoever_looks_after_the_queue_sees_to_it(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    run = at_work(settings, process, TOO_LONG)

    class AfterOneLook(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return True

    keep_queue(settings, AfterOneLook())
    assert run.view().state == "stopping"


@pytest.mark.parametrize("stage", ["features", "training"])
def test_the_log_of_a_run_that_was_stopped_so_says_why(settings: Settings, tmp_path: Path, stage: str) -> None:
    """In the frozen pass, where nothing else ends it and there is no model yet; and in a training by steps."""
    values = {
        "data": str(make_folder(tmp_path / "photos", {"a": 12, "b": 12})),
        "model": str(save_resnet(tmp_path / "m").path),
    }
    more = {"strategy": "scratch", "max_steps": 200} if stage == "training" else {}
    run = create_run(TrainConfig.parse({**values, **more}), settings)

    def ticker(name: str, *_: int) -> None:
        if stage in name and not run.stop_requested():
            run.request_stop("it was stopped: a reason")

    report = work(run, settings, echo=None, ticker=ticker)
    assert report["stopped"] and run.view().state == "stopped"
    assert bool(report["model_dir"]) == (stage == "training")
    assert run.log_path.read_text().count("it was stopped: a reason") == 1
    assert [event["text"] for event in run.events() if event["kind"] == "note"].count("it was stopped: a reason") == 1
    again = api.resume(run.id)
    assert not again["stopped"] and len(list_runs(settings)) == 1


def test_the_page_names_the_limit_of_every_training(settings: Settings) -> None:
    assert f"up to {LIMIT} minutes for a training." in what_is_allowed(settings).lower()
