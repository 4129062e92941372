"""Several backbones opened at once: what is wrong with one of them does not end the others.

Loads neither torch nor a model. Must not know what the backbones are wanted for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tl_core import catalogue
from tl_core.errors import ConfigError, HubError, JobError, ModelError, TLError
from tl_core.settings import Settings
from tl_core.sources import ModelSource, open_model

# What can be wrong with one backbone and need not be with the next.
OF_ONE_MODEL = (ModelError, HubError, JobError)


@dataclass(frozen=True)
class Candidates:
    """Backbones that could be opened, each once, and what was wrong with the others, by the word for them."""

    sources: list[ModelSource]
    failed: dict[str, TLError]


def open_candidates(
    words: Sequence[str] | None, settings: Settings, accept: Callable[[dict[str, Any]], None] | None = None
) -> Candidates:
    """The backbones that `words` mean, None for those at hand; `accept` as `open_model` takes it.

    Raises ConfigError without a word, and as `refuse_none` where none can be opened.
    """
    if words is None:
        settings = replace(settings, offline=True)  # what is at hand is opened as it was found: without the network
        words = at_hand(settings)
    if not words:
        raise ConfigError("no backbone is named; name one or more, or leave --models out")
    opened: dict[str, ModelSource] = {}
    failed: dict[str, TLError] = {}
    for word in dict.fromkeys(words):
        try:
            source = open_model(word, settings, accept=accept)
        except OF_ONE_MODEL as failure:
            failed[word] = failure
        else:
            opened.setdefault(source.named, source)
    refuse_none(opened, failed)
    return Candidates(list(opened.values()), failed)


def refuse_none(usable: object, failed: Mapping[str, TLError]) -> None:
    """Raise where nothing is `usable`: what was wrong with the only one, or ModelError that says it of each."""
    if usable:
        return
    if len(failed) == 1:
        raise next(iter(failed.values()))
    reasons = [f"{name}: {failure.message}" for name, failure in failed.items()]
    raise ModelError(f"none of {len(failed):,} backbones can be used", reasons)


def at_hand(settings: Settings) -> list[str]:
    """The catalogue's ids that need no network: the embedded ones, and those that were fetched from the Hub before.

    What is damaged is among them: whoever opens it is told.
    """
    return [backbone.id for backbone in catalogue.list_backbones() if _is_here(backbone.id, settings)]


def _is_here(word: str, settings: Settings) -> bool:
    try:
        open_model(word, replace(settings, offline=True))
    except HubError:
        return False
    except ModelError:
        return True
    return True
