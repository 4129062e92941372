"""How far a piece of work is that a person waits for: the core's ticks on Gradio's progress bar, with the time left.

Must not know what is being done.
"""

import time

import gradio as gr

from tl_core.sources import Ticker
from tl_core.terminal import spoken_seconds

# What Gradio looks for in a handler's parameters; it belongs to nobody, and knows by itself whose event is worked on.
WAITING = gr.Progress()
# Before that, a pace is mostly that of starting.
_SILENT_SECONDS = 2.0


def tick_into(progress: gr.Progress) -> Ticker:
    """A ticker (title, done, total) that shows itself in a handler's `progress`."""
    title, begun, first = "", 0.0, 0

    def tick(said: str, done: int, total: int) -> None:
        nonlocal title, begun, first
        now = time.monotonic()
        if said != title:
            title, begun, first = said, now, done
        progress((done, total) if total else None, desc=said + _time_left(now - begun, done - first, total - done))

    return tick


def _time_left(spent: float, done: int, left: int) -> str:
    if done <= 0 or left <= 0 or spent < _SILENT_SECONDS:
        return ""
    return f", about {spoken_seconds(spent / done * left)} left"
