"""What state a run is in, from what is stored of it and what a reader sees of its process.

Must not know files, nor how a process is found.
"""

from typing import Literal

StoredState = Literal["running", "succeeded", "stopped", "failed"]
State = Literal["queued", "starting", "running", "stopping", "lost", "succeeded", "stopped", "failed"]
LIVE_STATES = frozenset({"starting", "running", "stopping"})
RESUMABLE_STATES = frozenset({"queued", "lost", "stopped", "failed"})


def derive_state(
    stored: StoredState | None,
    started: bool,
    alive: bool,
    stop_requested: bool,
    queued: bool = False,
    reached: StoredState | None = None,
) -> State:
    """The state of a run, from its stored state and what the reader sees of its process.

    | stored   | process                     | state                                    |
    | -------- | --------------------------- | ---------------------------------------- |
    | none     | never started               | queued                                   |
    | none     | alive                       | starting, or stopping if that was asked  |
    | none     | gone                        | lost                                     |
    | running  | alive                       | running, or stopping if that was asked   |
    | running  | gone                        | the end that was `reached`, else lost    |
    | an end   | whatever                    | that end                                 |

    A run in the queue is queued, whatever an earlier process stored, until a process is named and that is taken away.
    A process is "started" from the moment it is named (`Run.claim`), by the one that launched it or, in the
    foreground, by itself. That also takes away what an earlier process stored: a run that is resumed is starting, not
    stopped, and a request to stop counts from then on. An end is `reached` while something is still done that cannot
    change it, such as publishing the model.
    """
    ended = stored is not None and stored != "running"
    if queued and (ended or not alive):
        return "queued"
    if stored is not None and stored != "running":
        return stored
    if stored is None and not started:
        return "queued"
    if not alive:
        return reached or "lost"
    if stop_requested:
        return "stopping"
    return "starting" if stored is None else "running"
