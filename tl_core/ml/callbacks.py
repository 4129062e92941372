"""Between transformers' Trainer and a run: events out, requests to stop in, checkpoints by the clock.

Must not know the model or the data.
"""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tl_core.ml.data import TrainingImages
from tl_core.recorder import Recorder


class RunCallback(TrainerCallback):
    """Writes progress and figures to the run; stops after the step in which a stop was asked for or the time is up."""

    def __init__(
        self, recorder: Recorder, checkpoint_minutes: float, minutes: float | None = None, seconds_spent: float = 0.0
    ) -> None:
        self.recorder = recorder
        self.checkpoint_seconds = checkpoint_minutes * 60
        self.limit_seconds = None if minutes is None else minutes * 60 - seconds_spent
        self.stopped = False
        self.out_of_time = False
        self._begun = self._saved = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._begun = self._saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = time.monotonic()
        self.recorder.progress(state.global_step, state.max_steps)
        if self.recorder.run.stop_requested():
            self.stopped = True
        if self.limit_seconds is not None and now - self._begun >= self.limit_seconds:
            self.out_of_time = True
        if self.stopped or self.out_of_time:
            control.should_training_stop = True
            control.should_save = True
        elif now - self._saved >= self.checkpoint_seconds:
            control.should_save = True

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
            self.recorder.say(f"  step {state.global_step:,} of {state.max_steps:,}: loss {loss:.3f}")
        elif "eval_loss" in logs:
            loss, accuracy = logs["eval_loss"], logs.get("eval_accuracy", 0.0)
            self.recorder.event("validation", step=state.global_step, loss=loss, accuracy=accuracy)
            self.recorder.say(f"  step {state.global_step:,}: validation loss {loss:.3f}, accuracy {accuracy:.3f}")


class EpochCallback(TrainerCallback):
    """Tells the training images which epoch it is, also when a resumed training enters in the middle of one."""

    def __init__(self, images: TrainingImages) -> None:
        self.images = images

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.images.epoch = int((state.epoch or 0.0) + 1e-6)  # whole epochs arrive as 0.9999999 or 1.0
