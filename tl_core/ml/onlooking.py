"""Features of pictures while they are verified: where nobody has decoded them yet, one decode does for both.

What comes out lies in the feature store, where the pass over all pictures finds it; so what is computed here may be
some of them, or none. Must not know how pictures are verified, or what is made of features.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch

from tl_core.config import TrainConfig
from tl_core.images.collection import Listed, natural_key
from tl_core.images.decode import Decoded
from tl_core.ml.allocation import give_back_freed_memory
from tl_core.ml.backbone import Backbone, linear_head
from tl_core.ml.backbone_pass import BackbonePass, features_key
from tl_core.ml.feature_store import FeatureStore, Vectors, missing_features
from tl_core.ml.frozen import choose_precision
from tl_core.ml.inputs import load_for
from tl_core.ml.machine import computing_side_by_side, current_device, pictures_at_a_time, threads_side_by_side
from tl_core.ml.pixels import PixelReader
from tl_core.ml.precision import Precision
from tl_core.ml.shards import processes
from tl_core.settings import Settings
from tl_core.sources import ModelSource

# Fewer pictures are decoded twice in less time than it takes to get ready …
LEAST_PICTURES = 64
# … and more can take minutes, in which there is to be a run that is seen, stopped and resumed.
MOST_PICTURES = 5000

Computed = tuple[list[str], Vectors]  # digests, and the features (N, D) of their pictures


def is_worth_it(fresh: int, settings: Settings) -> bool:
    """Whether to compute while so many pictures are decoded.

    Not where one thread would do what several decode for. An accelerator and several processes have batches and
    divisions of their own, which the pass sees to.
    """
    if current_device().type != "cpu" or processes() > 1 or threads_side_by_side() < min(2, settings.workers):
        return False
    return LEAST_PICTURES <= fresh <= MOST_PICTURES


@contextmanager
def look_on(
    config: TrainConfig, source: ModelSource, listed: Sequence[Listed], settings: Settings
) -> Iterator["FeaturesOnlooker"]:
    """Who computes features while some of the `listed` files are verified. Raises ModelError, ConfigError, JobError."""
    labels = sorted({file.label for file in listed}, key=natural_key)
    backbone = load_for(config, source, labels)
    precision = choose_precision(config, backbone, len(listed), settings)
    key = features_key(backbone, precision)
    with FeatureStore(settings.features_dir, key, backbone.notes.append, settings.features_bytes) as store:
        yield FeaturesOnlooker(backbone, precision, store, settings)
    give_back_freed_memory()


class FeaturesOnlooker:
    """Computes the features of pictures that are not in the store yet; an `Onlooker` of `tl_core.images.scan`."""

    def __init__(self, backbone: Backbone, precision: Precision, store: FeatureStore, settings: Settings) -> None:
        self.backbone, self.precision = backbone, precision
        self._reader = PixelReader(backbone.processor, settings.max_pixels)
        size, head = backbone.input_size, linear_head(backbone)
        work = BackbonePass(backbone.model, head, backbone.processor, size, precision, settings, mirrored=False)
        _, self._encode = work.begin()
        self._batch = pictures_at_a_time(size)
        self._store = store

    def threads(self) -> AbstractContextManager[Executor]:
        return computing_side_by_side(threads_side_by_side())

    def place(self, decoded: Decoded) -> torch.Tensor | None:
        return self._reader.take(decoded)

    def compute(self, placed: dict[str, Any]) -> Computed:
        known = [digest for digest, pixels in placed.items() if pixels is not None]
        # A file that was only renamed has been computed before.
        missing = missing_features(self._store.path.parent, self._store.path.stem, known)
        parts = [missing[start : start + self._batch] for start in range(0, len(missing), self._batch)]
        encoded = [self._encode([placed[digest] for digest in part]) for part in parts]
        return missing, np.concatenate(encoded) if encoded else np.zeros((0, 0), np.float32)

    def keep(self, computed: Computed) -> None:
        digests, vectors = computed
        finite = np.flatnonzero(np.isfinite(vectors).all(axis=1))  # the pass will tell of others, and name the picture
        if len(finite):
            self._store.put_many([digests[row] for row in finite], vectors[finite])
