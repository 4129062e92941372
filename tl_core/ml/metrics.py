"""The measured part of a report: from class probabilities and true classes to figures that can be written as JSON.

The figures themselves come from the `evaluate.Metric` modules in `metric_modules.py`, imported when the first one is
asked for. Must not know: which model or strategy the probabilities come from.
"""

import math
import tempfile
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
TOP_K = 5
# Of simulated test sets of 54 to 2,000 pictures, the interval of so many draws held the truth for 93 % (95 % is meant).
BOOTSTRAP_DRAWS = 500


def measure(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], labels: list[str], split: str
) -> dict[str, Any]:
    """Measure `probabilities` (N, C) against `targets` (N,), class numbers into `labels` (C).

    Returns {split, images, accuracy, accuracy_ci [low, high], baseline {label, accuracy} (always the commonest class),
    macro_f1, macro_f1_ci, top_k {k, accuracy, accuracy_ci}, calibration_error, per_class [{label, precision,
    recall, recall_ci, f1, support}], confusion_matrix (rows: true class), labels}. All figures are fractions 0–1.
    Intervals are at 95 %: Wilson's for shares of pictures, for macro-F1 see `macro_f1_interval`. Macro-F1 averages over
    the classes that occur among the true or the predicted ones: a class of which no image was held out, and which was
    never predicted, neither helps nor harms.
    Precision of a class never predicted and recall of a class without images are 0.
    Raises ValueError when there is no image or the shapes disagree.
    """
    images, classes = probabilities.shape
    if images == 0 or targets.shape != (images,) or len(labels) != classes:
        raise ValueError(f"probabilities {probabilities.shape}, targets {targets.shape}, {len(labels)} labels")
    from tl_core.ml import metric_modules as modules

    predicted = probabilities.argmax(axis=1)
    right = predicted == targets
    commonest = int(np.bincount(targets, minlength=classes).argmax())
    k = max(1, min(TOP_K, classes - 1))
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    with tempfile.TemporaryDirectory() as scratch:  # evaluate makes a folder even when it keeps everything in memory

        def figures(metric: Any, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
            module = metric(keep_in_memory=True, cache_dir=scratch)
            result: dict[str, Any] = module.compute(predictions=predictions, references=references, **options)
            return result

        per_class = figures(modules.PerClassScores, predicted, targets, classes=classes)
        confusion = figures(modules.ConfusionMatrix, predicted, targets, classes=classes)
        among_first = figures(modules.TopKAccuracy, likeliest, targets)["top_k_accuracy"]
        return {
            "split": split,
            "images": images,
            **figures(modules.Accuracy, predicted, targets),
            "accuracy_ci": list(wilson_interval(int(right.sum()), images)),
            "baseline": {"label": labels[commonest], "accuracy": float((targets == commonest).mean())},
            **figures(modules.MacroF1, predicted, targets),
            "macro_f1_ci": list(macro_f1_interval(np.asarray(confusion["confusion_matrix"]))),
            "top_k": {"k": k, "accuracy": among_first, "accuracy_ci": list(_share_interval(among_first, images))},
            **figures(modules.CalibrationError, probabilities[np.arange(images), predicted], right),
            "per_class": [
                {
                    "label": label,
                    **{name: values[place] for name, values in per_class.items()},
                    "recall_ci": list(_share_interval(per_class["recall"][place], per_class["support"][place])),
                }
                for place, label in enumerate(labels)
            ],
            **confusion,
            "labels": list(labels),
        }


def macro_f1_interval(confusion: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """95 % interval of macro-F1 from a confusion matrix (C, C): the middle of what test sets give that are drawn, with
    replacement, from this one (percentile bootstrap; Efron 1979, Annals of Statistics 7: 1–26)."""
    images, classes = int(confusion.sum()), len(confusion)
    rows, columns = np.nonzero(confusion)
    drawn = np.random.default_rng(0).multinomial(images, confusion[rows, columns] / images, size=BOOTSTRAP_DRAWS)
    right, either = np.zeros((2, BOOTSTRAP_DRAWS, classes))
    for times, row, column in zip(drawn.T, rows, columns, strict=True):
        either[:, row] += times
        either[:, column] += times
        if row == column:
            right[:, row] += times
    macro_f1 = (2 * right / np.maximum(either, 1)).sum(axis=1) / (either > 0).sum(axis=1)
    low, high = np.quantile(macro_f1, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _share_interval(share: float, images: int) -> tuple[float, float]:
    return wilson_interval(round(share * images), images)


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Accuracy of the first model less that of the second on the same pictures, and its 95 % interval.

    Both are (N,): which pictures each got right. Newcombe's hybrid score interval for paired proportions (1998,
    Statistics in Medicine 17: 2635–2650, method 10). Raises ValueError without pictures.
    """
    images = len(first)
    if images == 0 or first.shape != second.shape:
        raise ValueError(f"answers to {len(first)} and {len(second)} pictures cannot be compared")
    one, two = float(first.mean()), float(second.mean())
    (low_one, high_one), (low_two, high_two) = (wilson_interval(int(each.sum()), images) for each in (first, second))
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_one, only_two = int((first & ~second).sum()), int((~first & second).sum())
    margins = (both + only_one) * (only_two + neither) * (both + only_two) * (only_one + neither)
    agreement = float(both * neither - only_one * only_two)
    if agreement > 0:  # his correction for continuity, which never turns the sign
        agreement = max(agreement - images / 2, 0)
    phi = agreement / math.sqrt(margins) if margins else 0.0
    below, above = one - low_one, high_two - two
    low = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    below, above = high_one - one, two - low_two
    high = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    return one - two, max(-1.0, one - two - low), min(1.0, one - two + high)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, JASA 22: 209–212); (0, 1) without trials.

    Unlike ± 1.96 standard errors it stays inside 0–1 and has a width when all or none succeeded.
    """
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    margin = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)
