"""The last layer of a classifier, fitted exactly on features that were computed once.

A head is a linear layer on raw features. Its regularisation strength is chosen on validation images (or over the folds
of a cross-validation): of the strengths whose accuracy is within one standard error of the best, the one with the least
mean log-loss. Log-loss counts every image's confidence, so that it tells strengths apart where thirty images can only
say 29 or 30 right, and its choice gives probabilities that can be believed. Alone it would prefer, on few and hard
images, a head that is unsure of everything to one that is often right; and where every image is right, ever surer
ones, of which the strongest is taken that is as good. (The one-standard-error rule: Breiman et al.
1984, "Classification and Regression Trees", section 3.4.3.) Must not know: backbones, files, torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

from tl_core.ml.logistic_regression import FINAL, Floats, Integers, RegressionProblem, Start

# From strong to weak in half decades, so that each fit begins from a nearby one; `strength` is 1 / C of scikit-learn.
# The pixels of 60 to 1,440 photographs do best near 300, convolution features of the same ones between 3 and 100.
STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(8, -9, -1))
# The path ends after this many strengths in a row that better neither log-loss nor, where it says anything, accuracy.
PATIENCE = 2
# Log-losses that differ by less are alike (images are surer by a hundredth of a percent); below it none is better.
LEAST_GAIN = 1e-4
# Where nothing is left to validate on: scikit-learn's digits with 1 to 20 images per class do best between 0.3 and 30.
DEFAULT_STRENGTH = 10.0
# Below this many multiplications per step one thread does: a second one gains a third at most, and where another
# program has its core, waiting for it costs ten times as long.
MULTIPLICATIONS_FOR_THREADS = 100_000_000


@dataclass(frozen=True)
class Score:
    """Validation figures of one candidate: `setting` is its strength (exact) or its optimiser step (Trainer)."""

    setting: float
    log_loss: float
    accuracy: float


@dataclass(frozen=True)
class LinearHead:
    """logits = features @ weight.T + bias, for raw features (N, D); weight (C, D) and bias (C,) are float32.

    `strength` is None for a head trained by gradient steps. `scores` lists the candidates in the order they were tried.
    `converged` is False when the solver gave up before its tolerance: the head works but is not the exact minimum.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float | None = None
    scores: tuple[Score, ...] = ()
    converged: bool = True

    def logits(self, features: Floats) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = features.astype(np.float32, copy=False) @ self.weight.T + self.bias
        return logits

    def probabilities(self, features: Floats) -> NDArray[np.float64]:
        """Class probabilities (N, C)."""
        probabilities: NDArray[np.float64] = softmax(self.logits(features).astype(np.float64), axis=1)
        return probabilities


def fit_exact(
    features: Floats,
    targets: Integers,
    classes: int,
    *,
    weights: Floats | None = None,
    validation: tuple[Floats, Integers] | None = None,
    folds: Sequence[tuple[Integers, Integers]] | None = None,
    roughly: bool = False,
) -> LinearHead:
    """Fit a head on `features` (N, D) and `targets` (N,), with the strength that validates best.

    `validation` is (features, targets) of other images; `folds` are (training rows, validation rows) of these. With
    neither, DEFAULT_STRENGTH is used. `weights` (C,) weigh the images of each class, in training and in validation.
    Classes may have one image or none. With `roughly` and `validation` the head is only as near to its minimum as
    comparing strengths needs: enough to `refit` from, or where the scores alone are wanted. Nothing is random.
    """
    with _threads(len(features), features.shape[1], classes):
        problem = RegressionProblem(features, targets, classes, weights)
        if validation is not None:
            parts = [(problem, *validation)]
        elif folds:
            parts = [
                (RegressionProblem(features[train], targets[train], classes, weights), features[held], targets[held])
                for train, held in folds
            ]
        else:
            return _finish(problem, DEFAULT_STRENGTH)
        scores, heads = _follow_path(parts, weights)
        best = _choose(scores, sum(len(held_targets) for _, _, held_targets in parts))
        near = heads[best] if validation is not None else None
        if near is not None and roughly:
            return replace(near, scores=scores)
        return replace(_finish(problem, scores[best].setting, near), scores=scores)


