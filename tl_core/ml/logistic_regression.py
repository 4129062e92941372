"""L2-regularised multinomial logistic regression, solved exactly and quickly, for one strength after another.

Minimises, over a weight row and a bias per class, on standardised features x,

    sum over images of  weight[class] · −log softmax(W x + b)[class]   +   strength / 2 · |W|²

which is scikit-learn's `LogisticRegression` with `C = 1 / strength` (biases are not penalised). It exists beside
scikit-learn's because a path of strengths over 50,000 × 768 features has to take about a minute on two cores. The
minimum is the same and so is the solver, L-BFGS (SciPy's); it only gets better coordinates: features rotated onto their
principal axes, every coefficient stretched by the square root of its own second derivative at the start (its formula:
Böhning 1992, "Multinomial logistic regression algorithm"). Tens of steps then do what took hundreds.
Must not know: where features come from, how a strength is chosen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Start = NDArray[np.float64]  # coefficients (present classes, axes + 1)

# Rows handled at a time: sums are carried in float64 from block to block, and logits for a thousand classes stay small.
BLOCK_ROWS = 8192
# A feature whose spread is below this part of its own size, or of the typical feature's spread, is rounding in float32.
CONSTANT = 1e-5
# Principal axes with less than this part of the largest variance are rounding noise.
NO_VARIANCE = 1e-10
# Coefficients are stretched by at least this part of the second derivative at equal probabilities: where all images are
# sure, it is next to nothing at the start but not along the way.
LEAST_CURVATURE = 1e-3
MAX_STEPS = 2000
STEPS_REMEMBERED = 20  # by L-BFGS; 10 take an eighth more steps


@dataclass(frozen=True)
class Tolerance:
    """When L-BFGS may end: the loss is by `gap` per image above its minimum, or a step gains less than `gain` of it."""

    gap: float
    gain: float
    dtype: type[np.floating[Any]]


# While comparing strengths; as near as float32 comes, whose losses carry noise of about 1e-8, in half the time of
# float64; and in the weights that are kept.
COMPARING = Tolerance(1e-5, 1e-7, np.float32)
NEAR = Tolerance(1e-7, 1e-9, np.float32)
FINAL = Tolerance(1e-11, 1e-15, np.float64)


@dataclass(frozen=True)
class Solution:
    """Coefficients (present classes, axes + 1) on the principal axes, the bias last, averaging to 0 over the classes.

    `converged` is False when L-BFGS gave up before its tolerance.
    """

    coefficients: NDArray[np.float64]
    converged: bool


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
        """Minimum for `strength`, begun from the coefficients in `start`."""
        penalty = np.full(len(self._squares), strength)
        penalty[-1] = 0.0
        shape = (len(self._present), len(penalty))
        coefficients = np.zeros(shape) if start is None else start
        stretch = np.sqrt(penalty + self._curvature(coefficients))
        begin = coefficients * stretch
        # In stretched coordinates the curvature is about 1: a gradient g means a sum of losses about |g|²/2 too high.
        gap = tolerance.gap * len(self._targets)
        result = minimize(
            lambda point: self._loss_and_gradient(point.reshape(shape), penalty, stretch, tolerance.dtype),
            begin.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "gtol": np.sqrt(2 * gap / begin.size),
                "ftol": tolerance.gain,
                "maxcor": STEPS_REMEMBERED,
                "maxiter": MAX_STEPS,
                "maxfun": 2 * MAX_STEPS,
            },
        )
        coefficients = result.x.reshape(shape) / stretch
        # Adding the same to every class changes no probability. Left in, it grows along a path and slows the next fit.
        return Solution(coefficients - coefficients.mean(axis=0), bool(result.success))

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

    def _curvature(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Second derivative of the summed loss along each coefficient (present classes, axes + 1), kept above zero."""
        per_class = coefficients.astype(np.float32)
        curvature = np.zeros_like(coefficients)
        for rows in _blocks(len(self._targets)):
            features = self._rotated[rows]
            probabilities = softmax(features @ per_class.T, axis=1)
            probabilities *= (1 - probabilities) * self._weights[rows, None].astype(np.float32)
            curvature += probabilities.T @ np.square(features)
        return np.maximum(curvature, LEAST_CURVATURE * self._squares / len(coefficients))

    def _loss_and_gradient(
        self,
        stretched: NDArray[np.float64],
        penalty: NDArray[np.float64],
        stretch: NDArray[np.float64],
        dtype: type[np.floating[Any]],
    ) -> tuple[float, NDArray[np.float64]]:
        coefficients = stretched / stretch
        per_class = coefficients.astype(dtype)
        loss = 0.5 * float(np.sum(penalty * coefficients**2))
        gradient = penalty * coefficients
        for rows in _blocks(len(self._targets)):
            features = self._rotated[rows].astype(dtype, copy=False)
            own = np.arange(len(features)), self._targets[rows]
            probabilities = features @ per_class.T
            probabilities -= probabilities.max(axis=1, keepdims=True)
            own_logits = probabilities[own]
            np.exp(probabilities, out=probabilities)
            totals = probabilities.sum(axis=1)
            loss += float(self._weights[rows] @ (np.log(totals) - own_logits))
            probabilities /= totals[:, None]
            probabilities[own] -= 1
            probabilities *= self._weights[rows, None].astype(dtype)
            gradient += probabilities.T @ features
        return loss, (gradient / stretch).ravel()


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
