"""How far a piece of work is that a person waits for: the core's ticks on Gradio's progress bar, with the time left.

Must not know what is being done.
"""

import time

import gradio as gr

from tl_core.sources import Ticker
from tl_core.terminal import spoken_seconds
from tl_core.ui.markup import spoken_bytes

# What Gradio looks for in a handler's parameters; it belongs to nobody, and knows by itself whose event is worked on.
WAITING = gr.Progress()
# Before that, a pace is mostly that of starting.
_SILENT_SECONDS = 2.0


def tick_into(progress: gr.Progress, *, in_bytes: bool = False) -> Ticker:
    """A ticker (title, done, total) that shows itself in a handler's `progress`; bytes are spelled out."""
    title, begun, first = "", 0.0, 0

    def tick(said: str, done: int, total: int) -> None:
        nonlocal title, begun, first
        now = time.monotonic()
        if said != title:
            title, begun, first = said, now, done
        left = _time_left(now - begun, done - first, total - done)
        if in_bytes and total:
            told = f"{said.removesuffix(', bytes')}: {spoken_bytes(done)} of {spoken_bytes(total)}"
            progress(done / total, desc=told + left)
        else:
            progress((done, total) if total else None, desc=said + left)

    return tick


def _time_left(spent: float, done: int, left: int) -> str:
    if done <= 0 or left <= 0 or spent < _SILENT_SECONDS:
        return ""
    return f", about {spoken_seconds(spent / done * left)} left"
