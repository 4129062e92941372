"""A picture that somebody gives, on its way to the core. Must not know what is asked about it."""

from typing import Any

import gradio as gr


def picture_box(label: str, **more: Any) -> gr.Image:
    """For one picture, whose file's path is handed on unopened: the core alone decodes it, and says what is wrong.

    Gradio would open it before any handler, where what cannot be read ends as a traceback and no sentence. That the
    path is one of an upload has been checked before.
    """
    image = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,  # as it came: the core alone decides what is behind transparent pixels
        sources=["upload", "webcam", "clipboard"],
        buttons=[],
        **more,
    )
    decode = image.preprocess

    def hand_on(payload: Any) -> Any:
        return payload.path if payload is not None and payload.path else decode(payload)

    # A class of its own would make Gradio write a stub file beside its module when it is imported.
    image.preprocess = hand_on  # type: ignore[method-assign]
    return image
