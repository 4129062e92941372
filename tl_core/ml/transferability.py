"""How well features tell classes apart, without training anything: LogME and nearest neighbours.

Both say something beside the accuracy of a head: they are quick, and they err in other ways. Must not know backbones,
pictures or where features come from.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

# An odd number, so that two classes seldom tie; a small one, for a class of few pictures has few neighbours to offer.
NEIGHBOURS = 5
# LogME's fixed point is reached when the ratio of its two precisions moves by less than this part; where features
# explain the classes wholly the ratio goes to 0, and ends at the second number times the largest squared axis.
STILL, LEAST_RATIO = 1e-6, 1e-12
MOST_STEPS = 1000
# Squared axes below this part of the largest are rounding.
NO_VARIANCE = 1e-12
# Rows of similarities held at a time.
BLOCK_ROWS = 1024


def log_maximum_evidence(features: Floats, targets: Integers) -> float:
    """LogME (You, Liu, Wang, Long 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning").

    `features` (N, D) and `targets` (N,) of at least two classes. For each class, the logarithm of the evidence of a
    linear regression of "is it this class" (1 or 0) on the features, per picture, at the prior precision α and noise
    precision β that maximise it; the mean over the classes that occur. Larger is better; only values for the same
    pictures and classes can be compared. The fixed point is the paper's (algorithm 1, on singular values as in its
    section 4.3), followed for t = α / β, in which everything can be said: it decides β as well.
    """
    rows = len(targets)
    one_hot = (targets[:, None] == np.unique(targets)).astype(np.float64)
    left, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    squares = np.square(singular)
    kept = squares > NO_VARIANCE * squares.max(initial=0.0)
    squares = squares[kept, None]  # (axes, 1), against (1, classes)
    along = np.square(left[:, kept].T @ one_hot)  # what of each class lies along each axis, squared
    across = np.maximum(np.square(one_hot).sum(axis=0) - along.sum(axis=0), 0.0)  # and along none of them
    least = LEAST_RATIO * (squares.max() if squares.size else 1.0)
    ratio = np.full((1, one_hot.shape[1]), squares.mean() if squares.size else 1.0)
    for _ in range(MOST_STEPS):
        shrunk = ratio / (ratio + squares)
        unexplained = (np.square(shrunk) * along).sum(axis=0) + across
        weights = (squares * along / np.square(ratio + squares)).sum(axis=0)
        effective = (1 - shrunk).sum(axis=0)
        free = rows - len(squares) + shrunk.sum(axis=0)
        before, ratio = ratio, effective * unexplained / np.maximum(weights * free, np.finfo(float).tiny)
        ratio = np.maximum(ratio, least)[None]
        if (np.abs(ratio - before) <= STILL * before).all():
            break
    misfit = (ratio / (ratio + squares) * along).sum(axis=0) + across  # of which 1 / β is the mean
    misfit = np.maximum(misfit, np.finfo(float).tiny)
    evidence = rows / 2 * (np.log(rows / (2 * np.pi * misfit)) - 1) - np.log1p(squares / ratio).sum(axis=0) / 2
    return float(evidence.mean() / rows)


def neighbour_accuracy(features: Floats, targets: Integers, groups: Integers, neighbours: int = NEIGHBOURS) -> float:
    """The share of pictures whose nearest others, by the cosine of their features, mostly are of their class.

    `features` (N, D), `targets` (N,); pictures with the same number in `groups` (N,) are no neighbours of each other:
    a near-duplicate would be asked about itself. Where classes tie, the most similar picture of theirs decides. A
    picture without any neighbour counts as wrong.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = (features / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    most = min(neighbours, len(targets) - 1)
    right = 0
    for start in range(0, len(targets), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        similar = directions[block] @ directions.T
        similar[groups[block, None] == groups] = -np.inf
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :most]
        for row, (near, target) in enumerate(zip(nearest, targets[block], strict=True)):
            voters = targets[near[np.isfinite(similar[row, near])]]
            right += int(len(voters) and _elected(voters) == target)
    return right / len(targets)


def _elected(voters: Integers) -> int:
    """The class of most voters, who come nearest first; of classes with as many, that of the nearest."""
    votes = np.bincount(voters)
    return int(next(voter for voter in voters if votes[voter] == votes.max()))
