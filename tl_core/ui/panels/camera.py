"""Pictures for a class taken with the camera, many at once: while it records, one every few tenths of a second.

Must not know which classes there are, nor how they are shown.
"""

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from tl_core.images.wording import count, shorten
from tl_core.ui.events import listen
from tl_core.ui.markup import notice
from tl_core.ui.session import Session, draft_word, own_draft
from tl_core.ui.slot import slot

FRAME_EVERY = 0.3  # seconds
BURST_SECONDS = 60
# Gradio begins a stream anew when its time is up, and forgets nothing: ours is up first, and is said.
_STREAM_SECONDS = 600
_CAMERA = {"video": {"width": 640, "height": 480}}


@dataclass(frozen=True)
class CameraPanel:
    burst: gr.Textbox  # when the camera began, and how many pictures it gave
    image: gr.Image
    counted: gr.HTML


def build_burst() -> gr.Textbox:
    """Apart from the rest, for it must be there also where the camera is folded away."""
    return gr.Textbox(visible="hidden", label="burst")


def build(burst: gr.Textbox) -> CameraPanel:
    with gr.Accordion("Take them with the camera", open=False, elem_id="classes-camera-fold"):
        image = gr.Image(
            label=f"Record takes a picture every {FRAME_EVERY} s: turn the thing, move it, change the light",
            sources=["webcam"],
            streaming=True,
            type="pil",
            format="jpeg",
            height=280,
            buttons=[],
            webcam_options=gr.WebcamOptions(mirror=False, constraints=_CAMERA),
            elem_id="classes-camera",
        )
        counted = slot(elem_id="classes-counted")
    return CameraPanel(burst, image, counted)


def bind(panel: CameraPanel, session: Session, label: gr.Textbox, trouble: gr.HTML) -> None:
    """`label` holds the class that the pictures are of; `trouble` shows what went wrong."""

    def take_frame(image: Image.Image | None, label: str, burst: str, word: str, token: str) -> dict[Any, Any]:
        if image is None:
            return {}
        begun, taken = read_burst(burst) or (time.time(), 0)
        if time.time() - begun > BURST_SECONDS:
            words = f"{count(taken, 'picture', 'pictures')} in a minute are enough at once: press Stop."
            return {panel.counted: notice(words, "warn")}
        own_draft(word, token).add_frame(label, image)
        words = (
            f"{count(taken + 1, 'picture', 'pictures')} taken for “{shorten(label)}”. Press Stop when there are enough."
        )
        return {panel.burst: f"{begun} {taken + 1}", panel.counted: notice(words)}

    def end_burst(burst: str, word: str, token: str) -> dict[Any, Any]:
        _, taken = read_burst(burst) or (0.0, 0)
        if not taken:
            return {panel.burst: ""}
        words = "The camera has stopped: what it took is in the class."  # a last frame may still be on its way
        return {session.draft: draft_word(own_draft(word, token)), panel.burst: "", panel.counted: notice(words)}

    streaming = listen(
        panel.image.stream,
        take_frame,
        inputs=[panel.image, label, panel.burst, session.draft, session.token],
        outputs=[panel.burst, panel.counted],
        notice=trouble,
        kind="view",
        queue=True,  # what Gradio streams through
        stream_every=FRAME_EVERY,
        time_limit=_STREAM_SECONDS,
    )
    listen(
        streaming,
        end_burst,
        inputs=[panel.burst, session.draft, session.token],
        outputs=[session.draft, panel.burst, panel.counted],
        notice=trouble,
        kind="view",
    )


def read_burst(burst: str | None) -> tuple[float, int] | None:
    """When a burst began, in seconds since the epoch, and how many pictures it gave; None before the first."""
    try:
        begun, taken = (burst or "").split()
        return float(begun), int(taken)
    except ValueError:
        return None
