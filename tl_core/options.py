"""What an option is: one field of a pydantic model with a label, a help text, a group and bounds, and the words for a
value that it cannot take. A file can hold options too.

Flags, forms and cards are made from the `Option`s of a model. Must not know which options there are, nor what they do.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic_core import ErrorDetails

from tl_core.errors import ConfigError


@dataclass(frozen=True)
class Option:
    """One field, as a form or a parser needs it. `bounds` has some of ge, gt, le, lt and max_length."""

    name: str
    label: str
    help: str
    group: str
    default: Any
    required: bool
    choices: tuple[str, ...]
    kind: type
    bounds: dict[str, float]
    needs: str | None = None  # the option without which this one has no meaning

    @property
    def derived(self) -> bool:
        """Whether it is a number that is derived where it is left out, or given as "auto"."""
        return self.default is None and not self.required and self.kind in (int, float)


def option(default: Any, label: str, help: str, group: str, *, needs: str | None = None, **bounds: Any) -> Any:
    """A field of a model; `...` as the default makes it required, `needs` is as in `Option`."""
    return Field(default, title=label, description=help, json_schema_extra={"group": group, "needs": needs}, **bounds)


def options_of(model: type[BaseModel]) -> list[Option]:
    """All options of a model in order of definition."""
    return [_read(name, field) for name, field in model.model_fields.items()]


def flag(name: str) -> str:
    """The command-line spelling of an option: batch_size -> --batch-size."""
    return "--" + name.replace("_", "-")


def describe_problem(error: ErrorDetails, known: Iterable[Option]) -> str:
    """One sentence for a value that an option cannot take, or an option that is not there."""
    key, found = str(error["loc"][0]), error["input"]
    named = {option.name: option for option in known}
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key.replace("-", "_"), named, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known options: " + ", ".join(named)
        return f"there is no option {key!r}; {hint}"
    if error["type"] == "missing":
        return f"{flag(key)} is missing: give a folder, a zip, a table, or sample:digits to try"
    if error["type"] == "string_too_short":
        return f"{flag(key)} is empty; give a value or leave it out"
    return f"{flag(key)} is {found!r}; it must be {_allowed(named[key], error['type'])}"


_SPOKEN_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_PARSING = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
}


def _read(name: str, field: Any) -> Option:
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    is_choice = isinstance(kinds[0], str)
    kind = get_args(kinds[0])[0] if get_origin(kinds[0]) is Annotated else kinds[0]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    bounds = {
        side: getattr(rule, side)
        for rule in field.metadata
        for side in (*_SPOKEN_BOUNDS, "max_length")
        if hasattr(rule, side)
    }
    return Option(
        name=name,
        label=field.title or name,
        help=field.description or "",
        group=str(extra.get("group", "")),
        default=None if field.is_required() else field.default,
        required=field.is_required(),
        choices=tuple(kinds) if is_choice else (),
        kind=str if is_choice else kind,
        bounds=bounds,
        needs=extra.get("needs"),
    )


def _allowed(option: Option, error_type: str) -> str:
    if option.choices:
        return "one of " + ", ".join(option.choices)
    if option.kind is bool:
        return "true or false"
    if "max_length" in option.bounds:
        return f"at most {option.bounds['max_length']} characters"
    words = _PARSING.get(error_type) or ("a whole number" if option.kind is int else "a number")
    spoken = [f"{word} {option.bounds[side]:,}" for side, word in _SPOKEN_BOUNDS.items() if side in option.bounds]
    return " ".join([words, ", ".join(spoken)] if spoken else [words]) + (", or auto" if option.derived else "")


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
