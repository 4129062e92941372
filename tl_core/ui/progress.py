"""How far a run is, in words: its state, its stage, the time left, how it ended, how long ago.

Plain values in, sentences out; the same words wherever a run is shown. Must not know files or HTML.
"""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePath
from typing import Any

from tl_core.runs import LIVE_STATES, RunView
from tl_core.terminal import spoken_accuracy, spoken_seconds

# What still changes without anybody's doing.
GOING_STATES = LIVE_STATES | {"queued"}
# The pace is that of so many of the latest events: a machine that others use as well is not always as fast.
PACE_EVENTS = 8
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEP_EVENTS = frozenset({"training", "validation", "checkpoint"})
_BOUNDARIES = frozenset({"stage", "start", "end"})
# A stage of this name may begin at a checkpoint; every other one begins at its first step.
_STEPWISE = "training"
# What the folder of a collection that was put together in the page is called.
_DRAFT = "draft-"


def spoken_state(view: RunView) -> str:
    """The state in a word or two, with the place in the queue."""
    if view.state == "queued":
        return f"{ordinal(view.place)} in the queue" if view.place else "in the queue"
    return view.state


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def spoken_stage(view: RunView, left: float | None = None) -> str:
    """What the run does at the moment, how much of it is done, and how many seconds of it are `left`."""
    if view.state == "queued":
        return "waits for the runs before it to end"
    if view.state not in LIVE_STATES:
        return ""
    words = view.stage if view.stage not in ("", "starting") else "starting: the libraries are loaded"
    if view.total:
        words += f", {view.step:,} of {view.total:,}"
    return words + (f", about {spoken_seconds(left)} left" if left is not None else "")


def share_done(view: RunView) -> float | None:
    """How much of the stage is done, 0–1; None where nobody knows."""
    if view.state in ("running", "stopping") and view.total:
        return min(1.0, view.step / view.total)
    return None


def seconds_left(view: RunView, events: Sequence[dict[str, Any]]) -> float | None:
    """Seconds until the stage ends, at the pace of the latest events of this process; None while that is not known."""
    if view.state != "running" or view.step >= view.total:
        return None
    marks = _marks(view, events)
    if not marks:
        return None
    time, step = marks[0]
    if view.step <= step or view.updated <= time:
        return None
    return (view.updated - time) / (view.step - step) * (view.total - view.step)


def _marks(view: RunView, events: Sequence[dict[str, Any]]) -> list[tuple[float, int]]:
    """(time, step) that the latest events of this stage and process tell, oldest first."""
    within = list(takewhile(lambda event: event["kind"] not in _BOUNDARIES, reversed(events)))
    marks = [(event["time"], event["step"]) for event in within if event["kind"] in _STEP_EVENTS][:PACE_EVENTS]
    if marks:
        return marks[::-1]
    begun = events[-len(within) - 1] if len(within) < len(events) else None
    if begun is None or begun["kind"] != "stage" or begun.get("name") != view.stage:
        return []
    resumed = sum(event["kind"] == "start" for event in events) > 1
    return [] if resumed and view.stage.startswith(_STEPWISE) else [(begun["time"], 0)]


def spoken_end(view: RunView, events: Sequence[dict[str, Any]], has_model: bool) -> str:
    """What happened to a run that has ended or is about to, and what can be done; nothing for one that goes on."""
    if view.state == "succeeded":
        return f"It is done: {spoken_accuracy(view.metrics)}." if view.metrics else "It is done."
    if view.state == "stopping":
        return "It was asked to stop: it finishes its step and saves what there is. That can take a few seconds."
    if view.state == "stopped":
        kept = "The model it had reached is saved" if has_model else "There was no model yet"
        return f"It was stopped. {kept}; “Resume” goes on {_where_from(events)}."
    if view.state == "lost":
        return (
            "Its process is gone without a last word: it was ended at once, it crashed, memory ran out, or the "
            f"computer was switched off. “Resume” goes on {_where_from(events)}."
        )
    return ""


def _where_from(events: Sequence[dict[str, Any]]) -> str:
    own = without_control(events)
    step = max((event["step"] for event in own if event["kind"] == "checkpoint"), default=0)
    return f"from step {step:,}, which was saved" if step else "from what was saved"


def best_accuracy(events: Sequence[dict[str, Any]]) -> tuple[float, int] | None:
    """(share of validation images right, step) of the best look so far, the control's left out."""
    looks = [
        (event["accuracy"], event["step"])
        for event in without_control(events)
        if event["kind"] == "validation" and event.get("accuracy") is not None
    ]
    return max(looks, key=lambda look: look[0], default=None)


def without_control(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events that are the run's own and not those of its control, the training from random weights beside it."""
    kept, control = [], False
    for event in events:
        if event["kind"] in _BOUNDARIES:
            control = is_control(event)
        if not control:
            kept.append(event)
    return kept


def is_control(stage: dict[str, Any]) -> bool:
    """Whether the stage that this event begins belongs to the control."""
    return str(stage.get("name", "")).endswith("the control")


def notes_of(events: Sequence[dict[str, Any]]) -> list[str]:
    """What was decided on the person's behalf, once each: a resumed run decides the same again."""
    return list(dict.fromkeys(str(event.get("text", "")) for event in events if event["kind"] == "note"))


def spoken_place(word: str) -> str:
    """What images or a backbone were named by, without the folders of this computer."""
    if not word.startswith("/") and "\\" not in word:
        return word
    path = PurePath(word)
    return "your own images" if any(part.startswith(_DRAFT) for part in path.parts) else path.name


def spoken_ago(seconds: float) -> str:
    if seconds < _MINUTE:
        return "just now"
    for size, unit in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number:,} {unit}{'s' if number > 1 else ''} ago"
    return ""
