"""How runs are drawn: one of them in full, and many in a list of buttons. Every word is escaped.

Must not know where runs are kept.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from tl_core.errors import TLError
from tl_core.runs import LIVE_STATES, RunView
from tl_core.terminal import spoken_seconds
from tl_core.ui.markup import as_sentence, facts, notice, notice_of_error, paragraph, progress_bar, text
from tl_core.ui.progress import (
    GOING_STATES,
    best_accuracy,
    seconds_left,
    share_done,
    spoken_ago,
    spoken_end,
    spoken_place,
    spoken_stage,
    spoken_state,
)

_STOPPING_EXPLAINED = (
    "“Stop” lets it finish its step and keeps what there is: a model, if it came that far, and where to go on from. "
    "“Stop now” ends its process at once: what was not saved yet is lost."
)
_WAITING_EXPLAINED = (
    "It begins by itself when its turn comes; the page may be closed. “Stop” takes it out of the queue."
)
_CURVES_EXPLAINED = (
    "Loss says how surprised the model is by the right answers: less is better. Where the validation loss rises while "
    "the training loss goes on falling, it learns pictures by heart (overfitting). The weights that are kept are among "
    "those that did best on validation images, which it does not learn from."
)
_NO_CURVES_YET = "The curves begin with the first steps of training."
_NO_CURVES_FROZEN = (
    "No curves: a frozen backbone looks at each picture once, and its head is then fitted in one go, without steps."
)


def run_head(view: RunView, events: Sequence[dict[str, Any]], now: float) -> str:
    """Name, state, stage with its bar, and the figures so far. `now` in seconds since the epoch."""
    return (
        f'<div class="tl-run-title"><h2>{text(view.name or view.run_id)}</h2>{_state(view)}</div>'
        f"{_stage(view, seconds_left(view, events))}{facts(_figures(view, events, now))}"
    )


def _state(view: RunView) -> str:
    return f'<span class="tl-state tl-state-{text(view.state)}">{text(spoken_state(view))}</span>'


def _stage(view: RunView, left: float | None) -> str:
    words = spoken_stage(view, left)
    if not words:
        return ""
    sentence = paragraph(as_sentence(words), "tl-stage")
    return sentence + (progress_bar(view.stage or words, share_done(view)) if view.state != "queued" else "")


def _figures(view: RunView, events: Sequence[dict[str, Any]], now: float) -> list[tuple[str, object]]:
    best = best_accuracy(events)
    pairs: list[tuple[str, object]] = [
        ("how", view.strategy),
        ("model", spoken_place(view.model)),
        ("images", spoken_place(view.data)),
    ]
    if best is not None:
        pairs.append(("best on validation images", f"{best[0]:.1%}, at step {best[1]:,}"))
    if view.metrics:
        pairs.append((f"right on {view.metrics['split']} images", f"{view.metrics['accuracy']:.1%}"))
    if view.seconds:
        pairs.append(("worked for", spoken_seconds(view.seconds)))
    pairs.append(("made", spoken_ago(now - view.created)))
    return pairs


def run_outcome(view: RunView, events: Sequence[dict[str, Any]], has_model: bool) -> str:
    """How it ended, or that it is about to; a screen reader says it."""
    if view.state == "failed":
        return notice_of_error(TLError(view.message or "the run failed; its log says more", view.details))
    words = spoken_end(view, events, has_model)
    return notice(words, "good" if view.state == "succeeded" else "warn") if words else ""


def stopping_explained(view: RunView) -> str:
    """What the buttons that end a run do to this one."""
    if view.state == "queued":
        return paragraph(_WAITING_EXPLAINED, "tl-quiet")
    return paragraph(_STOPPING_EXPLAINED, "tl-quiet") if view.state in LIVE_STATES else ""


def curves_explained(view: RunView, are_there: bool) -> str:
    """How to read the curves, or why there are none."""
    if are_there:
        return paragraph(_CURVES_EXPLAINED, "tl-quiet")
    if view.strategy == "frozen":
        return paragraph(_NO_CURVES_FROZEN, "tl-quiet")
    return paragraph(_NO_CURVES_YET, "tl-quiet") if view.state in GOING_STATES else ""


def note_list(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{text(note)}</li>" for note in notes)
    return f'<ul class="tl-notes">{items}</ul>' if items else ""


def run_list(views: Iterable[RunView], chosen: str, now: float) -> str:
    """A button for each run; a click on one tells `data-pick`, its id."""
    rows = "".join(
        f'<li><button type="button" class="tl-run" data-pick="{text(view.run_id)}" '
        f'aria-pressed="{"true" if view.run_id == chosen else "false"}"><b>{text(view.name or view.run_id)}</b>'
        f"{_state(view)}<span class=tl-run-figure>{text(_figure(view))}</span>"
        f"<small>{text(' · '.join((view.strategy, spoken_place(view.model), spoken_place(view.data))))}</small>"
        f"<small class=tl-run-ago>{text(spoken_ago(now - view.created))}</small></button></li>"
        for view in views
    )
    return f'<ul class="tl-runs" aria-label="Your runs, newest first">{rows}</ul>'


def _figure(view: RunView) -> str:
    """The most telling few words: how good it is, else how far."""
    if view.metrics:
        return f"{view.metrics['accuracy']:.1%} right"
    share = share_done(view)
    if share is not None and view.state in GOING_STATES:
        return f"{view.stage} {share:.0%}"
    return ""