def refit(
    features: Floats,
    targets: Integers,
    classes: int,
    strength: float,
    weights: Floats | None = None,
    near: LinearHead | None = None,
) -> LinearHead:
    """Fit a head with a strength that is already chosen, for shipping on training and validation images together.

    Begun from `near`, one of the same classes on most of these images, it is there sooner.
    """
    with _threads(len(features), features.shape[1], classes):
        return _finish(RegressionProblem(features, targets, classes, weights), strength, near)


def strongest_alike(scores: Sequence[Score], images: int) -> float:
    """The strongest setting whose accuracy on so many `images` is within one standard error of the best."""
    return max(scores[place].setting for place in _alike(scores, images))


def class_weights(targets: Integers, classes: int) -> NDArray[np.float64]:
    """Weights (C,) that give every class present the same total: images / (classes present · images of the class).

    This is scikit-learn's "balanced"; a class without images gets 1.
    """
    counts = np.bincount(targets, minlength=classes)
    present = counts > 0
    weights = np.ones(classes)
    weights[present] = len(targets) / (present.sum() * counts[present])
    return weights


def log_loss_and_accuracy(logits: Floats, targets: Integers, weights: Floats | None = None) -> tuple[float, float]:
    """Mean −log probability of the true class, and the part that is right; images weighted by class with `weights`."""
    losses = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(targets)), targets]
    per_image = None if weights is None else np.asarray(weights)[targets]
    right = logits.argmax(axis=1) == targets
    return float(np.average(losses, weights=per_image)), float(np.average(right, weights=per_image))


Part = tuple[RegressionProblem, Floats, Integers]


def _follow_path(parts: Sequence[Part], weights: Floats | None) -> tuple[tuple[Score, ...], list[LinearHead]]:
    """Score strengths from strong to weak on all parts together; the heads are those of the first part."""
    scores: list[Score] = []
    heads: list[LinearHead] = []
    starts: list[Start | None] = [None] * len(parts)
    targets = np.concatenate([held_targets for _, _, held_targets in parts])
    least_loss, best_accuracy, in_vain = np.inf, 0.0, 0
    for strength in [strength for strength in STRENGTHS if strength <= parts[0][0].decisive] or STRENGTHS[-1:]:
        logits = []
        for place, (problem, held, _) in enumerate(parts):
            solution = problem.solve(strength, starts[place])
            starts[place] = solution.coefficients
            head = LinearHead(*problem.fold(solution), strength, converged=solution.converged)
            logits.append(head.logits(held))
            if place == 0:
                heads.append(head)
        loss, accuracy = log_loss_and_accuracy(np.concatenate(logits), targets, weights)
        scores.append(Score(strength, loss, accuracy))
        # An accuracy that rises while the loss is worse than of knowing nothing is that of ever surer guesses.
        better = loss < least_loss or (accuracy > best_accuracy and loss < np.log(len(head.bias)))
        in_vain = 0 if better else in_vain + 1
        if in_vain == PATIENCE or loss <= LEAST_GAIN:
            break
        least_loss, best_accuracy = min(loss, least_loss), max(accuracy, best_accuracy)
    return tuple(scores), heads


def _choose(scores: Sequence[Score], images: int) -> int:
    """Place of the least log-loss, or of the strongest that has it, among those whose accuracy is alike."""
    alike = _alike(scores, images)
    least = min(scores[place].log_loss for place in alike)
    return next(place for place in alike if scores[place].log_loss <= least + LEAST_GAIN)


def _alike(scores: Sequence[Score], images: int) -> list[int]:
    """Places of the scores whose accuracy is within one standard error of the best."""
    best = max(score.accuracy for score in scores)
    share = (best * images + 1) / (images + 2)  # Laplace's estimate: all right of thirty is not certainty
    least = best - np.sqrt(share * (1 - share) / images)
    return [place for place, score in enumerate(scores) if score.accuracy >= least]


def _finish(problem: RegressionProblem, strength: float, near: LinearHead | None = None) -> LinearHead:
    """The exact minimum, sought from a head that is near to it."""
    start = None if near is None else problem.unfold(near.weight, near.bias)
    solution = problem.solve(strength, start, FINAL)
    return LinearHead(*problem.fold(solution), strength, converged=solution.converged)


def _threads(images: int, width: int, classes: int) -> threadpool_limits:
    small = images * min(images, width) * classes < MULTIPLICATIONS_FOR_THREADS
    return threadpool_limits(limits=1 if small else None, user_api="blas")
