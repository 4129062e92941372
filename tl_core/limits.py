"""What one person may ask of a machine that others use too.

The limits are settings; each refusal names its own. Must not know who asks, nor where.
"""

from collections.abc import Sequence

from tl_core.config import TrainConfig
from tl_core.errors import ConfigError, DataError, JobError
from tl_core.files import read_json
from tl_core.runs import LIVE_STATES, Run
from tl_core.settings import Settings

# Beside a training the images are verified, and its model is saved, tested and pushed.
BESIDE_TRAINING_MINUTES = 15


def within_limits(config: TrainConfig, settings: Settings) -> TrainConfig:
    """The configuration, with no more time for its training than one person may take where several share a machine.

    Where none was named, the most that may be is. Raises ConfigError for more.
    """
    most = settings.max_run_minutes
    if not settings.shared or most is None or not config.trains_backbone:
        return config
    if config.minutes is None:
        return TrainConfig.parse({**config.to_json(), "minutes": most})
    if config.minutes > most:
        raise ConfigError(
            f"--minutes is {config.minutes:g}, and one training may take {most:,} on this shared machine "
            "(TL_MAX_RUN_MINUTES)"
        )
    return config


def overtime(run: Run, settings: Settings) -> str:
    """Why a run has to end, where several share a machine and it has taken longer than one may; "" where it may go on.

    A training of a backbone ends in time by itself (`within_limits`); this is for whatever else takes long, such as a
    large model's pass over many images. What earlier processes worked on the run counts too.
    """
    most = settings.max_run_minutes
    if not settings.shared or most is None:
        return ""
    config, status = (read_json(run.dir / name) or {} for name in ("config.json", "status.json"))
    if status.get("reached"):  # its training is over, and what is left is to push the model
        return ""
    trainings = 2 if config.get("control") else 1  # the control is given as long as the training was
    view = run.view()
    if view.seconds <= 60 * (trainings * most + BESIDE_TRAINING_MINUTES):
        return ""
    return (
        f"it was stopped: it has worked for {view.seconds / 60:,.0f} minutes, and one training may take {most:,} on "
        "this shared machine (TL_MAX_RUN_MINUTES), and a little for what is beside it; take a smaller backbone or "
        "fewer images, or train on a computer of your own"
    )


def check_images(images: int, settings: Settings) -> None:
    """Raises DataError for more images than one training may have where several share a machine."""
    most = settings.max_images
    if settings.shared and most is not None and images > most:
        raise DataError(
            f"these are {images:,} images, and one training may have {most:,} on this shared machine (TL_MAX_IMAGES); "
            "take some away, or train on a computer of your own"
        )


def surplus_runs(runs: Sequence[Run], settings: Settings, *, more: int = 0) -> list[Run]:
    """Which of one person's runs have to go once they have `more`: first those that are on the Hub, the oldest first.

    One that waits, works, or is what another one of these begins from stays. Raises JobError where too few can go.
    """
    most = settings.kept_runs
    if not settings.shared or most is None or len(runs) + more <= most:
        return []
    views = {run: run.view() for run in runs}
    at_work = [run for run, view in views.items() if view.state in LIVE_STATES or view.state == "queued"]
    named = [word for run in at_work for word in _words_of(run)]
    free = [run for run in runs if run not in at_work and not any(run.id in word for word in named)]
    wanted = len(runs) + more - most
    if len(free) < wanted:
        raise JobError(
            f"you have {len(runs):,} runs, {len(at_work):,} of which wait or work, and {most:,} are kept of one person "
            "on this shared machine (TL_KEPT_RUNS); wait until one has ended, or stop one"
        )
    return sorted(free, key=lambda run: (not (run.dir / "published.json").is_file(), run.created_ns()))[:wanted]


def _words_of(run: Run) -> list[str]:
    """The models that a run begins from or learns from, as its configuration names them."""
    config = run.config()
    return [word for word in (config.model, config.teacher) if word]
