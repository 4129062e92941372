"""A place in the page for HTML. Must not know what stands there."""

from typing import Any

import gradio as gr


def slot(value: str = "", **more: Any) -> gr.HTML:
    """It takes no room while it is empty, unless it shows the progress of what will stand there."""
    return gr.HTML(value, padding=False, elem_classes="tl-slot", **more)
