"""Training and its runs: begin, continue, list, end, in this process or in one of its own."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_core.api.words import open_words, parsed
from tl_core.config import TrainConfig
from tl_core.recorder import LogStream
from tl_core.runs import LOCAL_OWNER, Run, create_run, find_run, list_runs
from tl_core.settings import read_settings
from tl_core.sources import Ticker


def train(
    config: TrainConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    echo: LogStream | None = None,
    ticker: Ticker | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train in this process; the run's report, with `model_dir` None where it was stopped before there was a model.

    The configuration is a TrainConfig, its values, the data alone, or values as keywords: `train("photos",
    strategy="full")`; the keywords are the flags of the command line. `ticker` hears how far it is, `echo`
    receives the log. Raises TLError; where it is about the configuration, the data or the backbone, nothing was
    written.
    """
    settings = read_settings()
    begun = time.perf_counter()
    config, named = open_words(parsed(config, options), settings, ticker)
    from tl_core.ml.inputs import make_inputs
    from tl_core.ml.libraries import quieten
    from tl_core.ml.worker import work

    quieten()
    inputs = make_inputs(config, *named, seconds=time.perf_counter() - begun)
    return work(create_run(config, settings), settings, echo=echo, ticker=ticker, inputs=inputs)


def train_in_background(
    config: TrainConfig | Mapping[str, Any], *, owner: str = LOCAL_OWNER, ticker: Ticker | None = None
) -> Run:
    """Verify the images here, then let a process of its own train; its run folder tells how far it is.

    It starts at once, or waits in the queue while as many work in the background as may; where others use the machine
    too, within the limits of one person. Raises TLError.
    """
    from tl_core.jobs import check_room_in_queue, enqueue
    from tl_core.limits import check_images, within_limits

    settings = read_settings()
    check_room_in_queue(owner, settings)
    config, named = open_words(within_limits(parsed(config, {}), settings), settings, ticker)
    check_images(len(named.collection.pictures), settings)
    run = create_run(config, settings, owner)
    enqueue(run, settings)
    return run


def resume(run: str, *, echo: LogStream | None = None, ticker: Ticker | None = None) -> dict[str, Any]:
    """Continue a run from its last checkpoint in this process; as `train`. Raises JobError for one that cannot be."""
    from tl_core.jobs import check_resumable

    settings = read_settings()
    found = find_run(run, settings)
    check_resumable(found)
    from tl_core.ml.worker import work

    return work(found, settings, echo=echo, ticker=ticker)


def resume_in_background(run: str) -> Run:
    """Continue a run in a process of its own, at once or when its turn has come. Raises JobError where it cannot be."""
    from tl_core.jobs import enqueue

    settings = read_settings()
    found = find_run(run, settings)
    enqueue(found, settings)
    return found


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
