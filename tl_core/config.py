"""What a training run was asked to do: every option once, with its default, bounds, help and group.

The command line's flags, the page's form, `config.json` and the model card are all read off `TrainConfig`; none of them
repeats an option. `None` means "derived from the data, the strategy and the machine", and the run says what it derived.
This module must not know what the options do: no torch, no reading of data, no command-line library.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from tl_core.catalogue import DEFAULT_MODEL
from tl_core.contradictions import OF_GRADIENT_STEPS, contradictions
from tl_core.errors import ConfigError
from tl_core.options import Option, describe_problem, flag, option, options_of

Strategy = Literal["auto", "frozen", "last-blocks", "full", "lp-ft", "scratch"]
AUTO: Strategy = "auto"  # one of the next four, chosen when the run begins
MAX_SEED = 2**32 - 1  # numpy's and torch's common range
SHARE = "share"  # the group of what is done with a model, which says nothing of how it was made


def _word(value: object) -> str:
    """Text as it is: file names may hold bytes that are no Unicode, which pydantic's own text may not."""
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "not text")
    if not value:
        raise PydanticCustomError("string_too_short", "empty")
    return value


Word = Annotated[str, PlainValidator(_word)]


class TrainConfig(BaseModel):
    """One validated set of options. Make it with `parse`, which reports every problem at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: Word = option(
        ...,
        "Images",
        "folder of class folders, folder with train/validation/test, zip, CSV/JSONL/parquet, "
        "Hub dataset id, or sample:NAME",
        "data",
    )
    image_column: str | None = option(None, "Image column", "column with paths or bytes (found by itself)", "data")
    label_column: str | None = option(None, "Label column", "column with class names (found by itself)", "data")

    model: Word = option(DEFAULT_MODEL, "Backbone", "embedded name, folder, run, or Hub id", "model")
    strategy: Strategy = option(
        "frozen",
        "Strategy",
        "auto: one of the next four, by looking at these images; frozen: train the head alone, on features; "
        "last-blocks: the head and the blocks below it; full: everything, gently; lp-ft: full, from a "
        "head fitted before; scratch: everything from random weights",
        "model",
    )
    unfreeze_blocks: int | None = option(
        None, "Unfrozen blocks", "blocks next to the head that last-blocks trains", "model", ge=1, le=1000
    )
    views: int = option(
        0,
        "Views",
        "varied versions of each image that frozen also learns a head from, for few images",
        "model",
        ge=0,
        le=64,
    )
    image_size: int | None = option(
        None, "Image size", "side in pixels that the backbone sees (its own)", "model", ge=16, le=1024
    )
    head_solver: Literal["exact", "trainer"] = option(
        "exact", "Head solver", "how a head is fitted on frozen features: exactly, or by gradient steps", "model"
    )
    drop_path: float | None = option(
        None,
        "Stochastic depth",
        "share of blocks left out at random in training (the backbone's own)",
        "model",
        ge=0,
        lt=1,
    )
    dropout: float | None = option(
        None, "Dropout", "share of activations left out at random in training (the backbone's own)", "model", ge=0, lt=1
    )

    name: str | None = option(None, "Name", "a name for the run", "run", max_length=80)
    thoroughness: Literal["quick", "standard", "thorough"] = option(
        "standard",
        "Thoroughness",
        "how many steps are derived for a backbone that trains: quick takes a quarter, thorough three times as many",
        "run",
    )
    control: bool = option(
        False, "Control", "also train from random weights for the same time, to see what transfer gained", "run"
    )

    epochs: int | None = option(None, "Epochs", "passes over the training images", "training", ge=1, le=10_000)
    max_steps: int | None = option(
        None, "Steps", "optimiser steps, in place of epochs", "training", ge=1, le=100_000_000
    )
    minutes: float | None = option(
        None, "Minutes", "time for training: the learning rate has come down by then", "training", gt=0, le=100_000
    )
    batch_size: int | None = option(None, "Batch size", "images in one optimiser step", "training", ge=2, le=65_536)
    learning_rate: float | None = option(
        None, "Learning rate", "peak step size of the optimiser", "training", gt=0, le=10
    )
    layer_decay: float | None = option(
        None,
        "Layer decay",
        "learning rate of a block as a share of that of the next block towards the head",
        "training",
        gt=0,
        le=1,
    )
    weight_decay: float | None = option(
        None, "Weight decay", "pull of the weights towards zero at each step", "training", ge=0, le=10
    )
    warmup_steps: int | None = option(
        None, "Warm-up", "steps in which the learning rate rises to its peak", "training", ge=0, le=1_000_000
    )
    max_grad_norm: float = option(
        1.0,
        "Gradient clipping",
        "longest step of the gradient; 0 switches clipping off",
        "training",
        ge=0,
        le=1_000_000,
    )
    label_smoothing: float | None = option(
        None, "Label smoothing", "share of the target spread over all classes", "training", ge=0, lt=1
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", "Class weights", "balanced: rare classes count as much as common ones", "training"
    )
    teacher: Word | None = option(
        None,
        "Teacher",
        "a model of the same classes, named as a backbone is, whose answers are learnt from beside the labels",
        "training",
    )
    teacher_weight: float = option(
        0.5, "Teacher's weight", "share of the loss that is the teacher's", "training", needs="teacher", ge=0, le=1
    )
    patience: int | None = option(
        None,
        "Patience",
        "looks at the validation images without a gain after which training ends; 0: never",
        "training",
        ge=0,
        le=1_000_000,
    )

    augment: Literal["auto", "none", "crop", "colour", "trivial", "rand"] = option(
        "auto",
        "Augmentation",
        "random changes of the training images: crops, crops and colour, TrivialAugment, RandAugment; none switches "
        "all of it off",
        "augmentation",
    )
    mirror: Literal["auto", "yes", "no"] = option(
        "auto", "Mirror images", "whether a mirrored picture keeps its class; auto measures it", "augmentation"
    )
    erase: float = option(
        0.0, "Random erasing", "share of training images in which a rectangle is erased", "augmentation", ge=0, le=1
    )
    mix: Literal["none", "mixup", "cutmix", "both"] = option(
        "none",
        "Mixing",
        "blend two images and their classes (mixup), or paste one into the other (cutmix)",
        "augmentation",
    )

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Precision", "number format of the backbone's arithmetic", "machine"
    )
    activation_checkpointing: Literal["auto", "on", "off"] = option(
        "auto", "Activation checkpointing", "compute activations twice instead of keeping them: less memory", "machine"
    )
    checkpoint_minutes: float = option(
        5.0, "Minutes between checkpoints", "how much work an interruption may cost", "machine", gt=0, le=100_000
    )
    seed: int = option(
        0, "Seed", "same seed, data, machine and number format: same result", "machine", ge=0, le=MAX_SEED
    )

    push_to: Word | None = option(
        None,
        "Publish as",
        "once the run has succeeded its model goes to the Hugging Face Hub as this owner/name",
        SHARE,
    )
    push_private: bool = option(
        False, "Private", "only you, or the organisation, can see what is published", SHARE, needs="push_to"
    )
    push_space: bool = option(
        False, "With a demo", "also a Space, owner/name-demo, where anybody can try the model", SHARE, needs="push_to"
    )
    push_replace: bool = option(
        False, "Replace", "change what is there already under that name", SHARE, needs="push_to"
    )

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Validate `values`: text is converted, and "auto" is as if the option were left out where it is derived then.

        Raises ConfigError naming every problem found.
        """
        values = {name: None if value == "auto" and name in _derived() else value for name, value in values.items()}
        try:
            config = cls.model_validate(dict(values))
        except ValidationError as failure:
            wrong = {str(error["loc"][0]) for error in failure.errors()}
            rest = {"data": "?"} | {name: value for name, value in values.items() if name not in wrong}
            sentences = [describe_problem(error, options()) for error in failure.errors()]
            raise _config_error(sentences + contradictions(cls.model_validate(rest))) from None
        problems = contradictions(config)
        if problems:
            raise _config_error(problems)
        return config

    def settled(self, strategy: str) -> "tuple[TrainConfig, list[str]]":
        """The same configuration with a strategy that was chosen for it, and the options that have no meaning there."""
        needless = OF_GRADIENT_STEPS if strategy == "frozen" else ("views",)
        unused = [name for name in self.changed() if name in needless and not (self.views and name == "mirror")]
        defaults = {name: type(self).model_fields[name].default for name in unused}
        return self.model_copy(update={**defaults, "strategy": strategy}), unused

    @property
    def needs_weights(self) -> bool:
        """Whether the backbone's pretrained weights are used, or only its architecture."""
        return self.strategy != "scratch"

    @property
    def trains_backbone(self) -> bool:
        """Whether anything below the head is trained; `auto` may."""
        return self.strategy != "frozen"

    @property
    def surely_trains(self) -> bool:
        """The same, where it has been decided."""
        return self.trains_backbone and self.strategy != AUTO

    def to_json(self) -> dict[str, Any]:
        return self.model_dump()

    def with_words(self, *, data: str, model: str, teacher: str | None) -> "TrainConfig":
        """The same configuration, its data, backbone and teacher named by these words."""
        return self.model_copy(update={"data": data, "model": model, "teacher": teacher})

    def portable(self) -> "TrainConfig":
        """The same configuration for what is handed on: without the folders of this computer, and publishing nothing,
        for who repeats a run does not publish it in somebody's name."""
        words = {name: getattr(self, name) for name in ("data", "model", "teacher")}
        names = {name: Path(word).name for name, word in words.items() if word and Path(word).is_absolute()}
        return self.model_copy(update={**names, **{name: type(self).model_fields[name].default for name in _sharing()}})

    def recipe(self) -> dict[str, Any]:
        """How a model is made, in words that hold on any computer: what its card and its folder say."""
        return {name: value for name, value in self.portable().to_json().items() if name not in _sharing()}

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults, in order of definition."""
        return {
            name: value
            for name, value in self.model_dump().items()
            if type(self).model_fields[name].is_required() or value != type(self).model_fields[name].default
        }

    def command(self) -> str:
        """The command line that means this configuration."""
        words = ["python", "-m", "tl_core", "train"]
        for name, value in self.changed().items():
            words += [flag(name)] if value is True else [flag(name), str(value)]
        return shlex.join(words)


def _derived() -> set[str]:
    """Options with a number, or none where the run derives it."""
    return {option.name for option in options() if option.derived}


def _sharing() -> set[str]:
    return {option.name for option in options() if option.group == SHARE}


def options() -> list[Option]:
    """All options in order of definition."""
    return options_of(TrainConfig)


def _config_error(problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0])
    return ConfigError(f"{len(problems)} options cannot be used as given", problems)
