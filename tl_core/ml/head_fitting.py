"""Fitting a head on features and measuring it honestly: what chooses never tests, and what tests never trains.

Must not know backbones, pictures or where features come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tl_core.config import TrainConfig
from tl_core.images.splits import Division, folds
from tl_core.ml.heads import LinearHead, class_weights, fit_exact, refit
from tl_core.recorder import Recorder, StopRequested

FOLDS = 5  # as many as the smallest class allows, at most; Kohavi 1995 finds little gain beyond ten


@dataclass
class FittedHead:
    """The head that ships; probabilities (len(tested), C) of the pictures in `tested`, by heads that never saw them."""

    head: LinearHead
    tested: list[int]
    probabilities: np.ndarray
    shipped_on: str


class HeadFitting:
    """One set of features (N, D) and targets (N,), and the two honest ways to fit and measure a head on them.

    `varied` (N, K, D) are features of varied versions of the same pictures, of which a head learns too; no choice and
    no figure rests on them.
    """

    def __init__(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        groups: Sequence[int],
        classes: int,
        config: TrainConfig,
        recorder: Recorder,
        varied: np.ndarray | None = None,
    ) -> None:
        self.features, self.targets, self.classes = features, targets, classes
        self.varied = varied if varied is not None else np.zeros((len(features), 0, features.shape[1]), np.float32)
        self.groups = list(groups)
        self.config, self.recorder = config, recorder

    def hold_out(self, division: Division) -> FittedHead:
        """Strength chosen on validation, refitted on train + validation, measured on the test pictures."""
        both = [*division.train, *division.validation]
        chosen = self.fit(division.train, division.validation, roughly=bool(division.validation))
        head = self._refit(both, chosen) if division.validation else chosen
        return FittedHead(
            head,
            tested=list(division.test),
            probabilities=head.probabilities(self.features[division.test]),
            shipped_on=f"the training and validation images ({len(both):,})",
        )

    def cross_validate(self, division: Division) -> FittedHead:
        """Nested k-fold: each picture is judged by a head whose strength and weights never saw it."""
        everything = sorted([*division.train, *division.validation, *division.test])
        tested: list[int] = []
        parts: list[np.ndarray] = []
        outer = self._folds(everything)
        for number, (train, test) in enumerate(outer, 1):
            self.recorder.advance(number, len(outer))
            self.recorder.say(f"fold {number} of {len(outer)}")
            tested += test
            parts.append(self.fit(train, []).probabilities(self.features[test]))
        return FittedHead(
            self.fit(everything, []),
            tested=tested,
            probabilities=np.concatenate(parts),
            shipped_on=f"all {len(everything):,} images",
        )

    def fit(self, train: list[int], validation: list[int], *, roughly: bool = False) -> LinearHead:
        """A head for `train`; strength or steps are chosen on `validation`, or by folds of `train` without one.

        With `roughly` it is meant to begin a refit from.
        """
        if self.config.head_solver == "exact":
            return fit_exact(
                *self._taught(train),
                self.classes,
                weights=self._weights(train),
                validation=(self.features[validation], self.targets[validation]) if validation else None,
                folds=None if validation else self._inner_folds(train) or None,
                roughly=roughly,
            )
        if validation:
            return self._fit_by_steps(train, validation, self.config.max_steps)
        parts = self._folds(train)
        if not parts:  # no class has two pictures to spare
            return self._fit_by_steps(train, [], self.config.max_steps)
        return self._refit(train, self._fit_by_steps(*parts[0], self.config.max_steps))

    def _refit(self, indices: list[int], chosen: LinearHead) -> LinearHead:
        """A head for `indices` with the strength, or for as many steps, as validated best before."""
        if chosen.strength is not None:
            weights = self._weights(indices)
            head = refit(*self._taught(indices), self.classes, chosen.strength, weights, chosen)
        else:
            best = min(chosen.scores, key=lambda score: score.log_loss)
            head = self._fit_by_steps(indices, [], max(1, int(best.setting)))
        return replace(head, scores=chosen.scores)

    def _fit_by_steps(self, train: list[int], validation: list[int], steps: int | None) -> LinearHead:
        from tl_core.ml.callbacks import RunCallback
        from tl_core.ml.head_training import fit_by_trainer

        given = {
            name: value
            for name in ("learning_rate", "batch_size", "weight_decay")
            if (value := getattr(self.config, name)) is not None
        }
        with TemporaryDirectory() as folder:
            callback = RunCallback(self.recorder, Path(folder), self.config.checkpoint_minutes)
            head = fit_by_trainer(
                *self._taught(train),
                self.classes,
                validation=(self.features[validation], self.targets[validation]) if validation else None,
                output_dir=Path(folder),
                seed=self.config.seed,
                steps=steps,
                epochs=None if steps else self.config.epochs,
                weights=self._weights(train),
                callbacks=[callback],
                **given,
            )
        if callback.stopped:
            raise StopRequested
        return head

    def _taught(self, indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Features and targets of these pictures, and after them those of their versions, picture by picture."""
        versions = self.varied.shape[1]
        if not versions:  # and no second copy of a large set
            return self.features[indices], self.targets[indices]
        varied = self.varied[indices]
        features = np.concatenate([self.features[indices], varied.reshape(-1, varied.shape[2])])
        return features, np.concatenate([self.targets[indices], np.repeat(self.targets[indices], versions)])

    def _weights(self, indices: list[int]) -> np.ndarray | None:
        if self.config.class_weights == "none":
            return None
        return class_weights(self.targets[indices], self.classes)

    def _folds(self, indices: list[int]) -> list[tuple[list[int], list[int]]]:
        """Stratified folds of `indices` that keep groups together: (training, judged) indices of each."""
        return [
            ([indices[row] for row in train], [indices[row] for row in test])
            for train, test in self._rows_in_folds(indices)
        ]

    def _inner_folds(self, indices: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same as rows of what `_taught` gives: versions are learnt from with their picture, and judge nothing."""
        versions = self.varied.shape[1]

        def with_versions(rows: list[int]) -> np.ndarray:
            own = np.asarray(rows)
            theirs = len(indices) + own[:, None] * versions + np.arange(versions)
            return np.concatenate([own, theirs.ravel()])

        return [(with_versions(train), np.asarray(test)) for train, test in self._rows_in_folds(indices)]

    def _rows_in_folds(self, indices: list[int]) -> list[tuple[list[int], list[int]]]:
        labels = [int(self.targets[i]) for i in indices]
        return folds(labels, [self.groups[i] for i in indices], FOLDS, self.config.seed)
