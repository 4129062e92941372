"""L2-regularised multinomial logistic regression, solved exactly and quickly, for one strength after another.

Minimises, over a weight row and a bias per class, on standardised features x,

    sum over images of  weight[class] · −log softmax(W x + b)[class]   +   strength / 2 · |W|²

which is scikit-learn's `LogisticRegression` with `C = 1 / strength` (biases are not penalised). It exists beside
scikit-learn's because a path of strengths over 50,000 × 768 features has to take about a minute on two cores. The
minimum is the same; the way there is Newton's, each step found by conjugate gradients (Nocedal and Wright 2006,
"Numerical Optimization", algorithms 7.1 and 5.3). Features are rotated onto their principal axes, where the second
derivative is nearly diagonal (Böhning 1992, "Multinomial logistic regression algorithm"), and the gradients conditioned
by its diagonal and, for each class, by its block of the largest axes. Where heads validate well, tens of products with
the features then do what takes L-BFGS hundreds.
Must not know: where features come from, how a strength is chosen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Doubles = NDArray[np.float64]
Start = Doubles  # coefficients (present classes, axes + 1)

# Rows handled at a time: sums are carried in float64 from block to block, and a block stays in a core's cache between
# the product that needs its rows and the one that needs its columns.
BLOCK_ROWS = 1024
# A feature whose spread is below this part of its own size, or of the typical feature's spread, is rounding in float32.
CONSTANT = 1e-5
# Principal axes with less than this part of the largest variance are rounding noise.
NO_VARIANCE = 1e-10
# Curvatures are taken for at least this part of those at equal probabilities: where all images are sure, they are next
# to nothing at the start of a step but not along it.
LEAST_CURVATURE = 1e-3
# So many of the largest axes are conditioned together: 64 halve the products that 1 needs, 256 spare hardly any more.
AXES_TOGETHER = 64
AXES_SHARE = 8  # and no more of them than this part: of few, a product takes less time than their inverse saves
# Logits lie no further below the largest: e^-60 is nothing beside 1 in float64, and what is smaller than float32's
# normal numbers, which e^-88 is, takes ten times as long to compute with.
LEAST_LOGIT = -60.0
CURVATURE_ROWS = 8192  # of the images tell the curvature along those
MAX_STEPS = 100
MAX_PRODUCTS = 500  # for one step
ARMIJO = 1e-4  # the least gain, as a part of what the slope promises (the same book, p. 33)
LEAST_MOVE = 1e-6  # of a step that did not gain
# A step is found to within this part at the roughest, and to within this at the finest, which is what float32 can tell;
# between them (Eisenstat and Walker 1996) it falls as the gap does, by this share of what the last step left of it.
ROUGHEST, FINEST = 0.25, 1e-3
SHARE_OF_LAST = 0.3
OUTDATED = 0.1  # a step that left more than this of the gap was conditioned by what no longer holds


@dataclass(frozen=True)
class Tolerance:
    """The loss may be by about `gap` per image above its minimum; losses and gradients are computed in `dtype`."""

    gap: float
    dtype: type[np.floating[Any]]


COMPARING = Tolerance(1e-6, np.float32)  # while comparing strengths
FINAL = Tolerance(1e-11, np.float64)  # in the weights that are kept


@dataclass(frozen=True)
class Solution:
    """Coefficients (present classes, axes + 1) on the principal axes, the bias last, averaging to 0 over the classes.

    `converged` is False where it ended before its tolerance.
    """

    coefficients: NDArray[np.float64]
    converged: bool


@dataclass(frozen=True)
class _Place:
    """Loss and its gradient at some coefficients, and the probabilities (images, present classes) there."""

    loss: float
    gradient: NDArray[np.float64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class _Conditioner:
    """Nearly the inverse of the second derivative: of its diagonal, and of a block of axes for each class."""

    diagonal: NDArray[np.float64]
    together: Integers
    inverse: NDArray[np.float32]
    images: int

    def apply(self, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        conditioned = gradient / self.diagonal
        part = gradient[:, self.together, None].astype(np.float32)
        conditioned[:, self.together] = (self.inverse @ part)[:, :, 0]
        return conditioned

    def gap(self, gradient: NDArray[np.float64]) -> float:
        """About how much higher the mean loss of an image is than it could be: half of Newton's decrement.

        Along axes that LEAST_CURVATURE bends, as where all images are sure, it is less than that.
        """
        return float(np.sum(gradient * self.apply(gradient))) / 2 / self.images


class RegressionProblem:
    """One training set, prepared once and solved for any number of strengths."""

    def __init__(self, features: Floats, targets: Integers, classes: int, weights: Floats | None = None) -> None:
        """`features` (N, D), `targets` (N,) in 0 … classes − 1, `weights` (classes,) per class or None for equal ones.

        Classes without an image are left out of the fit (`fold` gives them their row back).
        """
        self._classes = classes
        self._present, self._targets = np.unique(targets, return_inverse=True)
        self._weights = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)[targets]
        self._mean, self._scale = standardisation(features)
        axes, variances = _principal_axes(features, self._mean, self._scale)
        self._basis = axes / self._scale[:, None]  # (D, axes): rotated = (raw − mean) @ basis
        rotated = np.ones((len(features), len(variances) + 1), dtype=np.float32)  # the last column is the bias's
        for rows in _blocks(len(features)):
            rotated[rows, :-1] = (features[rows] - self._mean) @ self._basis
        self._rotated = rotated
        self._squares = np.append(variances, len(features))

    @property
    def decisive(self) -> float:
        """The strength that outweighs the data even along their first axis; above it W is next to 0."""
        return float(self._squares[:-1].max(initial=0.0)) / len(self._present)

    def solve(self, strength: float, start: Start | None = None, tolerance: Tolerance = COMPARING) -> Solution:
        """Minimum for `strength`, begun from the coefficients in `start`, from none where those are sure and wrong."""
        penalty = np.full(len(self._squares), strength)
        penalty[-1] = 0.0
        nothing = np.zeros((len(self._present), len(penalty)))
        coefficients = nothing if start is None else start
        here = self._look(coefficients, penalty, tolerance.dtype)
        if here.loss > self._weights.sum() * np.log(len(nothing)):  # sure, and wrong: worse than to know nothing
            coefficients, here = nothing, self._look(nothing, penalty, tolerance.dtype)
        conditioner: _Conditioner | None = None
        gap = np.inf
        for _ in range(MAX_STEPS):
            before = gap
            gap = np.inf if conditioner is None else conditioner.gap(here.gradient)
            if conditioner is None or gap > OUTDATED * before or gap <= tolerance.gap:
                conditioner = self._conditioner(here.probabilities, penalty)
                gap = conditioner.gap(here.gradient)
            if gap <= tolerance.gap:
                break
            # No nearer than the goal asks, nor than the loss is quadratic, which the last step has shown.
            bent = gap if before == np.inf else max(gap, SHARE_OF_LAST * gap / before)
            enough = max(min(ROUGHEST, np.sqrt(bent)), 0.5 * np.sqrt(tolerance.gap / gap), FINEST)
            step = self._newton_step(here, penalty, conditioner, enough)
            moved = self._move(coefficients, step, here, penalty, tolerance.dtype)
            if moved is None:  # no nearer in numbers of these many bits, or too far off
                break
            coefficients, here = moved
        # Adding the same to every class changes no probability. Left in, it grows along a path and slows the next fit.
        converged = conditioner is not None and conditioner.gap(here.gradient) <= tolerance.gap
        return Solution(coefficients - coefficients.mean(axis=0), converged)

    def fold(self, solution: Solution) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight (classes, D) and bias (classes,) that act on raw features: logits = features @ weight.T + bias.

        A class without a training image gets zero weights and the bias −log N. The logits of the others average to
        zero for every picture, so that it never wins and its probability stays below 1 / N.
        """
        weight = np.zeros((self._classes, len(self._mean)))
        bias = np.full(self._classes, -np.log(len(self._targets)))
        weight[self._present] = solution.coefficients[:, :-1] @ self._basis.T
        bias[self._present] = solution.coefficients[:, -1] - weight[self._present] @ self._mean
        return weight.astype(np.float32), bias.astype(np.float32)

    def unfold(self, weight: Floats, bias: Floats) -> Start:
        """What acts on raw features as `fold` gives it, of this or of a similar problem, as a start for `solve`."""
        raw = np.asarray(weight[self._present], dtype=np.float64)
        scale = np.where(np.isinf(self._scale), 0.0, self._scale)
        on_axes = raw @ (self._basis * np.square(scale)[:, None])
        coefficients = np.column_stack([on_axes, bias[self._present] + raw @ self._mean])
        centred: Start = coefficients - coefficients.mean(axis=0)
        return centred

    def _look(self, coefficients: Start, penalty: Doubles, dtype: type[np.floating[Any]]) -> _Place:
        """Loss and gradient at `coefficients`, computed in `dtype`."""
        per_class = coefficients.astype(dtype)
        loss = 0.5 * float(np.sum(penalty * coefficients**2))
        gradient = penalty * coefficients
        probabilities = np.empty((len(self._targets), len(coefficients)), np.float32)
        for rows in _blocks(len(self._targets)):
            features = self._rotated[rows].astype(dtype, copy=False)
            own = np.arange(len(features)), self._targets[rows]
            block = features @ per_class.T
            block -= block.max(axis=1, keepdims=True)
            own_logits = block[own]
            np.exp(np.maximum(block, LEAST_LOGIT, out=block), out=block)
            totals = block.sum(axis=1)
            loss += float(self._weights[rows] @ (np.log(totals) - own_logits))
            block /= totals[:, None]
            probabilities[rows] = block
            block[own] -= 1
            block *= self._weights[rows, None].astype(dtype)
            gradient += block.T @ features
        return _Place(loss, gradient, probabilities)

    def _conditioner(self, probabilities: NDArray[np.float32], penalty: Doubles) -> _Conditioner:
        """From the second derivative of the summed loss at these probabilities (images, present classes)."""
        together = np.argsort(-self._squares, kind="stable")[: min(AXES_TOGETHER, 1 + len(penalty) // AXES_SHARE)]
        classes, images = probabilities.shape[1], len(probabilities)
        diagonal = np.zeros((classes, len(penalty)))
        for rows in _blocks(images):
            diagonal += self._spread(probabilities, rows).T @ np.square(self._rotated[rows])
        least = LEAST_CURVATURE * self._squares / classes
        asked = np.sort(np.random.default_rng(0).permutation(images)[:CURVATURE_ROWS])
        some, spread = self._rotated[np.ix_(asked, together)], self._spread(probabilities, asked)
        inverse = np.empty((classes, len(together), len(together)), np.float32)
        for label, weights in enumerate(spread.T):
            block = ((some * weights[:, None]).T @ some).astype(np.float64)
            inverse[label] = np.linalg.inv(block * (images / len(asked)) + np.diag((penalty + least)[together]))
        return _Conditioner(np.maximum(diagonal, least) + penalty, together, inverse, len(self._targets))

    def _spread(self, probabilities: NDArray[np.float32], rows: slice | Integers) -> NDArray[np.float32]:
        """How unsure each of these images is of each class, by its weight."""
        unsure = probabilities[rows] * (1 - probabilities[rows])
        unsure *= self._weights[rows, None].astype(np.float32)
        return unsure

    def _newton_step(self, here: _Place, penalty: Doubles, conditioner: _Conditioner, enough: float) -> Start:
        """Where the loss would be least if it were quadratic, to within the part `enough` of the way."""
        step = np.zeros_like(here.gradient)
        left = -here.gradient
        direction = conditioned = conditioner.apply(left)
        before = begun = float(np.sum(left * conditioned))
        for _ in range(MAX_PRODUCTS):
            curved = self._times_curvature(direction, here.probabilities) + penalty * direction
            curvature = float(np.sum(direction * curved))
            if curvature <= 0:  # rounding: what is left of the gradient is none
                break
            length = before / curvature
            step += length * direction
            left -= length * curved
            conditioned = conditioner.apply(left)
            now = float(np.sum(left * conditioned))
            if now <= enough**2 * begun:
                break
            direction = conditioned + now / before * direction
            before = now
        return step

    def _times_curvature(self, direction: Start, probabilities: NDArray[np.float32]) -> Start:
        """The second derivative of the summed loss times `direction` (present classes, axes + 1)."""
        per_class = direction.astype(np.float32)
        curved = np.zeros_like(direction)
        for rows in _blocks(len(probabilities)):
            block = self._rotated[rows] @ per_class.T
            block -= np.einsum("nc,nc->n", block, probabilities[rows])[:, None]
            block *= probabilities[rows]
            block *= self._weights[rows, None].astype(np.float32)
            curved += block.T @ self._rotated[rows]
        return curved

    def _move(
        self,
        coefficients: Start,
        step: Start,
        here: _Place,
        penalty: Doubles,
        dtype: type[np.floating[Any]],
    ) -> tuple[Start, _Place] | None:
        """As far along `step` as the loss falls (Armijo's rule, algorithm 3.1 of the same book); None: nowhere."""
        slope = float(np.sum(here.gradient * step))
        length = 1.0
        while slope < 0 and length >= LEAST_MOVE:
            there = self._look(coefficients + length * step, penalty, dtype)
            if there.loss <= here.loss + ARMIJO * length * slope:
                return coefficients + length * step, there
            length /= 2
        return None


def standardisation(features: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale (D,) of `features` (N, D), summed in float64; a constant has an infinite scale: it becomes 0."""
    mean = features.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for rows in _blocks(len(features)):
        squares += np.square(features[rows] - mean).sum(axis=0)
    spread = np.sqrt(squares / len(features))
    constant = spread <= CONSTANT * np.maximum(np.abs(mean), np.median(spread))
    return mean, np.where(constant, np.inf, spread)


def _principal_axes(
    features: Floats, mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal axes (D, axes) of the standardised features and the sum of squares along each, without empty axes.

    The penalised optimum has no part outside these axes, so dropping the rest changes nothing.
    """
    count, width = features.shape
    if count < width:
        standardised = (features - mean) / scale
        variances, vectors = np.linalg.eigh(standardised @ standardised.T)
    else:
        products = np.zeros((width, width))
        for rows in _blocks(count):
            block = (features[rows] - mean) / scale
            products += block.T @ block
        variances, vectors = np.linalg.eigh(products)
    kept = variances > NO_VARIANCE * variances[-1]
    if count < width:
        return standardised.T @ (vectors[:, kept] / np.sqrt(variances[kept])), variances[kept]
    return vectors[:, kept], variances[kept]


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, count, BLOCK_ROWS)]
