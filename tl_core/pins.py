"""Which commits of the Hub a run's models are, remembered in the run folder from the first time they are opened.

A repository moves on; a run that waits, or is continued tomorrow, begins with the weights that it was started with.
Must not know how a model is fetched.
"""

from dataclasses import asdict, dataclass

from tl_core.files import read_json, write_json
from tl_core.runs import Run

FILE_NAME = "revisions.json"


@dataclass(frozen=True)
class Pins:
    """The commits of what `model` and `teacher` name; None for what is not on the Hub, or not opened yet."""

    model: str | None = None
    teacher: str | None = None


NO_PINS = Pins()


def remember_pins(run: Run, pins: Pins) -> None:
    """Write them down, once; nothing where no model is from the Hub."""
    file = run.dir / FILE_NAME
    if pins != NO_PINS and not file.exists():
        write_json(file, asdict(pins))


def recall_pins(run: Run) -> Pins:
    """What the run began with; nothing is pinned in one whose models were never opened."""
    kept = read_json(run.dir / FILE_NAME) or {}
    return Pins(model=kept.get("model"), teacher=kept.get("teacher"))
