"""Training a backbone's own weights with transformers' Trainer: one function maps a plan to TrainingArguments.

Used by every strategy that touches the backbone. Must not know how data was found or how the result is judged.
"""

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)
from transformers.trainer_utils import get_last_checkpoint

from tl_core.config import TrainConfig
from tl_core.files import read_json
from tl_core.images.collection import TRAIN, VALIDATION
from tl_core.ml.backbone import Backbone
from tl_core.ml.callbacks import EpochCallback, RunCallback
from tl_core.ml.data import Collator, EvaluationImages, TrainingImages
from tl_core.ml.machine import current_device
from tl_core.ml.plan import Plan
from tl_core.ml.precision import Precision
from tl_core.ml.transforms import Normalisation, TrainTransform
from tl_core.recorder import Recorder
from tl_core.settings import Settings

KEPT_CHECKPOINTS = 2  # the newest may be cut off by a kill; the one before is then whole
# Fewer images are decoded faster than a loading process starts.
MIN_IMAGES_FOR_LOADERS = 2_000
MAX_LOADERS = 8


@dataclass(frozen=True)
class TrainingEnd:
    """How a training ended: `stopped` when asked to, `out_of_time` when its minutes were used up."""

    steps: int
    stopped: bool
    out_of_time: bool


def train_backbone(
    backbone: Backbone,
    datasets: DatasetDict,
    plan: Plan,
    config: TrainConfig,
    settings: Settings,
    recorder: Recorder,
    class_weights: torch.Tensor | None = None,
    seconds_spent: float = 0.0,
) -> TrainingEnd:
    """Train `backbone.model` in place, from the newest whole checkpoint where the run has one.

    `class_weights` is (C,); `seconds_spent` on training by earlier processes count towards the run's minutes.
    """
    run = recorder.run
    precision = Precision(**plan.precision)
    device = current_device()
    backbone.model.to(device=device, memory_format=precision.memory_format)
    images = TrainingImages(
        datasets[TRAIN], TrainTransform(backbone.processor, plan.augment, config.seed), settings.max_pixels
    )
    loaders = min(MAX_LOADERS, settings.workers - 1) if len(images) >= MIN_IMAGES_FOR_LOADERS else 0
    callback = RunCallback(recorder, config.checkpoint_minutes, config.minutes, seconds_spent)
    optimizer = torch.optim.AdamW(_decay_groups(backbone.model, plan.weight_decay), lr=plan.learning_rate, fused=True)
    loss = nn.CrossEntropyLoss(
        weight=None if class_weights is None else class_weights.to(device), label_smoothing=plan.label_smoothing
    )
    validation = datasets[VALIDATION]
    trainer = Trainer(
        model=backbone.model,
        args=training_arguments(plan, config, precision, run.checkpoints_dir, loaders, evaluate=len(validation) > 0),
        train_dataset=images,
        eval_dataset=EvaluationImages(validation, backbone.processor, settings.max_pixels) if len(validation) else None,
        data_collator=Collator(Normalisation(backbone.processor), precision.channels_last),
        compute_loss_func=lambda outputs, labels, num_items_in_batch=None: loss(outputs.logits.float(), labels),
        compute_metrics=_accuracy,
        callbacks=[callback, EpochCallback(images)],
        optimizers=(optimizer, get_cosine_schedule_with_warmup(optimizer, plan.warmup_steps, plan.steps)),
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest_whole_checkpoint(run.checkpoints_dir)
    if checkpoint is not None:
        recorder.note(f"continuing from step {checkpoint.name.rsplit('-', 1)[-1]}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    backbone.model.to(memory_format=torch.contiguous_format).eval()
    return TrainingEnd(trainer.state.global_step, callback.stopped, callback.out_of_time)


def training_arguments(
    plan: Plan, config: TrainConfig, precision: Precision, folder: Path, loaders: int, *, evaluate: bool
) -> TrainingArguments:
    """The one place where a plan becomes TrainingArguments."""
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=plan.batch_size,
        per_device_eval_batch_size=plan.batch_size,
        max_steps=plan.steps,
        max_grad_norm=1.0,
        bf16=precision.dtype == "bf16",
        fp16=precision.dtype == "fp16",
        use_cpu=current_device().type == "cpu",
        eval_strategy="steps" if evaluate else "no",
        eval_steps=plan.evaluate_every,
        logging_steps=max(1, min(50, plan.steps // 20)),
        logging_nan_inf_filter=False,
        save_strategy="no",  # RunCallback saves by the clock
        save_total_limit=KEPT_CHECKPOINTS,
        dataloader_num_workers=loaders,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
    )


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be resumed from; broken ones (a kill while writing) are removed."""
    while folder.is_dir() and (newest := get_last_checkpoint(str(folder))):
        if _is_whole(Path(newest)):
            return Path(newest)
        shutil.rmtree(newest)
    return None


def _is_whole(checkpoint: Path) -> bool:
    try:
        with safe_open(checkpoint / "model.safetensors", framework="pt") as weights:
            weights.keys()
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):  # torch's files are zip archives
            with zipfile.ZipFile(checkpoint / name) as archive:
                if archive.testzip() is not None:
                    return False
    except (OSError, SafetensorError, zipfile.BadZipFile):
        return False
    return read_json(checkpoint / "trainer_state.json") is not None


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Norms and biases (every parameter with fewer than two dimensions) are not pulled towards zero."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((np.asarray(logits).argmax(-1) == prediction.label_ids).mean())}
