"""From what a form says to a training that runs: the configuration it means, what that is in a terminal, the start.

Every configuration of the page goes through `configure`, whatever control or client it came from. Must not know
components.
"""

import json
from collections.abc import Mapping
from typing import Any

from gradio import OAuthToken

from tl_core import api
from tl_core.config import SHARE, TrainConfig
from tl_core.config import options as all_options
from tl_core.delivery import wish_of
from tl_core.drafts import Draft
from tl_core.errors import ConfigError, DataError
from tl_core.limits import surplus_runs, within_limits
from tl_core.runs import Run
from tl_core.settings import read_settings
from tl_core.sources import Ticker
from tl_core.ui.choices import allowed_model
from tl_core.ui.forecast import NO_IMAGES
from tl_core.ui.form import in_labels, offered, parse_form, read_controls
from tl_core.ui.once import Once
from tl_core.ui.session import own_draft, own_runs, owner_of
from tl_core.ui.signin import is_offered, token_for

# What stands for the images in a command while there are none.
SOME_IMAGES = "IMAGES"
# A double click, or the second of two tabs: longer than a click takes, shorter than a change of mind.
_starts = Once(seconds=2.0)


def draft_of(word: str | None, token: str | None) -> Draft:
    """The images that the asker has brought. Raises DataError where there are none yet."""
    if not word:
        raise DataError(NO_IMAGES.rstrip("."))
    draft = own_draft(word, token)
    draft.require_classes()
    return draft


def usable_options(strategy: str, head_solver: str | None) -> set[str]:
    """The options that have a meaning for this strategy, and for how its head is fitted where that can be chosen."""
    usable = offered({"strategy": strategy})
    if "head_solver" in usable and head_solver:
        usable = offered({"strategy": strategy, "head_solver": head_solver})
    return usable


def configure(values: Mapping[str, Any], data: str, token: str | None) -> TrainConfig:
    """The configuration that values mean, by option; what has no meaning for the strategy is left out.

    Raises ConfigError with every problem in the words of the form, ModelError; among them what is more than one person
    may ask of a machine that others use too.
    """
    model = allowed_model(str(values.get("model") or ""), token)
    usable = usable_options(str(values.get("strategy")), values.get("head_solver"))
    names = [name for name in values if name in usable]
    given = read_controls(names, [values[name] for name in names])
    if "teacher" in given:
        given["teacher"] = allowed_model(str(given["teacher"]), token)
    return _within_limits(parse_form({**given, "strategy": values.get("strategy"), "model": model, "data": data}))


def configure_options(options: Mapping[str, Any], data: str, token: str | None) -> TrainConfig:
    """The configuration of a client that names options itself: none is left out. Raises ConfigError, ModelError."""
    if not isinstance(options, Mapping):
        raise ConfigError("the options must be an object: names of options with their values")
    if "data" in options:
        raise ConfigError("the images are those of the collection; leave `data` out")
    config = _within_limits(parse_form({**options, "data": data}))
    teacher = allowed_model(config.teacher, token) if config.teacher is not None else None
    return config.with_words(data=data, model=allowed_model(config.model, token), teacher=teacher)


def shown(config: TrainConfig) -> TrainConfig:
    """The configuration as it may be shown: the folders of a machine that others use too are nobody's to know."""
    if not read_settings().shared:
        return config
    wish = {option.name: getattr(config, option.name) for option in all_options() if option.group == SHARE}
    return config.portable().model_copy(update=wish)  # whoever sees it is the one who wishes it


def as_json(config: TrainConfig) -> str:
    """The options that differ from their defaults, for a file that `train --config` reads."""
    return json.dumps(config.changed(), indent=2, ensure_ascii=False)


def runs_named(name: str | None, token: str | None) -> int:
    """How many runs of the asker have this name already."""
    return sum(run.view().name == name for run in own_runs(token)) if name else 0


def begin(
    config: TrainConfig,
    token: str | None,
    ticker: Ticker | None = None,
    *,
    signed: OAuthToken | None = None,
    known: bool = False,
) -> str:
    """Start a training, or let it join the queue; its run's id. Asked twice in a moment, it starts once.

    Where its model is to be pushed when it is done, that is with the token of who is `signed` in; `known`: the page has
    shown their name already, so that a sign-in which is missing has expired. Where only so many
    runs are kept of one person, the ones that have to go are removed once it is on its way. Raises TLError.
    """
    owner, settings = owner_of(token), read_settings()
    access = token_for(None, signed, settings, known=known) if config.push_to and is_offered(settings) else None

    def start() -> str:
        surplus_runs(own_runs(token), settings, more=1)  # refused before anything is done
        started = api.train_in_background(config, token=access, owner=owner, ticker=ticker).id
        for run in surplus_runs(own_runs(token), settings):
            run.remove()
        return started

    return _starts.ask((owner, json.dumps(config.to_json(), sort_keys=True)), start)


def go_on(run: Run, signed: OAuthToken | None = None) -> None:
    """Continue a run of the asker's. Raises JobError, HubError.

    One whose model is to be pushed takes the token of who is `signed` in; where nobody is, it trains all the same, and
    says that it will not push.
    """
    access = None
    if signed is not None and wish_of(run) is not None and is_offered(settings := read_settings()):
        access = token_for(None, signed, settings)
    api.resume_in_background(run.id, token=access)


def _within_limits(config: TrainConfig) -> TrainConfig:
    try:
        return within_limits(config, read_settings())
    except ConfigError as failure:
        raise ConfigError(in_labels(failure.message)) from None
