"""What a training by gradient steps will do, derived from the data, the backbone and the options, each figure with a
reason.

Numbers only; no torch model is touched here. Made once per run and kept with its checkpoints, so that a resumed run
follows the same plan.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tl_core.config import TrainConfig, options
from tl_core.ml.augmentation import Augmentation
from tl_core.ml.precision import Precision

# Random weights need many steps whatever the size of the set; beyond this they no longer gain on small sets.
SCRATCH_MIN_STEPS = 1_500
SCRATCH_EPOCHS = 30
SCRATCH_LEARNING_RATE = 2e-3  # AdamW at batch 128; scaled with the square root of the batch (Malladi et al. 2022)
SCRATCH_BATCH = 128
SCRATCH_LABEL_SMOOTHING = 0.1  # Szegedy et al. 2016, section 7

# Three passes over a thousand pictures are under 100 steps, in which a new head hardly learns; a thousand passes over
# ten pictures learn them by heart. So: many passes over few pictures, fewer over many, and never less than some steps.
FINETUNE_EPOCHS = 15
FINETUNE_MIN_EPOCHS = 3
# Steps at least, for a backbone of ViT-B's size (Kolesnikov et al. 2020, BiT, take 500 for small sets); a smaller one
# brings less along and must learn more, in cheaper steps: more with the cube root, until random weights need no more.
# 2.8 M parameters, 10 photographs a class: lp-ft 91 % after 400 steps, 95 % after 1,500.
FINETUNE_MIN_STEPS = 400
LARGE_PARAMETERS = 86_000_000
MANY_IMAGES = 10_000  # from here on passes grow fewer, with the square root
# What thoroughness makes of the steps, in words and as a factor. A quarter of 400 still teaches a new head; three times
# as many is what a person can wait for over lunch. No fewer than one pass: each image was brought to be looked at.
THOROUGHNESS = {"quick": ("a quarter of that", 1 / 4), "thorough": ("three times that", 3.0)}
FINETUNE_BATCH = 32
FINETUNE_LARGE_BATCH = 64
# AdamW's peak for a backbone of five million parameters; larger ones take smaller steps, with the square root.
FINETUNE_LEARNING_RATE = 1e-3
REFERENCE_PARAMETERS = 5_000_000
LEARNING_RATE_BOUNDS = (5e-5, 1e-3)
# The stem's learning rate as a share of the head's falls as backbones grow, with this power of their parameters. What a
# large one knows of edges and textures holds for most pictures (ViT-B gets 0.12 and 0.85 a block; Clark et al. 2020 and
# Bao et al. 2022 take 0.65 to 0.9); a small one has little to lose: 2.8 M parameters were 7 points better at one rate.
STEM_SHARE_POWER = 0.75
MIN_STEM_SHARE = 0.02

WEIGHT_DECAY = 0.05  # with AdamW: Liu et al. 2022 (ConvNeXt), table 5; Dosovitskiy et al. 2021 use 0.1 and more
WARMUP_SHARE = 0.05
MAX_WARMUP = 1_000
EVALUATIONS = 20  # at most so many looks at the validation set in one training
PATIENT_SHARE = 0.5  # of the training, without a gain in accuracy or loss, before it ends
MIN_STEERING_IMAGES = 100  # fewer validation images gain and lose by chance
LAST_BLOCKS_SHARE = 0.25  # of a backbone's blocks

# Figures of a plan that are called otherwise than their option.
_OPTION_OF = {"steps": "max_steps", "patience_steps": "patience", "augmentation": "augment"}


@dataclass(frozen=True)
class Circumstances:
    """What a plan depends on beside the options."""

    images: int  # to train with
    validation: int
    parameters: int
    blocks: int  # layer groups between stem and head
    mirror: bool = False
    mirror_reason: str = ""


@dataclass(frozen=True)
class Plan:
    """`batch_size` images in an optimiser step, computed `micro_batch` at a time. Steps are optimiser steps."""

    batch_size: int
    micro_batch: int
    steps: int
    steps_per_epoch: int
    warmup_steps: int
    learning_rate: float
    layer_decay: float
    weight_decay: float
    label_smoothing: float
    max_grad_norm: float
    unfreeze_blocks: int | None
    evaluate_every: int
    patience_steps: int  # 0: never ends early
    augmentation: dict[str, Any]
    activation_checkpointing: bool = False
    precision: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def accumulation(self) -> int:
        return self.batch_size // self.micro_batch

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def make_plan(config: TrainConfig, about: Circumstances) -> Plan:
    """The plan of a strategy that trains the backbone, on a machine with enough memory."""
    reasons: dict[str, str] = {}
    batch = config.batch_size or _derive_batch(config, about, reasons)
    while about.images > batch and about.images % batch == 1:  # batch norm cannot take statistics of one image
        batch += 1
        reasons["batch_size"] = "so that no pass ends with a batch of one image"
    per_epoch = max(1, -(-about.images // batch))
    steps = config.max_steps or (config.epochs * per_epoch if config.epochs else 0)
    steps = steps or _derive_steps(config, about, per_epoch, reasons)
    every = max(per_epoch, -(-steps // EVALUATIONS))
    return Plan(
        batch_size=batch,
        micro_batch=batch,
        steps=steps,
        steps_per_epoch=per_epoch,
        warmup_steps=_derive_warmup(config, steps, reasons),
        learning_rate=config.learning_rate or _derive_learning_rate(config, about, batch, reasons),
        layer_decay=config.layer_decay or _derive_layer_decay(config, about, reasons),
        weight_decay=_derive_weight_decay(config, reasons),
        label_smoothing=_derive_smoothing(config, reasons),
        max_grad_norm=config.max_grad_norm,
        unfreeze_blocks=_derive_unfrozen(config, about, reasons),
        evaluate_every=every,
        patience_steps=_derive_patience(config, about, steps, every, reasons),
        augmentation=dataclasses.asdict(_derive_augmentation(config, about, reasons)),
        reasons=reasons,
    )


@dataclass(frozen=True)
class Figure:
    """One thing that was decided on the person's behalf: `value` is what `option` would be given to have it so; an
    option of "" is none that could be given."""

    option: str
    label: str
    value: Any
    spoken: str
    reason: str


def derived_figures(plan: Plan) -> list[Figure]:
    """What of the plan was derived, in its order."""
    labels = {option.name: option.label for option in options()}
    figures = []
    for name, reason in plan.reasons.items():
        option, value = _OPTION_OF.get(name, name), getattr(plan, name)
        label = labels.get(option, name.replace("_", " ").capitalize())
        figures.append(
            Figure(option if option in labels else "", label, _as_option(name, plan), _spoken(name, value), reason)
        )
    return figures


def describe_plan(plan: Plan) -> list[str]:
    """What was decided on the person's behalf, and why, a line each."""
    lines = [f"{figure.label.lower()} {figure.spoken}: {figure.reason}" for figure in derived_figures(plan)]
    precision = Precision(**plan.precision)
    return [*lines, f"training in {precision.label}: {precision.reason}"]


