"""Seconds of the exact head: as a frozen run chooses its strength and fits it, and against scikit-learn.

    python -m benchmarks.head [--sizes 2000x768x10,50000x768x100]

A size is IMAGESxWIDTHxCLASSES. The features are generated: columns correlated as a backbone's, classes that overlap.
80 % are trained on, 20 % validate the strength, then all are fitted with it. scikit-learn fits sizes of up to 5,000
images once, with that strength already chosen.
"""

import argparse
import time
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.machine import describe
from tl_core.ml.heads import LinearHead, fit_exact, refit
from tl_core.ml.libraries import load_libraries

Size = tuple[int, int, int]
Sample = tuple[NDArray[np.float32], NDArray[np.int64]]
SIZES: list[Size] = [(2_000, 768, 10), (50_000, 768, 100)]
GOALS = {SIZES[0]: 1.0, SIZES[1]: 60.0}  # seconds on two cores
VALIDATION = 0.2
COMPARED = 5_000  # images at most: scikit-learn takes minutes of many more
CLASS_AXES = 64  # along which the classes differ, at most
SPREAD = 2.0  # of the images of a class, against that of the classes


def make_features(images: int, width: int, classes: int) -> Sample:
    """Features (images, width) whose variance falls along the axes as a backbone's does, and targets (images,)."""
    random = np.random.default_rng(0)
    targets = random.integers(0, classes, images)
    axes = random.standard_normal((images, width), dtype=np.float32) * np.float32(SPREAD)
    told = min(CLASS_AXES, width)
    axes[:, :told] += random.standard_normal((classes, told), dtype=np.float32)[targets]
    axes /= np.sqrt(1 + np.arange(width, dtype=np.float32))
    mixed = axes @ random.standard_normal((width, width), dtype=np.float32)
    return mixed.astype(np.float32, copy=False), targets


def measure(size: Size) -> None:
    features, targets = make_features(*size)
    classes, held = size[2], round(VALIDATION * size[0])
    trained, validation = (features[held:], targets[held:]), (features[:held], targets[:held])
    begun = time.perf_counter()
    chosen = fit_exact(*trained, classes, validation=validation, roughly=True)
    choosing = time.perf_counter() - begun
    assert chosen.strength is not None
    refit(features, targets, classes, chosen.strength, near=chosen)
    taken = time.perf_counter() - begun
    right = _accuracy(chosen.probabilities(validation[0]), validation[1])
    print(f"\n{size[0]:,} images, {size[1]} features, {classes} classes")
    print(f"  strength {chosen.strength:.3g} of {len(chosen.scores)} tried, validation accuracy {right:.1%}")
    print(
        f"  {taken:.2f} s: choosing {choosing:.2f} s, refitting {taken - choosing:.2f} s{_verdict(size, taken)}",
        flush=True,
    )
    if size[0] <= COMPARED:
        compare_with_sklearn(trained, validation, classes, chosen)


def compare_with_sklearn(trained: Sample, validation: Sample, classes: int, chosen: LinearHead) -> None:
    """One fit each of the training images with the chosen strength, both to the minimum, both from nothing."""
    assert chosen.strength is not None
    begun = time.perf_counter()
    ours = refit(*trained, classes, chosen.strength).probabilities(validation[0])
    taken = time.perf_counter() - begun
    begun = time.perf_counter()
    scaler = StandardScaler().fit(trained[0].astype(np.float64))
    # For two classes scikit-learn fits one row w where ours are w/2 and −w/2, whose penalty is half of |w|².
    inverse = (2 if classes == 2 else 1) / chosen.strength
    model = LogisticRegression(C=inverse, tol=1e-8, max_iter=20_000)
    model.fit(scaler.transform(trained[0].astype(np.float64)), trained[1])
    theirs = model.predict_proba(scaler.transform(validation[0].astype(np.float64)))
    by_sklearn = time.perf_counter() - begun
    print(
        f"  one fit of the training images {taken:.2f} s, scikit-learn {by_sklearn:.2f} s; validation accuracy "
        f"{_accuracy(ours, validation[1]):.1%} and {_accuracy(theirs, validation[1]):.1%}"
    )
    print(f"  largest difference of a probability {np.abs(ours - theirs).max():.1e}", flush=True)


def _accuracy(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    return float((probabilities.argmax(axis=1) == targets).mean())


def _verdict(size: Size, taken: float) -> str:
    if (goal := GOALS.get(size)) is None:
        return ""
    return f", goal ≤ {goal:g} s ({'reached' if taken <= goal else f'missed by {taken / goal - 1:.0%}'})"


def _parse_size(text: str) -> Size:
    images, width, classes = map(int, text.split("x"))
    return images, width, classes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=lambda text: [_parse_size(part) for part in text.split(",")], default=SIZES)
    sizes = parser.parse_args().sizes
    load_libraries()  # as a run does, for how memory is kept
    print(f"{describe()}, numpy {version('numpy')}, scipy {version('scipy')}, scikit-learn {version('scikit-learn')}")
    for size in sizes:
        measure(size)


if __name__ == "__main__":
    main()
