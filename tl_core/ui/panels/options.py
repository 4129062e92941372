"""Everything else that a training can be told: the options without a control on the first screen, in folded groups.

Must not know what an option does, nor which have their control elsewhere.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from tl_core.config import options
from tl_core.ui import explanations
from tl_core.ui.explanations import GROUPS
from tl_core.ui.form import controls_for, placeholders
from tl_core.ui.markup import paragraph
from tl_core.ui.slot import slot


@dataclass(frozen=True)
class OptionsPanel:
    groups: dict[str, gr.Accordion]
    controls: dict[str, Any]  # by name, in the order of TrainConfig

    def offer(self, usable: Collection[str]) -> dict[Any, Any]:
        """Show the usable options, and the groups that hold any."""
        seen = set(usable) & set(self.controls)
        return {
            **{control: gr.update(visible=name in seen) for name, control in self.controls.items()},
            **{fold: gr.update(visible=bool(seen & set(_names_of(group)))) for group, fold in self.groups.items()},
        }

    @property
    def derivable(self) -> list[Any]:
        """The controls that are empty where the option is derived."""
        return [self.controls[name] for name in placeholders(self.controls, ())]

    def derived(self, figures: Iterable[Mapping[str, Any]]) -> dict[Any, Any]:
        """Each empty control says what was derived for it."""
        words = placeholders(self.controls, figures)
        return {self.controls[name]: gr.Textbox(placeholder=words[name]) for name in words}


def build(usable: Collection[str], elsewhere: Collection[str]) -> OptionsPanel:
    """Controls for all options but those that have one elsewhere; those that are usable are seen."""
    groups: dict[str, gr.Accordion] = {}
    made: dict[str, Any] = {}
    with gr.Accordion("Everything else", open=False, elem_id="train-everything"):
        slot(paragraph(explanations.OPTIONS, "tl-quiet"))
        for group, (title, words) in GROUPS.items():
            names = [name for name in _names_of(group) if name not in elsewhere]
            with gr.Accordion(title, open=False, visible=bool(set(usable) & set(names))) as groups[group]:
                slot(paragraph(words, "tl-quiet"))
                made |= controls_for(names)
    for name, control in made.items():
        control.visible = name in usable
    return OptionsPanel(groups, {option.name: made[option.name] for option in options() if option.name in made})


def _names_of(group: str) -> list[str]:
    return [option.name for option in options() if option.group == group]
