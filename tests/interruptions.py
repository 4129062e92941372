"""Runs that are killed or stopped at an exact moment, for tests of what becomes of them.

Every kill is a SIGKILL to a process of its own: after a step, after a line of its log, or as it is about to touch a
file.
"""

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tl_core.config import TrainConfig
from tl_core.files import write_json
from tl_core.ml import control
from tl_core.ml.worker import work
from tl_core.runs import Run, create_run
from tl_core.settings import Settings

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
