"""Training a backbone's own weights with transformers' Trainer: one function maps a plan to TrainingArguments.

Must not know how data was found, which strategy trains what, or how the result is judged.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PrinterCallback, Trainer, TrainingArguments

from tl_core.errors import JobError
from tl_core.ml.backbone import Backbone
from tl_core.ml.callbacks import EpochCallback, RunCallback, SteeringCallback
from tl_core.ml.checkpoints import KEPT_CHECKPOINTS, best_step, load_best
from tl_core.ml.data import Collator, EvaluationImages, TrainingImages
from tl_core.ml.distillation import Teacher, distances
from tl_core.ml.groups import LayerGroup
from tl_core.ml.machine import current_device
from tl_core.ml.plan import Plan
from tl_core.ml.precision import PLAIN, Precision, prepare
from tl_core.ml.schedule import WarmupCosine
from tl_core.ml.steering import Steering
from tl_core.ml.strategies import hold_frozen, parameter_groups

# Fewer images are decoded faster than a loading process starts.
MIN_IMAGES_FOR_LOADERS = 2_000
MAX_LOADERS = 8


@dataclass(frozen=True)
class TrainingEnd:
    """How a training ended. `shipped_step` is the step whose weights are now in the model."""

    steps: int
    shipped_step: int
    stopped: bool
    out_of_time: bool
    ended_early: bool
    diverged: bool


@dataclass(frozen=True)
class Trained:
    """What of a model trains: its layer groups in order (none: all alike), and modules that stay in eval mode."""

    groups: Sequence[LayerGroup] = ()
    frozen: Sequence[nn.Module] = ()


class TrainingLoss:
    """Cross-entropy of logits (B, C) against class numbers (B,) or shares of classes (B, C), per image.

    `class_weights` (C,) have a mean of one over the training images. Over an optimiser step that is computed in several
    micro-batches it is the mean over all their images.
    """

    def __init__(self, class_weights: np.ndarray | None, label_smoothing: float) -> None:
        self.class_weights = class_weights
        weights = None if class_weights is None else torch.from_numpy(class_weights).float().to(current_device())
        self.weights = weights
        self.sum = nn.CrossEntropyLoss(weights, label_smoothing=label_smoothing, reduction="sum")

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        total: torch.Tensor = self.sum(outputs.logits.float(), labels)
        return total / self._images(labels, num_items_in_batch)

    def of_teacher(
        self,
        outputs: Any,
        answers: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The distance of logits to a teacher's `answers` (B, C), each image weighing as much as in the loss itself."""
        each = distances(outputs.logits.float(), answers)
        if self.weights is not None:
            each = each * (self.weights[labels] if labels.ndim == 1 else labels @ self.weights)
        return each.sum() / self._images(labels, num_items_in_batch)

    def _images(self, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | float:
        """How many images the step has, of which `labels` are some.

        Trainer counts the numbers in all labels of the step: one for each image, or one for each image and class.
        """
        return len(labels) if num_items_in_batch is None else num_items_in_batch * len(labels) / labels.numel()

    def figures(self, prediction: EvalPrediction) -> dict[str, float]:
        """The accuracy that steers: each image counts as much as it does in the loss."""
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        right = np.asarray(logits).argmax(-1) == prediction.label_ids
        weights = None if self.class_weights is None else self.class_weights[prediction.label_ids]
        return {"accuracy": float(np.average(right, weights=weights))}


class BackboneTrainer(Trainer):
    """Trainer, whose looks at the validation images leave the random numbers of the training as they are.

    A training that was stopped, and looked at for that, then goes on as if it had not been. A `teacher` takes part in
    the training alone.
    """

    def __init__(self, *, loss: TrainingLoss, teacher: Teacher | None, **options: Any) -> None:
        super().__init__(compute_loss_func=loss, compute_metrics=loss.figures, **options)
        self.loss = loss
        self.teacher = teacher

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        if self.teacher is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        answers = self.teacher(inputs["pixel_values"])  # before the student's own activations take memory
        labels, share = inputs["labels"], self.teacher.share
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = (1 - share) * loss + share * self.loss.of_teacher(outputs, answers, labels, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint's weights, by the names they have in memory.

        Trainer would save them by the names that published files have, which for many architectures (ViT) are others,
        load them by those in memory, and leave what it does not find as it was.
        """
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(folder / "model.safetensors"))

    def get_train_dataloader(self) -> DataLoader[Any]:
        return _undisturbed(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        return _undisturbed(super().get_eval_dataloader(eval_dataset))

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        with torch.random.fork_rng():
            return super().evaluate(*arguments, **options)


def _undisturbed(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader, whose processes leave it to the one that trains to end when all of them are told to."""
    inner = getattr(loader, "base_dataloader", loader)  # accelerate's is a shell around torch's
    inner.worker_init_fn = partial(_begin_loading, inner.worker_init_fn)
    return loader


def _begin_loading(begin: Callable[[int], None] | None, number: int) -> None:
    """In a loader's process; `begin` is what it would do else.

    Termination is again what this process does of itself. Torch's own handler ends a loader whoever else is to end, and
    without it the training fails.
    """
    if begin is not None:
        begin(number)
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None:  # None is one that Python has not set, and cannot
        signal.signal(signal.SIGTERM, handler)


def train_backbone(
    backbone: Backbone,
    trained: Trained,
    images: TrainingImages,
    validation: EvaluationImages,
    collator: Collator,
    loss: TrainingLoss,
    plan: Plan,
    callback: RunCallback,
    *,
    checkpoint: Path | None,
    seed: int,
    workers: int,
    look_first: bool,
    teacher: Teacher | None = None,
) -> TrainingEnd:
    """Train `backbone.model` in place, from `checkpoint` where there is one; leaves the best weights.

    `look_first`: the weights that it begins with are a candidate too. `teacher`: its answers are learnt as well as the
    labels. Raises JobError for a training that diverged.
    """
    run_folder = callback.folder
    precision = Precision(**plan.precision)
    prepare(backbone.model.to(current_device()), precision)
    if teacher is not None:
        teacher.compute_in(precision)
    optimizer = torch.optim.AdamW(
        parameter_groups(backbone.model, trained.groups, plan.learning_rate, plan.layer_decay, plan.weight_decay),
        fused=True,
    )
    schedule = WarmupCosine(plan.steps, plan.warmup_steps, callback.limit_seconds)
    callback.schedule = schedule
    steering = SteeringCallback(
        callback, plan.evaluate_every, Steering(len(validation), len(backbone.labels), plan.patience_steps)
    )
    loaders = min(MAX_LOADERS, workers - 1) if len(images) >= MIN_IMAGES_FOR_LOADERS else 0
    evaluates = len(validation) > 0
    trainer = BackboneTrainer(
        model=backbone.model,
        args=training_arguments(plan, precision, seed, str(run_folder), loaders, evaluates, look_first),
        train_dataset=images,
        eval_dataset=validation if evaluates else None,
        data_collator=collator,
        loss=loss,
        teacher=teacher,
        callbacks=[callback, EpochCallback(images), *([steering] if evaluates else [])],
        optimizers=(optimizer, LambdaLR(optimizer, lambda step: schedule(step))),
    )
    trainer.remove_callback(PrinterCallback)
    if checkpoint is not None:
        callback.recorder.note(f"continuing from step {checkpoint.name.rsplit('-', 1)[-1]}")
    resting = hold_frozen(backbone.model, trained.frozen)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        resting.remove()
    steps = trainer.state.global_step
    kept = None if steering.ships_current else best_step(run_folder)
    if kept is not None:
        load_best(backbone.model, run_folder)
    elif callback.diverged:
        raise JobError(
            f"the training diverged: after {steps:,} steps its loss has no bounds any more; "
            f"give a --learning-rate below {plan.learning_rate:.1g}",
        )
    prepare(backbone.model.eval(), PLAIN)
    return TrainingEnd(
        steps=steps,
        shipped_step=steps if kept is None else kept,
        stopped=callback.stopped,
        out_of_time=callback.out_of_time,
        ended_early=steering.ended_early,
        diverged=callback.diverged,
    )


def training_arguments(
    plan: Plan, precision: Precision, seed: int, folder: str, loaders: int, evaluates: bool, look_first: bool
) -> TrainingArguments:
    """The one place where a plan becomes TrainingArguments."""
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        per_device_eval_batch_size=plan.micro_batch,
        max_steps=plan.steps,
        max_grad_norm=plan.max_grad_norm,
        bf16=precision.dtype == "bf16",
        fp16=precision.dtype == "fp16",
        use_cpu=current_device().type == "cpu",
        eval_strategy="steps" if evaluates else "no",
        eval_steps=plan.evaluate_every,
        eval_on_start=evaluates and look_first,
        logging_steps=max(1, min(50, plan.steps // 20)),
        logging_nan_inf_filter=False,
        save_strategy="no",  # RunCallback saves by the clock, SteeringCallback what validates best
        save_total_limit=KEPT_CHECKPOINTS,
        dataloader_num_workers=loaders,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
    )
    # One process computes on one device: spread over several, a step would have as many times its images, and frozen
    # layers would only rest in the copy that is not used.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
