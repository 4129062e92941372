"""How well features tell classes apart: nested cross-validation of the exact head, the same for whatever made them.

Near-duplicates stay together, and what chooses a head's strength never judges it. Must not know backbones or pictures.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tl_core.images.splits import KFOLD_BELOW, folds
from tl_core.ml.head_fitting import FOLDS
from tl_core.ml.heads import fit_exact
from tl_core.sources import Ticker

Rows = NDArray[np.int64]


class Judges:
    """Folds of some pictures, by which each is judged by an exact head that has not seen it.

    The head's strength is chosen inside the pictures that it learns from: by folds of them, of 200 or more by one.
    """

    def __init__(self, targets: Rows, groups: Sequence[int], seed: int) -> None:
        """`targets` (N,) class numbers, `groups` (N,) equal for those that belong on one side."""
        self.targets, self.groups = targets, np.asarray(groups)
        self.rounds: list[tuple[Rows, Rows, list[tuple[Rows, Rows]]]] = []
        for train, test in self._folds(np.arange(len(targets)), seed):
            inner = self._folds(train, seed, rows_of=np.arange(len(train)))
            self.rounds.append((train, test, inner[:1] if len(train) >= KFOLD_BELOW else inner))
        self.judged = np.sort(np.concatenate([test for _, test, _ in self.rounds] or [np.empty(0, dtype=np.int64)]))

    def right(self, features: NDArray[np.float32], ticker: Ticker | None = None, title: str = "") -> NDArray[np.bool_]:
        """Which of the `judged` pictures are right; `features` (N, D)."""
        right = np.zeros(len(self.targets), dtype=bool)
        classes = int(self.targets.max()) + 1
        for place, (train, test, inner) in enumerate(self.rounds):
            if ticker is not None:
                ticker(title, place, len(self.rounds))
            head = fit_exact(features[train], self.targets[train], classes, folds=inner)
            right[test] = head.logits(features[test]).argmax(axis=1) == self.targets[test]
        return right[self.judged]

    def _folds(self, indices: Rows, seed: int, rows_of: Rows | None = None) -> list[tuple[Rows, Rows]]:
        """Folds of `indices`, as these or as their places in `rows_of`."""
        named = indices if rows_of is None else rows_of
        parts = folds(self.targets[indices].tolist(), self.groups[indices].tolist(), FOLDS, seed)
        return [(named[train], named[test]) for train, test in parts]
