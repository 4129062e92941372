"""The form that TrainConfig means: one control for each option, made from its label, help, choices and kind.

Must not know which options there are, nor what they do.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gradio as gr

from tl_core.config import TrainConfig, options
from tl_core.errors import ConfigError
from tl_core.options import Option, flag

AUTO = "auto"
_FLAG = re.compile(r"--[a-z][a-z-]*")


def control_for(option: Option) -> gr.components.Component:
    """An empty control means "derived" where that is possible; every other one begins with the option's default."""
    common: dict[str, Any] = {"label": option.label, "info": _sentence(option.help), "elem_id": f"option-{option.name}"}
    if option.kind is bool:
        return gr.Checkbox(value=option.default, **common)
    if option.choices:
        return gr.Dropdown(list(option.choices), value=option.default, **common)
    if option.derived:
        # A number's control would show 0 for "nothing", and round what is not whole.
        return gr.Textbox(value="", placeholder=AUTO, max_lines=1, **common)
    if option.kind in (int, float):
        # Bounds are TrainConfig's to judge, in its words; here they would be a toast.
        return gr.Number(value=option.default, **common)
    return gr.Textbox(value=option.default or "", max_lines=1, **common)


def controls_for(names: Iterable[str]) -> dict[str, gr.components.Component]:
    """Controls by option, in the order of TrainConfig."""
    wanted = set(names)
    return {option.name: control_for(option) for option in options() if option.name in wanted}


def read_controls(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What was set, by option: nothing for what was left empty or at its default."""
    known = {option.name: option for option in options()}
    given = {}
    for name, entered in zip(names, values, strict=True):
        value = entered.strip() if isinstance(entered, str) else entered
        if value is None or value == "" or value == known[name].default:
            continue
        given[name] = value
    return given


def offered(chosen: Mapping[str, Any]) -> set[str]:
    """The options that TrainConfig takes beside `chosen`, such as a strategy: the others have no meaning there."""
    return {option.name for option in options() if option.name in chosen or _takes(option, chosen)}


def _takes(option: Option, chosen: Mapping[str, Any]) -> bool:
    """Whether every choice of the option is allowed, or a number, a tick or a word in its place."""
    needed = {option.needs: "?"} if option.needs else {}
    try:
        for value in _values_to_try(option):
            TrainConfig.parse({"data": "?", **needed, **chosen, option.name: value})
    except ConfigError:
        return False
    return True


def _values_to_try(option: Option) -> Sequence[Any]:
    """Values within the option's bounds that are not its default."""
    if option.kind is bool:
        return [not option.default]
    if option.choices:
        return [choice for choice in option.choices if choice != option.default]
    if option.kind not in (int, float):
        return ["?"]
    low = option.bounds.get("ge", option.bounds.get("gt", 0))
    high = option.bounds.get("le", option.bounds.get("lt", low + 2))
    between = (int(low), int(low) + 1) if option.kind is int else ((low + high) / 2, (low + 3 * high) / 4)
    return [value for value in between if value != option.default][:1]


def placeholders(names: Iterable[str], figures: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What stands in each empty control of `names`: what was derived for it, or that it will be."""
    derived = {figure["option"]: f"{AUTO}: {_written(figure['value'])}" for figure in figures}
    known = {option.name: option for option in options()}
    return {name: derived.get(name, AUTO) for name in names if known[name].derived}


def _written(value: Any) -> str:
    """As it would be typed."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def parse_form(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration that a form means. Raises ConfigError in the words of the form: labels in place of flags."""
    try:
        return TrainConfig.parse(values)
    except ConfigError as failure:
        raise ConfigError(in_labels(failure.message), [in_labels(line) for line in failure.details]) from None


def in_labels(words: str) -> str:
    """A sentence about flags as one about what the form calls them."""
    labels = {flag(option.name): f"“{option.label}”" for option in options()}
    return _FLAG.sub(lambda found: labels.get(found[0], found[0]), words)


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "." if words else ""
