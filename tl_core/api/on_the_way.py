"""What a frozen training makes ready while its images are checked, before there is a run.

Must not know what is computed, nor load what computes before there is something to compute.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tl_core.config import TrainConfig
from tl_core.images.collection import Listed
from tl_core.settings import Settings
from tl_core.sources import ModelSource

if TYPE_CHECKING:
    from tl_core.images.scan import Invitation, Onlooker
    from tl_core.ml.backbone import Backbone
    from tl_core.ml.precision import Precision


class OnTheWay:
    """`backbone` and the `precision` of its features are None where nothing was computed on the way."""

    def __init__(self, config: TrainConfig, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self.backbone: Backbone | None = None
        self.precision: Precision | None = None

    def invite(self, source: ModelSource) -> "Invitation | None":
        """Who looks on while images are checked for a training from this backbone."""
        return partial(self._look_on, source) if self._config.strategy == "frozen" else None

    @contextmanager
    def _look_on(self, source: ModelSource, listed: Sequence[Listed], fresh: int) -> "Iterator[Onlooker | None]":
        from tl_core.ml.libraries import load_libraries

        load_libraries()
        from tl_core.ml.onlooking import is_worth_it, look_on

        if not is_worth_it(fresh, self._settings):
            yield None
            return
        with look_on(self._config, source, listed, self._settings) as onlooker:
            self.backbone, self.precision = onlooker.backbone, onlooker.precision
            yield onlooker
