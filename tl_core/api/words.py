"""What the words of a call mean: a configuration, the models and images that it names. Must not know what is asked."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core.config import TrainConfig
from tl_core.errors import HubError
from tl_core.settings import Settings
from tl_core.sources import ModelSource, Named, Ticker, open_configured, open_model

if TYPE_CHECKING:  # it decodes, which not every word needs
    from tl_core.images.scan import Invitation


def parsed(config: TrainConfig | Mapping[str, Any] | str | Path | None, options: Mapping[str, Any]) -> TrainConfig:
    if isinstance(config, str | Path):
        return TrainConfig.parse({"data": str(config), **options})
    if isinstance(config, TrainConfig):
        return TrainConfig.parse({**config.to_json(), **options}) if options else config
    return TrainConfig.parse({**(config or {}), **options})


def open_words(
    config: TrainConfig,
    settings: Settings,
    ticker: Ticker | None,
    invite: "Callable[[ModelSource], Invitation | None] | None" = None,
) -> tuple[TrainConfig, Named]:
    """What a configuration names, and the same configuration in words that stay true: absolute paths, and a run's id
    for `last`. `invite` as for `open_configured`."""
    named = open_configured(config, settings, ticker, accept, invite=invite)
    teacher = named.teacher.named if named.teacher else None
    return config.with_words(data=named.collection.source, model=named.source.named, teacher=teacher), named


def model_at_hand(word: str, settings: Settings, *, weights: bool = True) -> ModelSource:
    """A model that a configuration names, from this disk alone."""
    from tl_core.hub.repository import Unreachable

    try:
        return open_model(word, replace(settings, offline=True), weights=weights, accept=accept)
    except Unreachable as failure:
        raise HubError(
            f"{word} is not on this machine yet: the estimate comes once it has been fetched, which a training "
            "does first of all"
        ) from failure


def accept(config: dict[str, Any]) -> None:
    """Refuse a Hub model that classifies no images before its weights are fetched."""
    from tl_core.ml.backbone import accept_architecture

    accept_architecture(config)
