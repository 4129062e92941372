"""Features of pictures while they are verified: where nobody has decoded them yet, one decode does for both.

What comes out lies in the feature store, where the pass over all pictures finds it; so what is computed here may be
some of them, or none. Must not know how pictures are verified, or what is made of features.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch

from tl_core.config import TrainConfig
from tl_core.images.collection import Listed, natural_key
from tl_core.images.decode import Decoded
from tl_core.ml.backbone import Backbone, linear_head
from tl_core.ml.backbone_pass import BackbonePass, features_key
from tl_core.ml.feature_store import FeatureStore, Vectors, missing_features
from tl_core.ml.frozen import choose_precision
from tl_core.ml.inputs import Prepared, load_for
from tl_core.ml.machine import computing_side_by_side, current_device, pictures_at_a_time, threads_side_by_side
from tl_core.ml.pixels import PixelReader
from tl_core.ml.precision import Precision
from tl_core.ml.shards import processes
from tl_core.settings import Settings
from tl_core.sources import ModelSource

# What takes longer is done in the run, where it is seen, stopped and resumed.
MOST_SECONDS = 120.0

Computed = tuple[list[str], Vectors]  # digests, and the features (N, D) of their pictures


class Onlooking:
    """Features of `fresh` files, which are being verified, for a frozen training that is to be.

    `backbone` and `prepared` are for that training; None where nothing was made ready.
    """

    def __init__(self, config: TrainConfig, source: ModelSource, settings: Settings) -> None:
        self._config, self._source, self._settings = config, source, settings
        self.backbone: Backbone | None = None
        self.prepared: Prepared | None = None

    @contextmanager
    def look_on(self, listed: Sequence[Listed], fresh: int) -> Iterator["FeaturesOnlooker | None"]:
        """Who computes while `fresh` of the `listed` files are decoded; None where it is better done later.

        That is where one thread would do what several decode for, where it takes long, and where an accelerator or
        several processes have batches and divisions of their own. Raises ModelError, ConfigError, JobError.
        """
        settings, threads = self._settings, threads_side_by_side()
        if current_device().type != "cpu" or processes() > 1 or threads < min(2, settings.workers):
            yield None
            return
        labels = sorted({file.label for file in listed}, key=natural_key)
        self.backbone = backbone = load_for(self._config, self._source, labels)
        reader = PixelReader(backbone.processor, settings.max_pixels)
        if not reader.imitates:  # it takes nothing
            yield None
            return
        precision, notes = choose_precision(self._config, backbone, len(listed), settings), list[str]()
        begun = time.perf_counter()
        key = features_key(backbone, precision)
        with FeatureStore(settings.features_dir, key, notes.append, settings.features_bytes) as store:
            onlooker = FeaturesOnlooker(backbone, precision, reader, store, settings, (fresh, threads))
            takes_long = onlooker.seconds_of_a_picture() * fresh > MOST_SECONDS
            yield None if takes_long else onlooker
        self.prepared = Prepared(precision, 0.0 if takes_long else time.perf_counter() - begun, notes)


class FeaturesOnlooker:
    """Computes the features of pictures that are not in the store yet; an `Onlooker` of `tl_core.images.scan`."""

    def __init__(
        self,
        backbone: Backbone,
        precision: Precision,
        reader: PixelReader,
        store: FeatureStore,
        settings: Settings,
        shares: tuple[int, int],
    ) -> None:
        """`shares`: how many pictures are to be computed, in how many threads."""
        size, head = backbone.input_size, linear_head(backbone)
        work = BackbonePass(backbone.model, head, backbone.processor, size, precision, settings, mirrored=False)
        self._encode = work.encoding(reader.batch)
        self._reader, self._store = reader, store
        pictures, self.workers = shares
        self.portion = max(1, min(pictures_at_a_time(size), -(-pictures // self.workers)))
        self._noise = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)

    def seconds_of_a_picture(self) -> float:
        """Of one after the other; side by side they take no longer."""
        batch = [self._noise] * self.portion
        self._encode(batch)
        begun = time.perf_counter()
        self._encode(batch)
        return (time.perf_counter() - begun) / len(batch)

    def threads(self) -> AbstractContextManager[Executor]:
        return computing_side_by_side(self.workers)

    def place(self, decoded: Decoded) -> torch.Tensor | None:
        return self._reader.take(decoded)

    def compute(self, placed: dict[str, Any]) -> Computed:
        known = [digest for digest, pixels in placed.items() if pixels is not None]
        # A file that was only renamed has been computed before.
        missing = missing_features(self._store.path.parent, self._store.path.stem, known)
        if not missing:
            return [], np.zeros((0, 0), np.float32)
        return missing, self._encode([placed[digest] for digest in missing])

    def keep(self, computed: Computed) -> None:
        digests, vectors = computed
        finite = np.flatnonzero(np.isfinite(vectors).all(axis=1))  # the pass will tell of others, and name the picture
        if len(finite):
            self._store.put_many([digests[row] for row in finite], vectors[finite])