def _derive_batch(config: TrainConfig, about: Circumstances, reasons: dict[str, str]) -> int:
    if config.strategy == "scratch":
        most = SCRATCH_BATCH
    else:
        most = FINETUNE_LARGE_BATCH if about.images >= MANY_IMAGES else FINETUNE_BATCH
    reasons["batch_size"] = f"about a sixteenth of {about.images:,} images, 8 at least and {most} at most"
    return max(8, min(most, 2 ** (max(about.images // 16, 1).bit_length() - 1)))


def _derive_steps(config: TrainConfig, about: Circumstances, per_epoch: int, reasons: dict[str, str]) -> int:
    if config.strategy == "scratch":
        passes, least, why = float(SCRATCH_EPOCHS), SCRATCH_MIN_STEPS, "random weights learn slowly"
    else:
        fewer = max(1.0, about.images / MANY_IMAGES) ** 0.5
        passes = max(FINETUNE_MIN_EPOCHS, FINETUNE_EPOCHS / fewer)
        smaller = max(1.0, LARGE_PARAMETERS / about.parameters) ** (1 / 3)
        least = min(SCRATCH_MIN_STEPS, round(FINETUNE_MIN_STEPS * smaller / 10) * 10)
        why = f"a backbone of {about.parameters / 1e6:.1f} M parameters has much to learn"
        if smaller == 1.0:
            why = "with fewer a new head is hardly taught"
    reasons["steps"] = f"{passes:.0f} passes, and {least:,} steps at least: {why}"
    steps = max(least, round(passes * per_epoch))
    if config.thoroughness == "standard":
        return steps
    words, share = THOROUGHNESS[config.thoroughness]
    reasons["steps"] += f"; {words}, as {config.thoroughness} asks for"
    return max(per_epoch, round(share * steps))


def _derive_learning_rate(config: TrainConfig, about: Circumstances, batch: int, reasons: dict[str, str]) -> float:
    if config.strategy == "scratch":
        reasons["learning_rate"] = (
            f"{SCRATCH_LEARNING_RATE} at batch {SCRATCH_BATCH}, with the square root of the batch"
        )
        return SCRATCH_LEARNING_RATE * (batch / SCRATCH_BATCH) ** 0.5
    low, high = LEARNING_RATE_BOUNDS
    reasons["learning_rate"] = (
        f"small, so that what {about.parameters / 1e6:.1f} M parameters know is adjusted and not overwritten "
        f"({high:g} up to {REFERENCE_PARAMETERS / 1e6:.0f} M, less for more)"
    )
    return min(high, max(low, FINETUNE_LEARNING_RATE * (REFERENCE_PARAMETERS / about.parameters) ** 0.5))


def _derive_layer_decay(config: TrainConfig, about: Circumstances, reasons: dict[str, str]) -> float:
    if config.strategy == "scratch":
        return 1.0
    share = max(MIN_STEM_SHARE, min(1.0, (REFERENCE_PARAMETERS / about.parameters) ** STEM_SHARE_POWER))
    if share == 1.0:
        reasons["layer_decay"] = f"a backbone of {about.parameters / 1e6:.1f} M parameters has little to lose"
    else:
        reasons["layer_decay"] = f"{about.blocks} blocks down, the stem learns at {share:.0%} of the head's rate"
    return share ** (1 / (about.blocks + 1))


def _derive_warmup(config: TrainConfig, steps: int, reasons: dict[str, str]) -> int:
    if config.warmup_steps is not None:
        if config.warmup_steps >= steps:
            reasons["warmup_steps"] = f"warning: in {steps:,} steps the learning rate never reaches its peak"
        return config.warmup_steps
    reasons["warmup_steps"] = f"{WARMUP_SHARE:.0%} of the steps: the first gradients of new weights point anywhere"
    return min(max(1, round(WARMUP_SHARE * steps)), MAX_WARMUP)


def _derive_weight_decay(config: TrainConfig, reasons: dict[str, str]) -> float:
    if config.weight_decay is not None:
        return config.weight_decay
    reasons["weight_decay"] = "usual with AdamW; norms, biases and embeddings have none"
    return WEIGHT_DECAY


def _derive_smoothing(config: TrainConfig, reasons: dict[str, str]) -> float:
    if config.label_smoothing is not None:
        return config.label_smoothing
    if config.strategy == "scratch":
        reasons["label_smoothing"] = "keeps random weights from growing sure of what they learn by heart"
        return SCRATCH_LABEL_SMOOTHING
    reasons["label_smoothing"] = "so that its probabilities can be believed"
    return 0.0


def _derive_unfrozen(config: TrainConfig, about: Circumstances, reasons: dict[str, str]) -> int | None:
    if config.strategy != "last-blocks":
        return None
    if config.unfreeze_blocks:
        if config.unfreeze_blocks > about.blocks:
            reasons["unfreeze_blocks"] = "as many as this backbone has"
        return min(config.unfreeze_blocks, about.blocks)
    reasons["unfreeze_blocks"] = f"a quarter of {about.blocks} blocks"
    return max(1, round(LAST_BLOCKS_SHARE * about.blocks))


def _derive_patience(config: TrainConfig, about: Circumstances, steps: int, every: int, reasons: dict[str, str]) -> int:
    if config.patience is not None:
        if not about.validation:
            reasons["patience_steps"] = "there are no validation images to end a training by"
        return config.patience * every if about.validation else 0
    if config.strategy == "scratch":
        return 0
    if about.validation < MIN_STEERING_IMAGES:
        reasons["patience_steps"] = f"{about.validation} validation images are too few to end a training early by"
        return 0
    reasons["patience_steps"] = f"{PATIENT_SHARE:.0%} of the training without a gain on the validation images end it"
    return every * max(1, round(PATIENT_SHARE * steps / every))


def _derive_augmentation(config: TrainConfig, about: Circumstances, reasons: dict[str, str]) -> Augmentation:
    if config.augment == "none":
        return Augmentation("none", mirror=False, erase=0.0, mix="none")
    policy = config.augment
    if policy == "auto":  # on photographs of hands, 10 a class: crops 84 %, crops and colour 89 %, TrivialAugment 90 %
        policy = "colour"
    mirror = about.mirror if config.mirror == "auto" else config.mirror == "yes"
    made = Augmentation(policy, mirror=mirror, erase=config.erase, mix=config.mix)
    why = "as asked" if config.augment != "auto" else "what photographs of one thing differ by"
    if config.strategy == "scratch" and config.mirror == "auto":
        why += "; no mirror images, which could change the class (digits, letters): --mirror yes adds them"
    reasons["augmentation"] = f"{why}; {about.mirror_reason}" if about.mirror_reason else why
    return made


def _as_option(name: str, plan: Plan) -> Any:
    """A figure of the plan as the value of its option."""
    value = getattr(plan, name)
    match name:
        case "patience_steps":
            return value // plan.evaluate_every
        case "augmentation":
            return value["policy"]
        case "activation_checkpointing":
            return "on" if value else "off"
    return value


def _spoken(name: str, value: object) -> str:
    if name == "augmentation" and isinstance(value, dict):
        return Augmentation(**value).describe()
    if name == "patience_steps":
        return f"{value:,} steps" if value else "without end"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.2g}" if isinstance(value, float) else f"{value:,}"
