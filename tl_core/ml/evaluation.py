"""How good a saved model is, and whether it answers outside this project as it does inside.

Must not know how the model was trained.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tl_core.errors import DataError
from tl_core.files import read_json
from tl_core.images.collection import TEST, TRAIN, VALIDATION, Collection, Picture
from tl_core.images.duplicates import find_duplicates
from tl_core.images.splits import divide
from tl_core.ml.inference import Predictor
from tl_core.ml.metrics import measure
from tl_core.sources import ModelSource

PARITY_IMAGES = 64
PARITY_TOLERANCE = 1e-5


def choose_pictures(source: ModelSource, collection: Collection, split: str | None) -> tuple[str, list[Picture]]:
    """The part of a collection to judge a model on, and its name.

    The data that the model was trained on is divided as it was then; other data has only the splits it came with.
    Without `split` that is the test part, or everything where there is none. Raises DataError for a part that is empty.
    """
    config = read_json(source.path / "training_config.json")
    if config is not None and config.get("data") in (collection.source, str(Path(collection.source).absolute())):
        groups = find_duplicates(collection.pictures).groups
        folds_allowed = config.get("strategy") == "frozen"
        division = divide(collection, groups, int(config.get("seed", 0)), folds_allowed=folds_allowed)
        parts = {TRAIN: division.train, VALIDATION: division.validation, TEST: division.test}
    else:
        given = collection.given_splits
        parts = {name: [i for i, picture in enumerate(collection.pictures) if picture.split == name] for name in given}
    parts["all"] = list(range(len(collection.pictures)))
    name = split or (TEST if parts.get(TEST) else "all")
    if not parts.get(name):
        present = ", ".join(part for part, indices in parts.items() if indices)
        raise DataError(f"{collection.source} has no {name} images; --split can be: {present}")
    return name, [collection.pictures[i] for i in parts[name]]


def evaluate_model(
    predictor: Predictor,
    pictures: Sequence[Picture],
    split: str,
    max_pixels: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Figures of a model on labelled pictures. Raises DataError when their classes are not the model's."""
    number = {label: index for index, label in enumerate(predictor.labels)}
    unknown = sorted({picture.label for picture in pictures if picture.label not in number})
    if unknown:
        raise DataError(
            f"{len(unknown)} of the data's classes are unknown to the model, {unknown[0]!r} for one; "
            "rename the folders to the model's class names, or leave them out",
            ["the model knows: " + ", ".join(predictor.labels[:20]) + (" …" if len(predictor.labels) > 20 else "")],
        )
    probabilities = predictor.read([picture.path for picture in pictures], max_pixels, progress)
    targets = np.asarray([number[picture.label] for picture in pictures])
    return measure(probabilities, targets, predictor.labels, split)


def check_parity(model_dir: Path, predictor: Predictor, pictures: Sequence[Picture], max_pixels: int) -> dict[str, Any]:
    """Ask `transformers.pipeline` and our own predictor about the same files, and say by how much they differ.

    Pictures that plain Pillow reads wrongly (16-bit, transparent) are counted apart: there the two are meant to differ.
    """
    from transformers import pipeline

    chosen = list(pictures[:PARITY_IMAGES])
    plain = [picture for picture in chosen if not picture.special]
    ours = predictor.read([picture.path for picture in plain], max_pixels)
    classify = pipeline("image-classification", model=str(model_dir), device=predictor.device)
    difference, agreed = 0.0, 0
    for picture, row in zip(plain, ours, strict=True):
        with Image.open(picture.path) as image:  # given a path, transformers leaves animated files open
            answer = classify(image, top_k=len(predictor.labels))
        theirs = {entry["label"]: entry["score"] for entry in answer}
        difference = max(
            difference, *(abs(theirs[label] - float(p)) for label, p in zip(predictor.labels, row, strict=True))
        )
        agreed += answer[0]["label"] == predictor.labels[int(row.argmax())]
    return {
        "images": len(plain),
        "read_differently": len(chosen) - len(plain),
        "max_abs_diff": difference,
        "agreement": agreed / len(plain) if plain else 1.0,
        "tolerance": PARITY_TOLERANCE,
        "passed": difference <= PARITY_TOLERANCE,
    }


def list_predictions(
    pictures: Sequence[Picture], probabilities: np.ndarray, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per judged picture, for the results page: file, label, prediction and its probability."""
    best = probabilities.argmax(-1)
    return [
        {
            "file": picture.name,
            "path": str(picture.path),
            "label": picture.label,
            "predicted": labels[index],
            "score": round(float(row[index]), 6),
        }
        for picture, row, index in zip(pictures, probabilities, best, strict=True)
    ]
