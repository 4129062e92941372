"""One pass of the backbone over every picture whose features are not stored yet.

Pictures are read while the backbone works on others; no more than a few batches are in memory at a time. Must not know:
what a backbone is (it is a function here), where the store lies, which thread or process computes a batch.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Protocol, TypeVar

import numpy as np

from tl_core.errors import ModelError
from tl_core.ml.feature_store import FeatureStore, Vectors

# Batches that are being read or wait while one is in the backbone: enough to keep it busy, few enough to fit in memory.
BATCHES_AHEAD = 2


class Identified(Protocol):
    """A picture as far as this module is concerned: where it is named, and the digest of its bytes."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...


P = TypeVar("P", bound=Identified)
Loaded = TypeVar("Loaded")
# Batches of pictures and what the backbone makes of each, (B, D), in any order.
Encoded = Generator[tuple[Sequence[P], Vectors]]
# Batches, and what computes such as are given to it here; all of them computed, here or elsewhere.
Encoder = Callable[[Sequence[Sequence[P]]], Encoded[P]]
Division = Callable[[Sequence[Sequence[P]], Encoder[P]], Encoded[P]]


def undivided(batches: Sequence[Sequence[P]], here: Encoder[P]) -> Encoded[P]:
    return here(batches)


def compute_features(
    pictures: Sequence[P],
    encoder: Callable[[], Encoder[P]],
    store: FeatureStore,
    *,
    batch_size: int,
    least_batches: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    divide: Division[P] = undivided,
) -> Vectors | None:
    """Features (N, D) of `pictures`, in their order; None when `should_stop` ended it before the last batch.

    Batches have at most `batch_size` pictures, and fewer where there would not be `least_batches`. Each is stored as
    soon as it is computed, so that nothing is computed twice, now or in a later run; pictures with the same digest are
    computed once. `encoder` makes what computes them, and is not called where all are stored. `progress` hears of
    (distinct pictures done, all distinct pictures), first when the work begins; `should_stop` is asked before every
    batch. `divide` may have some batches computed elsewhere. Raises what computing raises, and ModelError where the
    backbone answers with values that are not finite.
    """
    distinct = {picture.digest: picture for picture in pictures}
    features, missing = store.get_many(list(distinct))
    rows = {digest: row for row, digest in enumerate(distinct)}
    done = len(distinct) - len(missing)
    encode = encoder() if missing else _nothing
    progress(done, len(distinct))
    size = min(batch_size, -(-len(missing) // least_batches)) or 1
    starts = range(0, len(missing), size)
    batches = [[distinct[digest] for digest in missing[start : start + size]] for start in starts]
    with closing(divide(batches, encode)) as computed:
        while done < len(distinct):
            if should_stop():
                return None
            batch, encoded = next(computed)
            _check_finite(encoded, batch)
            digests = [picture.digest for picture in batch]
            store.put_many(digests, encoded)
            if features.shape[1] == 0:
                features = np.zeros((len(distinct), encoded.shape[1]), dtype=np.float32)
            features[[rows[digest] for digest in digests]] = encoded
            done += len(batch)
            progress(done, len(distinct))
    if len(distinct) == len(pictures):
        return features
    return features[[rows[picture.digest] for picture in pictures]]


def _nothing(_: Sequence[Sequence[P]]) -> Encoded[P]:
    yield from ()


def encode_reading_ahead(
    batches: Sequence[Sequence[P]],
    load: Callable[[P], Loaded],
    encode: Callable[[list[Loaded]], Vectors],
    workers: int,
) -> Encoded[P]:
    """Each of `batches` with its features (B, D) float32, in their order; `encode` runs in the caller's thread, while
    `workers` others load the pictures of the next ones."""
    waiting: deque[list[Future[Loaded]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for place, batch in enumerate(batches):
            for ahead in batches[place + len(waiting) : place + BATCHES_AHEAD + 1]:
                waiting.append([pool.submit(load, picture) for picture in ahead])
            loaded = [future.result() for future in waiting.popleft()]
            yield batch, encode(loaded).astype(np.float32, copy=False)
    finally:
        pool.shutdown(cancel_futures=True)


def _check_finite(encoded: Vectors, pictures: Sequence[Identified]) -> None:
    finite = np.isfinite(encoded).all(axis=1)
    if not finite.all():
        name = pictures[int(finite.argmin())].name
        raise ModelError(
            f"the backbone gives values that are not finite for {name}; its weights are damaged or too large for the"
            " precision in use: try --precision fp32 or another backbone"
        )
