"""A place in the page for HTML. Must not know what stands there."""

from typing import Any

import gradio as gr

# What a place runs once, so that a click on a part with data-pick reaches its handler as event.picked.
PICK = (
    "element.addEventListener('click', event => { const part = event.target.closest('[data-pick]'); "
    "if (part) trigger('click', {picked: part.dataset.pick}); });"
)


def slot(value: str = "", **more: Any) -> gr.HTML:
    """It takes no room while it is empty, unless it shows the progress of what will stand there."""
    return gr.HTML(value, padding=False, elem_classes="tl-slot", **more)
