"""What one may want to know before a training: the images, the backbones, what it would do."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tl_core.api.words import accept, model_at_hand, parsed
from tl_core.config import TrainConfig
from tl_core.errors import ConfigError
from tl_core.launch import once
from tl_core.settings import read_settings
from tl_core.sources import Named, Ticker, open_data

if TYPE_CHECKING:
    from tl_core.images.report import Report


def models(*, measure: bool = False) -> list[dict[str, Any]]:
    """The catalogue: embedded backbones first, then curated ones on the Hub. Any other Hub id works as well.

    `seconds_per_image` is what an embedded one takes for a picture on this machine, None for one that has not been
    measured; with `measure` those are measured now, and remembered.
    """
    from tl_core.catalogue import list_backbones
    from tl_core.ml.costs import cost_of

    settings = read_settings()
    return [
        {**backbone.to_json(), "seconds_per_image": cost_of(backbone, settings, measure=measure)}
        for backbone in list_backbones()
    ]


def models_at_hand() -> list[str]:
    """The catalogue's ids that need no network: the embedded ones, and those that were fetched from the Hub before."""
    from tl_core.ml.candidates import at_hand

    return at_hand(read_settings())


def check(
    data: str, *, image_column: str | None = None, label_column: str | None = None, ticker: Ticker | None = None
) -> "Report":
    """What is in `data`, verified: classes, skipped files, duplicates, splits, warnings. Raises DataError, HubError."""
    from tl_core.survey import make_survey

    settings = read_settings()
    collection = open_data(data, settings, image_column=image_column, label_column=label_column, ticker=ticker)
    return make_survey(collection).report


def preview(config: TrainConfig | Mapping[str, Any], *, ticker: Ticker | None = None) -> dict[str, Any]:
    """What `train` would do with a configuration and about how long it would take here, without doing it.

    {groups, parameters, trained_parameters, image_size, figures, seconds, seconds_low, seconds_high, seconds_reason,
    images}, as `tl_core.ml.preview` says. A model that has not been fetched from the Hub yet is not fetched for this:
    raises HubError then, and whatever else `train` would raise before it begins.
    """
    settings = read_settings()
    config = parsed(config, {})
    source = model_at_hand(config.model, settings, weights=config.needs_weights)
    teacher = model_at_hand(config.teacher, settings) if config.teacher else None
    collection = open_data(
        config.data, settings, image_column=config.image_column, label_column=config.label_column, ticker=ticker
    )
    from tl_core.ml.libraries import load_libraries

    load_libraries()
    from tl_core.ml.preview import preview as foresee

    return foresee(config, Named(source, collection, teacher), settings)


@once
def rank(
    data: str,
    *,
    models: Sequence[str] | None = None,
    images: int | None = None,
    seed: int = TrainConfig.model_fields["seed"].default,
    image_column: str | None = None,
    label_column: str | None = None,
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """Which backbone suits `data`, before anything is trained: {backbones: [{id, score, score_ci, …}] best first,
    failed: [{id, reason}], recommendation: {accuracy, speed: {id, reason}}, …}, as in `tl_core.ml.ranking`.

    `models` are words as `train` takes them, None for `models_at_hand`; `images` is the most to look at, None for as
    many as are worth their time. With the `seed` of a training its test images are left out. Raises DataError,
    HubError, ConfigError, and where no model can be used what was wrong with them.
    """
    begun = time.perf_counter()
    settings = read_settings()
    if images is not None and images < 1:
        raise ConfigError(f"--images is {images}; it must be at least 1, or left out")
    from tl_core.ml.candidates import open_candidates, refuse_none

    candidates = open_candidates(models, settings, accept)
    collection = open_data(data, settings, image_column=image_column, label_column=label_column, ticker=ticker)
    from tl_core.ml.libraries import load_libraries

    load_libraries()
    from tl_core.ml.ranking import rank_backbones
    from tl_core.ml.recommendation import recommend

    ranking = rank_backbones(candidates.sources, collection, settings, images=images, seed=seed, ticker=ticker)
    ranking = replace(ranking, failed={**candidates.failed, **ranking.failed})
    refuse_none(ranking.backbones, ranking.failed)
    seconds = round(time.perf_counter() - begun, 1)
    asked = {"data": collection.source, "image_column": image_column, "label_column": label_column}
    return {**asked, **ranking.to_json(), "recommendation": recommend(ranking), "seconds": seconds}
