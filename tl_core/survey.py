"""Everything that is known of data before training: its pictures, which are alike, how it is divided, what to say.

Must not know: who asks, how it is shown, what is trained.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from tl_core.config import TrainConfig
from tl_core.images.collection import Collection
from tl_core.images.duplicates import Duplicates, find_duplicates
from tl_core.images.report import Report, make_report
from tl_core.images.splits import Division, divide
from tl_core.settings import Settings
from tl_core.sources import Ticker, open_data

# A survey of 50,000 pictures takes some 50 MB.
_REMEMBERED = 4


@dataclass(frozen=True)
class Survey:
    """What was found in data; `division` is the one that a training with the default seed uses."""

    collection: Collection
    duplicates: Duplicates
    division: Division
    report: Report


class Edited(Protocol):
    """Data that tells when it has changed: `state` is another value after every edit."""

    @property
    def words(self) -> str: ...

    @property
    def state(self) -> Hashable: ...

    def require_classes(self) -> None:
        """Raise DataError where there is too little to look at."""


_remembered: OrderedDict[Hashable, Survey] = OrderedDict()
_turn = threading.Lock()
# Several panels ask about the same draft at once: the first looks, the others wait for what it finds.
_looking: dict[Hashable, threading.Lock] = {}


def survey(data: str | Edited, settings: Settings, ticker: Ticker | None = None) -> Survey:
    """Look through data; of what can be edited, the last few answers are remembered. Raises DataError, HubError.

    Words are looked through anew each time: what they name may have changed on the disk.
    """
    if isinstance(data, str):
        return make_survey(open_data(data, settings, ticker=ticker))
    data.require_classes()
    state = data.state  # before reading: an edit meanwhile makes what is found the answer to neither state's question
    with _turn:
        mine = _looking.setdefault(state, threading.Lock())
    try:
        with mine:
            with _turn:
                if state in _remembered:
                    _remembered.move_to_end(state)
                    return _remembered[state]
            found = make_survey(open_data(data.words, settings, ticker=ticker))
            if data.state == state:
                with _turn:
                    _remembered[state] = found
                    while len(_remembered) > _REMEMBERED:
                        _remembered.popitem(last=False)
            return found
    finally:
        with _turn:
            _looking.pop(state, None)


def make_survey(collection: Collection) -> Survey:
    """The survey of pictures that are verified already."""
    duplicates = find_duplicates(collection.pictures)
    division = divide(collection, duplicates.groups, TrainConfig.model_fields["seed"].default)
    return Survey(collection, duplicates, division, make_report(collection, duplicates, division))
