"""A run that is killed or stopped, wherever that is, and resumed, ends as one never interrupted: bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import (
    AUGMENTED,
    CONTROL_SECONDS,
    LESSONS,
    MISLED,
    REMOVING_A_CHECKPOINT,
    STEPS,
    TRAINED,
    WRITING_A_CHECKPOINT,
    Bench,
    Moment,
    after_step,
    asking_to_stop,
    assert_same,
    assert_same_ending,
    checkpoints_of,
    finish,
    kill,
    stop,
    weights_of,
    writing,
)
from models import save_resnet, save_vit
from patience import PATIENCE
from pictures import make_folder
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

import tl_core
from tl_core.cli import main
from tl_core.errors import JobError
from tl_core.jobs import start_worker, stop_run
from tl_core.ml import control
from tl_core.ml.checkpoints import newest_whole_checkpoint
from tl_core.ml.control import STAGE as CONTROL_STAGE
from tl_core.ml.worker import work
from tl_core.runs import Run, find_run
from tl_core.settings import Settings, read_settings

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="processes are killed by signals"),
    pytest.mark.skipif(torch.accelerator.is_available(), reason="exact on a CPU; sums on an accelerator have no order"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    # The pictures of a class depend on its place: in the second set, what is learnt is wrong for the validation images.
    for number, (name, validation) in enumerate({"photos": "abc", "misleading": "cab"}.items()):
        make_folder(folder / name / "train", dict.fromkeys("abc", 20), seed=10 * number + 1)
        make_folder(folder / name / "validation", dict.fromkeys(validation, 34), seed=10 * number + 2)
        make_folder(folder / name / "test", dict.fromkeys("abc", 4), seed=10 * number + 3)
    save_resnet(folder / "resnet")
    save_vit(folder / "vit")
    return Bench(folder, replace(read_settings(), home=folder / "home"))


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(bench: Bench, lesson: str) -> None:
    """In the middle of a pass, right after its end, after a look at the validation images, and when it is done."""
    values = {**AUGMENTED, **LESSONS[lesson]}
    whole = bench.uninterrupted(**values)
    run = bench.begin(**values)
    for moment in [after_step(3), after_step(5), Moment("said", "step 8: validation"), TRAINED]:
        kill(run, moment, bench.settings)
    assert "continuing from step 2" in run.log_path.read_text()
    finish(run, bench.settings)
    assert_same_ending(run, whole)


def test_a_run_killed_while_it_begins_and_writes_ends_as_if_it_had_not_been(bench: Bench) -> None:
    """Before there is a plan, at the first step, while the best weights and a checkpoint are written, and while an old
    checkpoint is removed."""
    values = {**AUGMENTED, **LESSONS["full"]}
    run = bench.begin(**values)
    moments = [writing("plan.json"), after_step(1), writing("best.safetensors"), WRITING_A_CHECKPOINT]
    for moment in [*moments, REMOVING_A_CHECKPOINT]:
        kill(run, moment, bench.settings)
    finish(run, bench.settings)
    assert_same_ending(run, bench.uninterrupted(**values))


def test_a_kill_after_the_training_costs_none_of_it(bench: Bench) -> None:
    run = bench.begin()
    for moment in [Moment("said", "^saving the model"), Moment("said", "^testing"), writing("model")]:
        kill(run, moment, bench.settings)
    kill(run, writing("report.json"), bench.settings)
    finish(run, bench.settings)
    assert_same_ending(run, bench.uninterrupted())
    assert stages_of(run).count("training") == 1


def stages_of(run: Run) -> list[str]:
    return [event["name"] for event in run.events() if event["kind"] == "stage"]


def test_early_stopping_does_not_depend_on_kills(bench: Bench) -> None:
    """Neither on one between two looks nor on one right after the last."""
    whole = bench.uninterrupted(**MISLED)
    assert ends_of(whole) == (8, 4)
    run = bench.begin(**MISLED)
    for moment in [after_step(7), TRAINED]:
        kill(run, moment, bench.settings)
    finish(run, bench.settings)
    assert_same_ending(run, whole)


def ends_of(run: Run) -> tuple[int, int]:
    """The last step of a run, and the one whose weights it shipped."""
    report = run.report()
    assert report is not None
    return report["training"]["steps_done"], report["training"]["shipped_step"]


@pytest.mark.slow
def test_a_killed_worker_is_lost_and_resumes_to_the_same_weights(bench: Bench) -> None:
    """The process that `train --background` starts."""
    values = {"max_steps": 100, "model": "resnet"}
    killed = bench.begin(**values)
    worker = start_worker(killed)
    wait_until(lambda: len(checkpoints_of(killed)) >= 2, worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert killed.view().state == "lost"
    finish(killed, bench.settings)
    assert "continuing from step" in killed.log_path.read_text()
    assert_same_ending(killed, bench.uninterrupted(**values))


def wait_until(condition: Callable[[], bool], worker: subprocess.Popen[bytes], deadline: float = 180) -> None:
    end = time.monotonic() + deadline
    while not condition():
        assert worker.poll() is None, "the worker ended early"
        assert time.monotonic() < end, "the worker took too long"
        time.sleep(0.02)


# ---------------------------------------------------------------- broken checkpoints


@pytest.fixture(scope="module")
def two_checkpoints(bench: Bench) -> Run:
    """A run with two checkpoints, and no more although one was written at each step."""
    run = bench.begin(**AUGMENTED)
    stop(run, bench.settings, 9)
    assert checkpoints_of(run) == ["checkpoint-8", "checkpoint-9"]
    return run


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_checkpoint_cut_off_falls_back_to_the_one_before(bench: Bench, two_checkpoints: Run, name: str) -> None:
    run = bench.copy(two_checkpoints, name)
    cut_off(run.checkpoints_dir / "checkpoint-9" / name)
    assert newest_whole_checkpoint(run.checkpoints_dir) == run.checkpoints_dir / "checkpoint-8"
    if name in ("optimizer.pt", "trainer_state.json"):  # the others go the same way
        finish(run, bench.settings)
        assert "continuing from step 8" in run.log_path.read_text()
        assert_same_ending(run, bench.uninterrupted(**AUGMENTED))


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_with_no_whole_checkpoint_a_run_begins_again_and_ends_the_same(bench: Bench, two_checkpoints: Run) -> None:
    run = bench.copy(two_checkpoints, "both")
    cut_off(run.checkpoints_dir / "checkpoint-9" / "optimizer.pt")
    (run.checkpoints_dir / "checkpoint-8" / "rng_state.pth").unlink()
    finish(run, bench.settings)
    assert "continuing from step" not in run.log_path.read_text()
    assert_same_ending(run, bench.uninterrupted(**AUGMENTED))


# ---------------------------------------------------------------- stopped


@pytest.mark.parametrize("lesson", ["full", "full, dropout, micro-batches"])
def test_a_run_stopped_now_and_then_ends_as_if_it_had_not_been(bench: Bench, lesson: str) -> None:
    """At steps with a look at the validation images and without one: the look at a training that is stopped neither
    counts nor costs a random number."""
    values = {**AUGMENTED, **LESSONS[lesson]}
    run = bench.begin(**values)
    for step in (5, 8, 13):
        assert stop(run, bench.settings, step)["training"]["steps_done"] == step
    finish(run, bench.settings)
    assert_same_ending(run, bench.uninterrupted(**values))


@pytest.mark.parametrize(("values", "step"), [({}, STEPS), (MISLED, 8)], ids=["its last step", "patience is over"])
def test_a_stop_in_the_step_that_ends_a_training_changes_nothing(
    bench: Bench, values: dict[str, Any], step: int
) -> None:
    whole = bench.uninterrupted(**values)
    assert ends_of(whole)[0] == step
    run = bench.begin(**values)
    work(run, bench.settings, echo=None, ticker=asking_to_stop(run, step))
    if run.view().state == "stopped":
        finish(run, bench.settings)
    assert_same_ending(run, whole)


@pytest.mark.parametrize(("values", "step", "shipped"), [({}, 5, 5), (MISLED, 7, 4)], ids=["last", "best"])
def test_a_stopped_run_has_a_model_that_works_and_goes_on(
    bench: Bench,
    values: dict[str, Any],
    step: int,
    shipped: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The last weights, or the best so far where they are better; a run that has succeeded does not go on."""
    monkeypatch.setenv("TL_HOME", str(bench.settings.home))
    run = bench.begin(**values)
    report = stop(run, bench.settings, step)
    assert ends_of(run) == (step, shipped)
    source = f"checkpoint-{step}/model.safetensors" if shipped == step else "best.safetensors"
    model = AutoModelForImageClassification.from_pretrained(run.model_dir)
    assert_same(model.state_dict(), load_file(run.checkpoints_dir / source))
    assert run.view().metrics is not None
    assert main(["runs"]) == 0
    assert f"after {step} of {STEPS} steps" in capsys.readouterr().out
    picture = next((bench.folder / "photos" / "test").rglob("*.png"))
    assert len(pipeline("image-classification", model=report["model_dir"])(str(picture))) == 3
    tl_core.resume(run.id)
    assert_same_ending(run, bench.uninterrupted(**values))
    with pytest.raises(JobError, match="there is nothing to resume"):
        tl_core.resume(run.id)
    with pytest.raises(JobError, match="there is nothing to resume"):
        work(run, bench.settings, echo=None)


