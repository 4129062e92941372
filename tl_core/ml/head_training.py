"""The same linear head trained by gradient steps: `transformers.Trainer` over stored features.

The choice for people who want to watch a training, or to compare it with the exact solution of `heads.py`. The features
are standardised, the steps work on them, and the standardisation is folded into the result.
Must not know: backbones, images, run folders (callbacks carry events out and stop requests in).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.ml.heads import LinearHead, Score
from tl_core.ml.logistic_regression import Floats, Integers, standardisation

# Two seconds. The log-loss is then about that of the exact head on digits and on drawn features of 10 to 50 classes;
# hundreds of classes would gain from more steps, and with few images training ends early by itself.
DEFAULT_STEPS = 2000
DEFAULT_LEARNING_RATE = 3e-3
DEFAULT_BATCH_SIZE = 128
DEFAULT_WEIGHT_DECAY = 0.01
WARMUP = 0.05  # part of the steps
# Validation is a matrix product, so it is looked at often; training ends after this many looks without a better one.
VALIDATIONS = 20
PATIENCE = 4
VALIDATION_BATCH_SIZE = 4096


def fit_by_trainer(
    features: Floats,
    targets: Integers,
    classes: int,
    *,
    validation: tuple[Floats, Integers] | None,
    output_dir: Path,
    seed: int,
    steps: int | None = None,
    epochs: float | None = None,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    batch_size: int = DEFAULT_BATCH_SIZE,
    weight_decay: float = DEFAULT_WEIGHT_DECAY,
    weights: Floats | None = None,
    callbacks: Sequence[Any] = (),
) -> LinearHead:
    """Train on `features` (N, D) and `targets` (N,); `epochs` where given, else `steps`, else DEFAULT_STEPS.

    With `validation` (features, targets) the weights with the least validation loss are kept, and training ends early
    when it stops falling. `weights` (C,) weigh the images of each class. `callbacks` are transformers.TrainerCallback.
    Checkpoints go to `output_dir`, which the caller owns and removes.
    """
    import torch
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

    mean, scale = (values.astype(np.float32) for values in standardisation(features))

    class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        """Standardised features and their targets, a whole batch at a time."""

        def __init__(self, features: Floats, targets: Integers) -> None:
            self._features = torch.from_numpy((features.astype(np.float32, copy=False) - mean) / scale)
            self._targets = torch.from_numpy(np.asarray(targets, dtype=np.int64))

        def __len__(self) -> int:
            return len(self._targets)

        def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
            return self.__getitems__([row])

        def __getitems__(self, rows: list[int]) -> dict[str, torch.Tensor]:
            return {"features": self._features[rows], "labels": self._targets[rows]}

    class Head(torch.nn.Module):
        """A linear layer that begins at zero (the loss is convex, so no random start is needed) and its loss."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(features.shape[1], classes)
            torch.nn.init.zeros_(self.linear.weight)
            torch.nn.init.zeros_(self.linear.bias)
            class_weights = None if weights is None else torch.as_tensor(np.asarray(weights, dtype=np.float32))
            self.loss = torch.nn.CrossEntropyLoss(weight=class_weights)

        def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.linear(features)
            return {"loss": self.loss(logits, labels), "logits": logits}

    if epochs is not None:
        steps = math.ceil(epochs * math.ceil(len(targets) / batch_size))
    steps = steps or DEFAULT_STEPS
    every = max(1, steps // VALIDATIONS)
    watched = "no" if validation is None else "steps"
    model = Head()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(output_dir),
            max_steps=steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_steps=WARMUP,
            lr_scheduler_type="cosine",
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=VALIDATION_BATCH_SIZE,
            eval_strategy=watched,
            eval_steps=every,
            save_strategy=watched,
            save_steps=every,
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=validation is not None,
            metric_for_best_model="eval_loss" if validation is not None else None,
            logging_steps=every,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False,
            seed=seed,
        ),
        train_dataset=Rows(features, targets),
        eval_dataset=None if validation is None else Rows(*validation),
        data_collator=lambda batch: batch,
        compute_metrics=_accuracy,
        callbacks=[*callbacks, *([] if validation is None else [EarlyStoppingCallback(PATIENCE)])],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    trainer.train()
    trained = trainer.model.linear
    weight = trained.weight.detach().cpu().numpy().astype(np.float64) / scale
    bias = trained.bias.detach().cpu().numpy().astype(np.float64) - weight @ mean
    scores = tuple(
        Score(entry["step"], entry["eval_loss"], entry["eval_accuracy"])
        for entry in trainer.state.log_history
        if "eval_loss" in entry
    )
    return LinearHead(weight.astype(np.float32), bias.astype(np.float32), scores=scores)


def _accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float(np.mean(prediction.predictions.argmax(axis=1) == prediction.label_ids))}
