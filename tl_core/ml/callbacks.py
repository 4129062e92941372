"""Between transformers' Trainer and a run: events out, requests to stop in, checkpoints by the clock, the best weights.

Must not know the model or the data.
"""

import time
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tl_core.ml.checkpoints import keep_looks, kept_looks, save_best
from tl_core.ml.data import TrainingImages
from tl_core.ml.schedule import WarmupCosine
from tl_core.ml.steering import Look, Steering
from tl_core.recorder import Recorder

# Mean cross-entropy that no training comes back from: the true class would have a probability of e^-100.
DIVERGED_LOSS = 100.0


class RunCallback(TrainerCallback):
    """Writes progress and figures to the run; stops after the step in which a stop was asked for or the time is up.

    `minutes` are the training's, `seconds_spent` of them were used by earlier processes. A `schedule` is told how much
    time has gone by.
    """

    def __init__(
        self,
        recorder: Recorder,
        folder: Path,
        checkpoint_minutes: float,
        minutes: float | None = None,
        seconds_spent: float = 0.0,
    ) -> None:
        self.recorder = recorder
        self.folder = folder
        self.checkpoint_seconds = checkpoint_minutes * 60
        self.limit_seconds = None if minutes is None else minutes * 60
        self.seconds_spent = seconds_spent
        self.schedule: WarmupCosine | None = None
        self.stopped = False
        self.out_of_time = False
        self.diverged = False
        self._begun = self._saved = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._begun = self._saved = time.monotonic()
        if self.schedule is not None:
            self.schedule.elapsed_seconds = self.seconds_spent

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = time.monotonic()
        elapsed = self.seconds_spent + now - self._begun
        self.recorder.progress(state.global_step, self._steps_in_all(state, elapsed))
        if self.schedule is not None:
            self.schedule.elapsed_seconds = elapsed
        ends = state.global_step >= state.max_steps
        if self.recorder.run.stop_requested() and not ends:
            self.stopped = True
        if self.limit_seconds is not None and elapsed >= self.limit_seconds and not ends:
            self.out_of_time = True
        if self.stopped or self.out_of_time:
            control.should_training_stop = True
            control.should_save = True
        elif now - self._saved >= self.checkpoint_seconds and not ends:  # Trainer would go on from it, one step more
            control.should_save = True

    def _steps_in_all(self, state: TrainerState, elapsed: float) -> int:
        """As many as are planned, or as there is time for."""
        if self.limit_seconds is None:
            return state.max_steps
        return min(state.max_steps, max(state.global_step, round(state.global_step * self.limit_seconds / elapsed)))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved = time.monotonic()
        self.recorder.event("checkpoint", step=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            loss, rate = logs["loss"], logs.get("learning_rate", 0.0)
            self.recorder.event("training", step=state.global_step, loss=loss, learning_rate=rate)
            self.recorder.say(f"  step {state.global_step:,}: loss {loss:.3f}")
            if not loss < DIVERGED_LOSS:
                self.diverged = True
                control.should_training_stop = True
        elif "eval_loss" in logs:
            loss, accuracy = logs["eval_loss"], logs.get("eval_accuracy", 0.0)
            self.recorder.event("validation", step=state.global_step, loss=loss, accuracy=accuracy)
            self.recorder.say(f"  step {state.global_step:,}: validation loss {loss:.3f}, accuracy {accuracy:.3f}")


class SteeringCallback(TrainerCallback):
    """Keeps the weights that are to be shipped, and ends a training that no longer gains.

    What is kept, and when a training ends, depends on the looks that the plan foresees alone; the look at a training
    that a person stops only says whether its last weights are to be shipped as they are (`ships_current`).
    """

    def __init__(self, run: RunCallback, every: int, steering: Steering) -> None:
        self.run = run
        self.every = every
        self.steering = steering
        self.ships_current = False
        self.ended_early = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step:  # else the first look, if there is one, is still to come
            self.steering.looks = kept_looks(self.run.folder, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if control.should_training_stop or state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        look = Look(state.global_step, metrics["eval_accuracy"], metrics["eval_loss"])
        if state.global_step % self.every and self.run.stopped:
            self.ships_current = self.steering.would_keep(look)
            return
        if self.steering.add(look):
            save_best(model, look.step, self.run.folder)
        keep_looks(self.steering.looks, self.run.folder)
        if self.steering.is_in_vain() and state.global_step < state.max_steps:
            self.ended_early = True
            self.run.stopped = False  # there is nothing to go on with
            control.should_training_stop = True
            control.should_save = False


class EpochCallback(TrainerCallback):
    """Tells the training images which epoch it is, also when a resumed training enters in the middle of one."""

    def __init__(self, images: TrainingImages) -> None:
        self.images = images

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.images.epoch = int((state.epoch or 0.0) + 1e-6)  # whole epochs arrive as 0.9999999 or 1.0
