"""Training and its runs: begin, continue, list, end, in this process or in one of its own."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_core.api.on_the_way import OnTheWay
from tl_core.api.words import open_words, parsed
from tl_core.config import TrainConfig
from tl_core.files import writing_to_home
from tl_core.launch import once
from tl_core.pins import remember_pins
from tl_core.recorder import LogStream
from tl_core.runs import LOCAL_OWNER, Run, create_run, find_run, list_runs
from tl_core.settings import Settings, read_settings
from tl_core.sources import Named, Ticker


@once
def train(
    config: TrainConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    token: str | None = None,
    echo: LogStream | None = None,
    ticker: Ticker | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train in this process; the run's report, with `model_dir` None where it was stopped before there was a model.

    The configuration is a TrainConfig, its values, the data alone, or values as keywords: `train("photos",
    strategy="full")`; the keywords are the flags of the command line. `ticker` hears how far it is, `echo`
    receives the log. Raises TLError; where it is about the configuration, the data, the backbone or what is in the way
    of `push_to`, nothing was written.

    With `push_to` the model is published once the run has succeeded, with `token` or the one that is at hand. The
    report's `push` says where it is, {repo_id, url, …}, or why it is not there, {repo_id, error, details, command}.
    """
    from tl_core.delivery import check_delivery

    settings = read_settings()
    begun = time.perf_counter()
    config = parsed(config, options)
    token = check_delivery(config, token, settings)
    on_the_way = OnTheWay(config, settings)
    config, named = open_words(config, settings, ticker, on_the_way.invite)
    from tl_core.ml.libraries import load_libraries

    load_libraries()
    from tl_core.ml.inputs import make_inputs
    from tl_core.ml.worker import work

    inputs = make_inputs(
        config,
        *named,
        seconds=time.perf_counter() - begun,
        backbone=on_the_way.backbone,
        prepared=on_the_way.prepared,
    )
    del on_the_way  # its backbone may be for other classes
    run = _made(config, named, settings)
    return work(run, settings, echo=echo, ticker=ticker, inputs=inputs, token=token)


@once
def train_in_background(
    config: TrainConfig | Mapping[str, Any],
    *,
    token: str | None = None,
    owner: str = LOCAL_OWNER,
    ticker: Ticker | None = None,
) -> Run:
    """Verify the images here, then let a process of its own train; its run folder tells how far it is.

    It starts at once, or waits in the queue while as many work in the background as may; where others use the machine
    too, within the limits of one person. With `push_to` as `train`: a token that is stored nowhere stays in the memory
    of this process, so that a run which waits is published only if this process is still there when its turn comes.
    Raises TLError.
    """
    from tl_core.delivery import check_delivery
    from tl_core.jobs import check_room_in_queue, enqueue
    from tl_core.limits import check_images, within_limits

    settings = read_settings()
    check_room_in_queue(owner, settings)
    config = within_limits(parsed(config, {}), settings)
    token = check_delivery(config, token, settings)
    config, named = open_words(config, settings, ticker)
    check_images(len(named.collection.pictures), settings)
    run = _made(config, named, settings, owner)
    enqueue(run, settings, _only_in_memory(token))
    return run


@once
def resume(
    run: str, *, token: str | None = None, echo: LogStream | None = None, ticker: Ticker | None = None
) -> dict[str, Any]:
    """Continue a run from its last checkpoint in this process; as `train`, but where there is no token to publish it
    with, that is said and the run goes on. Raises JobError for one that cannot be continued."""
    from tl_core.jobs import check_resumable

    settings = read_settings()
    found = find_run(run, settings)
    check_resumable(found)
    from tl_core.ml.worker import work

    return work(found, settings, echo=echo, ticker=ticker, token=token)


@once
def resume_in_background(run: str, *, token: str | None = None) -> Run:
    """Continue a run in a process of its own, at once or when its turn has come; the token as `train_in_background`.
    Raises JobError where it cannot be."""
    from tl_core.delivery import wish_of
    from tl_core.hub.account import token_at_hand
    from tl_core.jobs import enqueue

    settings = read_settings()
    found = find_run(run, settings)
    token = token or token_at_hand() if wish_of(found) else None
    enqueue(found, settings, _only_in_memory(token))
    return found


def _made(config: TrainConfig, named: Named, settings: Settings, owner: str = LOCAL_OWNER) -> Run:
    """A run that begins with exactly these models, whichever process opens them next."""
    run = create_run(config, settings, owner)
    with writing_to_home(settings):
        remember_pins(run, named.pins)
    return run


def _only_in_memory(token: str | None) -> str | None:
    """The token where no other process could find it by itself."""
    from tl_core.hub.account import is_stored

    return token if token and not is_stored(token) else None


def runs() -> list[dict[str, Any]]:
    """All runs with their states and places in the queue, oldest first."""
    from tl_core.jobs import queue_of

    settings = read_settings()
    queue = queue_of(settings)
    return [run.view(queue).to_json() for run in list_runs(settings)]


def stop(run: str, *, now: bool = False) -> dict[str, Any]:
    """End a run after its current step and wait for that; `now` ends its process at once. One that is queued leaves
    the queue. Raises JobError."""
    from tl_core.jobs import kill_run, stop_run

    found = find_run(run, read_settings())
    if now:
        kill_run(found)
    else:
        stop_run(found)
    return found.view().to_json()
