"""What a frozen training makes ready while its images are checked, before there is a run.

Must not know what is computed, nor load what computes where there is nothing to compute.
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
    from tl_core.ml.inputs import Prepared

# Fewer pictures are decoded twice in less time than it takes to get ready.
LEAST_PICTURES = 64


class OnTheWay:
    """`backbone` and `prepared` are what `make_inputs` takes, None where nothing was made ready."""

    def __init__(self, config: TrainConfig, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self.backbone: Backbone | None = None
        self.prepared: Prepared | None = None

    def invite(self, source: ModelSource) -> "Invitation | None":
        """Who looks on while images are checked for a training from this backbone."""
        return partial(self._look_on, source) if self._config.strategy == "frozen" else None

    @contextmanager
    def _look_on(self, source: ModelSource, listed: Sequence[Listed], fresh: int) -> "Iterator[Onlooker | None]":
        if fresh < LEAST_PICTURES:
            yield None
            return
        from tl_core.ml.libraries import load_libraries

        load_libraries()
        from tl_core.ml.onlooking import Onlooking

        onlooking = Onlooking(self._config, source, self._settings)
        with onlooking.look_on(listed, fresh) as onlooker:
            yield onlooker
        self.backbone, self.prepared = onlooking.backbone, onlooking.prepared
