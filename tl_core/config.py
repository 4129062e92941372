"""What a training run was asked to do: every option once, with its default, bounds, help and group.

The command line's flags, the page's form, `config.json` and the model card are all read off `TrainConfig`; none of them
repeats an option. `None` means "derived from the data, the strategy and the machine", and the run says what it derived.
This module must not know what the options do: no torch, no reading of data, no command-line library.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from tl_core.catalogue import DEFAULT_MODEL
from tl_core.errors import ConfigError

Strategy = Literal["frozen", "scratch"]
MAX_SEED = 2**32 - 1  # numpy's and torch's common range


def _option(default: Any, label: str, help: str, group: str, **bounds: Any) -> Any:
    return Field(default, title=label, description=help, json_schema_extra={"group": group}, **bounds)


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

    data: Word = Field(
        title="Images",
        description="folder of class folders, folder with train/validation/test, zip, CSV/JSONL/parquet, "
        "Hub dataset id, or sample:NAME",
        json_schema_extra={"group": "data"},
    )
    image_column: str | None = _option(None, "Image column", "column with paths or bytes (found by itself)", "data")
    label_column: str | None = _option(None, "Label column", "column with class names (found by itself)", "data")
    model: Word = _option(DEFAULT_MODEL, "Backbone", "embedded name, folder, run, or Hub id", "model")
    strategy: Strategy = _option(
        "frozen",
        "Strategy",
        "frozen: train the head alone on features; scratch: everything from random weights",
        "model",
    )
    image_size: int | None = _option(
        None, "Image size", "side in pixels that the backbone sees (its own)", "model", ge=16, le=1024
    )
    head_solver: Literal["exact", "trainer"] = _option(
        "exact", "Head solver", "how a head is fitted on frozen features: exactly, or by gradient steps", "model"
    )
    name: str | None = _option(None, "Name", "a name for the run", "run", max_length=80)
    epochs: int | None = _option(None, "Epochs", "passes over the training images", "training", ge=1, le=10_000)
    max_steps: int | None = _option(
        None, "Steps", "optimiser steps at most (overrides epochs)", "training", ge=1, le=100_000_000
    )
    minutes: float | None = _option(
        None,
        "Minutes",
        "stop training after so many minutes and keep the model as it is then",
        "training",
        gt=0,
        le=100_000,
    )
    batch_size: int | None = _option(None, "Batch size", "images in one optimiser step", "training", ge=2, le=65_536)
    learning_rate: float | None = _option(
        None, "Learning rate", "peak step size of the optimiser", "training", gt=0, le=10
    )
    weight_decay: float | None = _option(
        None, "Weight decay", "pull of the weights towards zero at each step", "training", ge=0, le=10
    )
    label_smoothing: float | None = _option(
        None, "Label smoothing", "share of the target spread over all classes", "training", ge=0, lt=1
    )
    augment: Literal["auto", "none", "crop", "crop-flip"] = _option(
        "auto",
        "Augmentation",
        "random changes of the training images; auto leaves out mirror images where they could change the class",
        "training",
    )
    class_weights: Literal["none", "balanced"] = _option(
        "none", "Class weights", "balanced: rare classes count as much as common ones", "training"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _option(
        "auto", "Precision", "number format of the backbone's arithmetic", "machine"
    )
    checkpoint_minutes: float = _option(
        5.0, "Minutes between checkpoints", "how much work an interruption may cost", "machine", gt=0, le=100_000
    )
    seed: int = _option(0, "Seed", "same seed, same data, same machine: same result", "machine", ge=0, le=MAX_SEED)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Validate `values` (text is converted). Raises ConfigError naming every problem found."""
        try:
            config = cls.model_validate(dict(values))
        except ValidationError as failure:
            wrong = {str(error["loc"][0]) for error in failure.errors()}
            rest = {"data": "?"} | {name: value for name, value in values.items() if name not in wrong}
            sentences = [_sentence(error) for error in failure.errors()]
            raise _config_error(sentences + cls.model_validate(rest)._contradictions()) from None
        problems = config._contradictions()
        if problems:
            raise _config_error(problems)
        return config

    def _contradictions(self) -> list[str]:
        gradient_steps = self.strategy != "frozen" or self.head_solver == "trainer"
        problems = []
        if not gradient_steps:
            for name in ("epochs", "max_steps", "minutes", "batch_size", "learning_rate", "weight_decay"):
                if getattr(self, name) is not None:
                    problems.append(
                        f"{flag(name)} has no meaning for --strategy frozen with the exact solver, which takes no "
                        "gradient steps; leave it out or add --head-solver trainer"
                    )
        if self.strategy == "frozen":
            if self.augment not in ("auto", "none"):
                problems.append(
                    f"--augment {self.augment} cannot be used with --strategy frozen, whose features are computed once "
                    "per image; leave it out"
                )
            if self.minutes is not None and gradient_steps:
                problems.append(
                    "--minutes cannot be used with --strategy frozen, whose head takes seconds; leave it out"
                )
            if self.label_smoothing is not None:
                problems.append("--label-smoothing cannot be used with --strategy frozen; leave it out")
        elif self.head_solver == "trainer":
            problems.append(f"--head-solver belongs to --strategy frozen; leave it out for {self.strategy}")
        return problems

    @property
    def needs_weights(self) -> bool:
        """Whether the backbone's pretrained weights are used, or only its architecture."""
        return self.strategy != "scratch"

    def to_json(self) -> dict[str, Any]:
        return self.model_dump()

    def with_words(self, *, data: str, model: str) -> "TrainConfig":
        """The same configuration, its data and backbone named by these words."""
        return self.model_copy(update={"data": data, "model": model})

    def portable(self) -> "TrainConfig":
        """The same configuration without the folders of this computer, for what is handed on."""
        names = {
            name: Path(value).name for name in ("data", "model") if Path(value := getattr(self, name)).is_absolute()
        }
        return self.model_copy(update=names)

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
            words += [flag(name), str(value)]
        return shlex.join(words)


