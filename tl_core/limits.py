"""What one person may ask of a machine that others use too.

The limits are settings; each refusal names its own. Must not know who asks, nor where.
"""

from tl_core.config import TrainConfig
from tl_core.errors import ConfigError, DataError
from tl_core.settings import Settings


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


def check_images(images: int, settings: Settings) -> None:
    """Raises DataError for more images than one training may have where several share a machine."""
    most = settings.max_images
    if settings.shared and most is not None and images > most:
        raise DataError(
            f"these are {images:,} images, and one training may have {most:,} on this shared machine (TL_MAX_IMAGES); "
            "take some away, or train on a computer of your own"
        )
