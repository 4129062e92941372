"""How an event of the page reaches a handler: who waits for whom, and that every failure ends as a sentence.

Handlers return {component: value}. A TLError becomes a notice at the place it concerns; anything else is a fault of
ours, is told as such and goes to the server's log. Must not know panels.
"""

import functools
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

import gradio as gr
from gradio.events import Dependency

from tl_core.errors import TLError
from tl_core.ui.markup import notice_of_error, notice_of_fault

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")
Kind = Literal["view", "edit", "control", "model", "hub"]
# How many handlers of a kind work at once; the rest wait. Views wait for nobody: a page that is slow to look at seems
# broken. One model answers at a time: torch uses all cores for one answer. Who waits for
# the Hub makes nobody else wait.
_LIMITS: dict[Kind, int | None] = {"view": None, "edit": 4, "control": 4, "model": 1, "hub": 4}


def limits_of(kind: Kind) -> dict[str, Any]:
    """Who waits for whom, in Gradio's options."""
    return {"concurrency_id": None if _LIMITS[kind] is None else kind, "concurrency_limit": _LIMITS[kind]}


def listen(
    trigger: Any,
    handler: Callable[..., Any],
    *,
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    notice: gr.HTML,
    kind: Kind = "edit",
    api_name: str | None = None,
    asked: bool = True,
    **more: Any,
) -> Any:
    """Bind `handler` to a trigger, a list of them, or what an earlier binding gave, which it then follows.

    `notice` shows what went wrong, is cleared by the next success, and is where progress is shown. What nobody asked
    for, such as a tick of the clock, is bound with `asked=False` and clears nothing: what a button has said stays.
    """
    # `gr.on` takes triggers of components only.
    bind = trigger.then if isinstance(trigger, Dependency) else functools.partial(gr.on, trigger)
    # A view is one request with one answer: the queue would take two, and open and close a stream around each. Only a
    # view says nothing of its progress: it is over before anybody could read it. It has a place for it all the same,
    # for Gradio tells each place of every event's progress, and without one all outputs are such places.
    view = kind == "view"
    shown = {"queue": not view, "show_progress": "hidden" if view else "minimal", "show_progress_on": notice}
    return bind(
        told(handler, notice, asked=asked),
        inputs=list(inputs),
        outputs=[*outputs, notice],
        api_name=api_name,
        api_visibility="public" if api_name else "private",
        **{**limits_of(kind), **shown, **more},
    )


def told(handler: Callable[..., Any], notice: gr.HTML, *, asked: bool = True) -> Callable[..., Any]:
    """`handler`, with its failures shown in `notice`, which its success clears where somebody `asked` for it."""
    cleared = {notice: "" if asked else gr.skip()}  # an answer of nothing at all is none to Gradio

    @functools.wraps(handler)
    def answer_once(*values: Any, **named: Any) -> dict[Any, Any]:
        try:
            return {**cleared, **(handler(*values, **named) or {})}
        except Exception as failure:
            return {notice: _words_of(failure)}

    return answer_once


def told_to_client(answer: Callable[_Asked, _Answer]) -> Callable[_Asked, _Answer]:
    """`answer`, for who asks by name and has no notice: a failure is an error with all its sentences."""

    @functools.wraps(answer)
    def answer_or_refuse(*values: _Asked.args, **named: _Asked.kwargs) -> _Answer:
        try:
            return answer(*values, **named)
        except TLError as failure:
            raise gr.Error("\n".join([failure.message, *failure.details]), print_exception=False) from failure

    return answer_or_refuse


def _words_of(failure: Exception) -> str:
    if isinstance(failure, TLError):
        return notice_of_error(failure)
    if isinstance(failure, gr.Error):  # raised by a component about what was put into it
        return notice_of_error(TLError(str(failure.message)))
    traceback.print_exception(failure)
    return notice_of_fault(failure)