@dataclass(frozen=True)
class Option:
    """One field of TrainConfig, as a form or a parser needs it."""

    name: str
    label: str
    help: str
    group: str
    default: Any
    required: bool
    choices: tuple[str, ...]
    kind: type


def options() -> list[Option]:
    """All options in order of definition."""
    found = []
    for name, field in TrainConfig.model_fields.items():
        kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
        is_choice = isinstance(kinds[0], str)
        extra = field.json_schema_extra
        found.append(
            Option(
                name=name,
                label=field.title or name,
                help=field.description or "",
                group=str(extra["group"]) if isinstance(extra, dict) else "",
                default=None if field.is_required() else field.default,
                required=field.is_required(),
                choices=tuple(kinds) if is_choice else (),
                kind=str if is_choice else kinds[0],
            )
        )
    return found


def flag(name: str) -> str:
    """The command-line spelling of an option: batch_size -> --batch-size."""
    return "--" + name.replace("_", "-")


def read_config_file(path: Path) -> dict[str, Any]:
    """The options in a JSON file, unvalidated. Raises ConfigError when it is no JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as failure:
        raise ConfigError(f"--config {path} cannot be read: {failure}") from None
    except json.JSONDecodeError as failure:
        raise ConfigError(
            f"--config {path} is not valid JSON: {failure.msg} in line {failure.lineno}, column {failure.colno}"
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise ConfigError(f"--config {path} holds no options that could be meant") from None
    if not isinstance(values, dict):
        raise ConfigError(f'--config {path} must hold one JSON object such as {{"data": "sample:digits"}}')
    return values


def _config_error(problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0])
    return ConfigError(f"{len(problems)} options cannot be used as given", problems)


_PARSING = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
}


def _sentence(error: ErrorDetails) -> str:
    key, found = str(error["loc"][0]), error["input"]
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key.replace("-", "_"), TrainConfig.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known options: " + ", ".join(TrainConfig.model_fields)
        return f"there is no option {key!r}; {hint}"
    if error["type"] == "missing":
        return f"{flag(key)} is missing: give a folder, a zip, a table, or sample:digits to try"
    if error["type"] == "string_too_short":
        return f"{flag(key)} is empty; give a value or leave it out"
    option = next(option for option in options() if option.name == key)
    return f"{flag(key)} is {found!r}; it must be {_allowed(option, error['type'])}"


def _allowed(option: Option, error_type: str) -> str:
    if option.choices:
        return "one of " + ", ".join(option.choices)
    limits: dict[str, float] = {}
    for rule in TrainConfig.model_fields[option.name].metadata:
        limits |= {side: getattr(rule, side) for side in ("ge", "gt", "le", "lt", "max_length") if hasattr(rule, side)}
    if "max_length" in limits:
        return f"at most {limits['max_length']} characters"
    words = [_PARSING.get(error_type) or ("a whole number" if option.kind is int else "a number")]
    spoken = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [f"{spoken[side]} {limits[side]:,}" for side in ("ge", "gt", "le", "lt") if side in limits]
    return " ".join(words + ([", ".join(bounds)] if bounds else []))
