"""A run that is killed or stopped, wherever that is, and resumed, ends as one that was never interrupted: bit for bit.

Every kill is a SIGKILL to a process of its own, at an exact moment: after a step, after a line of its log, or as it is
about to touch a file.
"""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import save_resnet, save_vit
from pictures import make_folder
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

import tl_core
from tl_core.cli import main
from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.files import write_json
from tl_core.jobs import start_worker, stop_run
from tl_core.ml import control
from tl_core.ml.checkpoints import newest_whole_checkpoint
from tl_core.ml.control import STAGE as CONTROL_STAGE
from tl_core.ml.worker import work
from tl_core.runs import Run, create_run, find_run
from tl_core.settings import Settings, read_settings

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="processes are killed by signals"),
    pytest.mark.skipif(torch.accelerator.is_available(), reason="exact on a CPU; sums on an accelerator have no order"),
]

# A process for every kill, each forked from one that has imported everything and computed nothing.
if os.name == "posix":
    PROCESSES = multiprocessing.get_context("forkserver")
    PROCESSES.set_forkserver_preload(["tl_core.ml.training"])

# Learns so slowly that the first look, at step 4, is good by chance and better than the second; patience then ends it.
MISLED = {"data": "misleading", "augment": "none", "learning_rate": 1e-3, "warmup_steps": 12, "patience": 1}
# 60 training images make 4 steps of 16 in a pass, the last one smaller; 14 steps end in the middle of one. Looks at the
# validation images come at steps 4, 8, 12 and 14.
STEPS = 14
AUGMENTED = {"augment": "trivial", "erase": 0.25, "mix": "both", "mirror": "yes", "label_smoothing": 0.1}
LESSONS: dict[str, dict[str, Any]] = {
    "full": {"strategy": "full", "model": "resnet", "layer_decay": 0.7},
    "full, dropout, micro-batches": {"strategy": "full", "model": "vit", "dropout": 0.2, "micro_batch": 4},
    "last-blocks": {"strategy": "last-blocks", "model": "resnet", "unfreeze_blocks": 1},
    "lp-ft, dropout": {"strategy": "lp-ft", "model": "vit", "dropout": 0.2},
    "scratch, micro-batches": {"strategy": "scratch", "model": "resnet", "micro_batch": 4},
}


@dataclass(frozen=True)
class Moment:
    """When a process is killed. `kind` is "step" (`words` match its stage and number), "said" (a line of its log), or
    the name of one of Python's audit events (the paths it is about), which come just before the thing is done."""

    kind: str
    words: str  # a regular expression

    def strike(self, kind: str, text: str) -> None:
        if kind == self.kind and re.search(self.words, text):
            os.kill(os.getpid(), signal.SIGKILL)

    def tick(self, stage: str, step: int, total: int) -> None:
        self.strike("step", f"{stage} {step}")

    def write(self, text: str) -> None:
        self.strike("said", text)

    def flush(self) -> None:
        pass

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == self.kind:
            self.strike(event, " ".join(str(each) for each in arguments if isinstance(each, str | Path)))


def after_step(step: int, stage: str = "training") -> Moment:
    """Before anything is saved or looked at: the newest checkpoint is of the step before."""
    return Moment("step", f"^{stage} {step}$")


def writing(name: str) -> Moment:
    """A file of this name is complete and not yet in its place."""
    return Moment("os.rename", f"/{re.escape(name)}$")


WRITING_A_CHECKPOINT = Moment("open", r"/checkpoint-6/trainer_state\.json w$")
REMOVING_A_CHECKPOINT = Moment("os.remove", r"optimizer\.pt$")
TRAINED = writing("end.json")
CONTROL_SECONDS = 2.0


def _work_until(run: Path, settings: Settings, moment: Moment) -> None:
    control.MIN_SECONDS = CONTROL_SECONDS
    sys.addaudithook(moment.audit)
    work(Run(run), settings, echo=moment, ticker=moment.tick)


def kill(run: Run, moment: Moment, settings: Settings) -> None:
    """Work on a run in a process that is killed at a moment."""
    worker = PROCESSES.Process(target=_work_until, args=(run.dir, settings, moment))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL, f"{moment} never came"
    assert run.view().state == "lost"


def asking_to_stop(run: Run, step: int, stage: str = "training") -> Callable[[str, int, int], None]:
    def ask(named: str, done: int, _: int) -> None:
        if (named, done) == (stage, step):
            run.request_stop()

    return ask


def stop(run: Run, settings: Settings, step: int, stage: str = "training") -> dict[str, Any]:
    """Work on a run until it stops after this step, as it is asked to; the report."""
    report = work(run, settings, echo=None, ticker=asking_to_stop(run, step, stage))
    assert report is not None and report["stopped"]
    assert run.view().state == "stopped"
    return report


def finish(run: Run, settings: Settings) -> dict[str, Any]:
    report = work(run, settings, echo=None)
    assert report is not None
    assert run.view().state == "succeeded"
    return report


@dataclass
class Bench:
    """Pictures, models and a home folder that all tests here share, and what uninterrupted runs came to."""

    folder: Path
    settings: Settings
    endings: dict[str, Run] = field(default_factory=dict)

    def config(self, *, model: str = "vit", data: str = "photos", **values: Any) -> TrainConfig:
        return TrainConfig.parse(
            {
                "data": str(self.folder / data),
                "model": str(self.folder / model),
                "strategy": "full",
                "precision": "fp32",
                "batch_size": 16,
                "max_steps": STEPS,
                "learning_rate": 0.01,
                "mirror": "no",
                "patience": 0,
                "checkpoint_minutes": 1e-9,  # one after each step
                **values,
            }
        )

    def begin(self, *, micro_batch: int | None = None, **values: Any) -> Run:
        """A new run; `micro_batch` is what its plan would have on a machine with little memory."""
        run = create_run(self.config(**values), self.settings)
        if micro_batch is not None:
            kill(run, after_step(1), self.settings)
            plan = run.checkpoints_dir / "plan.json"
            write_json(plan, {**json.loads(plan.read_text()), "micro_batch": micro_batch})
        return run

    def uninterrupted(self, **values: Any) -> Run:
        key = json.dumps(values, sort_keys=True)
        if key not in self.endings:
            run = self.begin(**values)
            finish(run, self.settings)
            self.endings[key] = run
        return self.endings[key]

    def copy(self, run: Run, name: str) -> Run:
        return Run(shutil.copytree(run.dir, run.dir.with_name(f"{run.id}-{name}")))


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


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model_dir / "model.safetensors")


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


def assert_same_ending(run: Run, whole: Run) -> None:
    """The same weights, steps, best look and figures, and nothing left to resume from."""
    report, expected = run.report(), whole.report()
    assert report is not None and expected is not None
    for part in ("training", "refit", "metrics", "predictions", "stopped"):
        assert report[part] == expected[part], part
    assert_same(weights_of(run), weights_of(whole))
    assert not run.checkpoints_dir.exists()


def checkpoints_of(run: Run) -> list[str]:
    """Their names, oldest first (while there are fewer than ten steps)."""
    return sorted(folder.name for folder in run.checkpoints_dir.glob("checkpoint-*"))


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
    assert worker.wait(timeout=60) == 0
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
    assert process.wait(timeout=120) == 130
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
