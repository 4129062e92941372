"""What a training by gradient steps will do, derived from the data and the options, with a reason for each figure.

Numbers only; no torch model is touched here. Made once per run and kept with its checkpoints, so that a resumed run
follows the same plan.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from tl_core.config import TrainConfig

# Random weights need many steps whatever the size of the set; beyond this they no longer gain on small sets.
SCRATCH_MIN_STEPS = 1_500
SCRATCH_EPOCHS = 30
SCRATCH_LEARNING_RATE = 2e-3  # AdamW at batch 128; scaled with the square root of the batch (Malladi et al. 2022)
SCRATCH_WEIGHT_DECAY = 0.05
SCRATCH_LABEL_SMOOTHING = 0.1  # Szegedy et al. 2016, section 7
BASE_BATCH = 128
WARMUP_SHARE = 0.05
EVALUATIONS = 20  # at most so many looks at the validation set in one training


@dataclass(frozen=True)
class Plan:
    batch_size: int
    steps: int
    steps_per_epoch: int
    warmup_steps: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    augment: str
    evaluate_every: int  # steps
    precision: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_scratch(config: TrainConfig, images: int) -> Plan:
    """The plan for training everything from random weights on `images` training images."""
    reasons: dict[str, str] = {}
    batch = config.batch_size or max(8, min(BASE_BATCH, 2 ** (max(images // 16, 1).bit_length() - 1)))
    if not config.batch_size:
        reasons["batch_size"] = f"at least 16 steps in a pass over {images:,} images, {BASE_BATCH} at most"
    while images > batch and images % batch == 1:  # batch norm cannot take statistics of one image
        batch += 1
        reasons["batch_size"] = "so that no pass ends with a batch of one image"
    per_epoch = max(1, -(-images // batch))
    if config.max_steps:
        steps = config.max_steps
    elif config.epochs:
        steps = config.epochs * per_epoch
    else:
        steps = max(SCRATCH_MIN_STEPS, SCRATCH_EPOCHS * per_epoch)
        reasons["steps"] = (
            f"{SCRATCH_EPOCHS} passes, and {SCRATCH_MIN_STEPS:,} steps at least: random weights learn slowly"
        )
    learning_rate = config.learning_rate
    if learning_rate is None:
        learning_rate = SCRATCH_LEARNING_RATE * (batch / BASE_BATCH) ** 0.5
        reasons["learning_rate"] = f"{SCRATCH_LEARNING_RATE} at batch {BASE_BATCH}, with the square root of the batch"
    augment = config.augment
    if augment == "auto":
        augment = "crop"
        reasons["augment"] = (
            "random crops; no mirror images, which could change the class (digits, letters, left and right): "
            "--augment crop-flip adds them where they do not"
        )
    return Plan(
        batch_size=batch,
        steps=steps,
        steps_per_epoch=per_epoch,
        warmup_steps=min(max(1, round(WARMUP_SHARE * steps)), 1000),
        learning_rate=learning_rate,
        weight_decay=SCRATCH_WEIGHT_DECAY if config.weight_decay is None else config.weight_decay,
        label_smoothing=SCRATCH_LABEL_SMOOTHING if config.label_smoothing is None else config.label_smoothing,
        augment=augment,
        evaluate_every=max(per_epoch, -(-steps // EVALUATIONS)),
        reasons=reasons,
    )