@pytest.mark.slow
def test_stop_ends_a_worker_after_its_step(bench: Bench) -> None:
    run = bench.begin(max_steps=100_000, checkpoint_minutes=5)
    worker = start_worker(run)
    wait_until(lambda: run.view().stage == "training" and run.view().step >= 3, worker)
    assert stop_run(run) == "stopped"
    assert worker.wait(timeout=PATIENCE) == 0
    assert len(checkpoints_of(run)) == 1


@pytest.mark.slow
def test_an_interrupt_stops_after_the_step_and_exits_130(bench: Bench, settings: Settings) -> None:
    """Also where whoever read its progress has gone, as `| head` does."""
    words = bench.config(max_steps=100_000).command().split()[1:]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()

    def stepping() -> bool:
        runs = settings.runs_dir
        return runs.is_dir() and any(runs.iterdir()) and find_run("last", settings).view().step >= 3

    wait_until(stepping, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130
    assert find_run("last", settings).view().state == "stopped"


# ---------------------------------------------------------------- time, and the control


def test_time_spent_by_an_earlier_process_counts(bench: Bench) -> None:
    run = bench.begin(minutes=30)
    kill(run, after_step(3), bench.settings)
    events = run.events()
    began = next(i for i, event in enumerate(events) if event.get("name") == "training")
    for event in events[: began + 1]:
        event["time"] -= 3600  # as if that process had trained for an hour
    (run.dir / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    finish(run, bench.settings)
    assert ends_of(run)[0] == 3
    assert "the time is up after 3 steps" in run.log_path.read_text()


def test_a_run_interrupted_while_its_control_trains_keeps_its_model_and_gets_its_control(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control has a limit of time, so that its weights depend on the machine: it is only shown that it is done."""
    monkeypatch.setattr(control, "MIN_SECONDS", CONTROL_SECONDS)
    values = {**AUGMENTED, **LESSONS["full"]}
    whole = bench.uninterrupted(**values)
    run = bench.begin(**values, control=True)
    kill(run, after_step(1, CONTROL_STAGE), bench.settings)
    stopped = stop(run, bench.settings, 1, CONTROL_STAGE)
    assert stopped["control"] == {"stopped": True, "failed": None}
    assert_same(weights_of(run), weights_of(whole))
    kill(run, after_step(2, CONTROL_STAGE), bench.settings)
    found = finish(run, bench.settings)["control"]
    assert_same_ending(run, whole)
    assert not found["stopped"] and found["steps"] >= 2
    assert found["images"] == 12
    assert found["difference_ci"][0] <= found["difference"] <= found["difference_ci"][1]
    assert stages_of(run).count("training") == 1
