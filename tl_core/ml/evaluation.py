"""How good a saved model is, and whether it answers outside this project as it does inside.

Must not know how the model was trained.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tl_core.errors import DataError
from tl_core.images.collection import TEST, TRAIN, VALIDATION, Collection, Picture
from tl_core.ml.inference import Predictor
from tl_core.ml.metrics import measure
from tl_core.ml.preprocessing import processor_size
from tl_core.parts import Parts, recall_parts
from tl_core.runs import Run
from tl_core.sources import ModelSource

PARITY_IMAGES = 64
# At 224 pixels on two cores the 64 would take longer than teaching: of large pictures fewer are asked about, as many as
# have together the pixels of 64 at 96, and no fewer than the least.
LEAST_PARITY_IMAGES = 8
_PARITY_PIXELS = PARITY_IMAGES * 96 * 96
# Features are held against more answers than the pipeline's: these are cheap enough for a maximum that says something.
LEAST_FEATURES_IMAGES = 32
PARITY_TOLERANCE = 1e-5
EVERYTHING = "all"


def choose_pictures(
    source: ModelSource, collection: Collection, split: str | None = None
) -> tuple[str, list[Picture], int]:
    """The part of a collection to judge a model on: its name, its pictures, how many of them the model was fitted on.

    A run knows the pictures it saw by their content: without `split` it is judged on those that it was not fitted on.
    Other models are judged on the test part that the data came with, or on everything. Raises DataError for a part
    that is empty.
    """
    parts = recall_parts(Run(source.path.parent)) if source.kind == "run" else None
    fitted = parts.fitted if parts is not None else frozenset()
    pictures = collection.pictures
    if parts is not None and any(parts.part_of(picture) for picture in pictures):
        unseen = parts.reported
        choices = {name: [p for p in pictures if _person_calls(parts, p) == name] for name in (TRAIN, VALIDATION, TEST)}
        choices[unseen] = [
            picture for picture in pictures if picture.digest not in fitted or _is_tested(parts, picture)
        ]
    else:
        unseen = TEST
        choices = {name: [p for p in pictures if p.split == name] for name in collection.given_splits}
        if not choices.get(TEST):
            unseen = EVERYTHING
    choices[EVERYTHING] = list(pictures)
    name = split or unseen
    chosen = choices.get(name, [])
    if not chosen:
        present = ", ".join(part for part, found in choices.items() if found)
        reason = (
            f"{source.named} was fitted on every image of it" if not split and fitted else f"it has no {name} images"
        )
        raise DataError(f"{collection.source} cannot be judged so: {reason}; --split can be: {present}")
    return name, chosen, sum(picture.digest in fitted and not _is_tested(parts, picture) for picture in chosen)


def _is_tested(parts: Parts | None, picture: Picture) -> bool:
    if parts is None or parts.uses_folds or picture.digest in parts.inherited:
        return False
    return parts.part_of(picture) == TEST


def _person_calls(parts: Parts, picture: Picture) -> str | None:
    """The person's own name of a part: where they gave train and one other, that one was tested, and train steered."""
    part = parts.part_of(picture)
    if part == TEST:
        return TRAIN if parts.uses_folds else parts.reported
    return TRAIN if part == VALIDATION and (parts.reported == VALIDATION or parts.uses_folds) else part


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


def check_parity(
    model_dir: Path,
    predictor: Predictor,
    pictures: Sequence[Picture],
    probabilities: np.ndarray | None,
    max_pixels: int,
    exactly: Callable[[Sequence[Picture]], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Ask `transformers.pipeline` and our own predictor about the same files, and say by how much they differ.

    Also compares the predictor with `probabilities` (len(pictures), C) where they are given, on `features_images`
    pictures; beyond those that the pipeline is asked about `exactly` may answer in its place. Pictures that plain
    Pillow reads wrongly (16-bit, transparent) or not at all (very large) are counted apart. `passed` is None where no
    picture could be compared.
    """
    from transformers import pipeline

    asked = parity_images(predictor.processor)
    read = _spread(len(pictures), asked if probabilities is None else max(asked, LEAST_FEATURES_IMAGES))
    rows = read[_spread(len(read), asked)]
    ours = predictor.read([pictures[row].path for row in rows], max_pixels)
    classify = pipeline("image-classification", model=str(model_dir), device=predictor.device)
    differences, agreed = [], 0
    for row, answer in zip(rows, ours, strict=True):
        picture = pictures[row]
        if picture.special or picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or 0):
            continue
        with Image.open(picture.path) as image:  # given a path, transformers leaves animated files open
            theirs = classify(image, top_k=len(predictor.labels))
        scores = {entry["label"]: entry["score"] for entry in theirs}
        differences.append(
            max(abs(scores[label] - float(p)) for label, p in zip(predictor.labels, answer, strict=True))
        )
        agreed += theirs[0]["label"] == predictor.labels[int(answer.argmax())]
    compared = len(differences)
    apart = 0.0
    if probabilities is not None:
        others = np.setdiff1d(read, rows)
        asked_too = [pictures[row] for row in others]
        answers = exactly(asked_too) if exactly else predictor.read([each.path for each in asked_too], max_pixels)
        found = [np.abs(probabilities[rows] - ours), np.abs(probabilities[others] - answers)]
        apart = max(float(each.max(initial=0.0)) for each in found)
    return {
        "images": compared,
        "read_differently": len(rows) - compared,
        "max_abs_diff": max(differences, default=0.0),
        "agreement": agreed / compared if compared else None,
        "tolerance": PARITY_TOLERANCE,
        "passed": max(differences) <= PARITY_TOLERANCE if compared else None,
        "features_images": 0 if probabilities is None else len(read),
        "features_max_abs_diff": apart,
    }


def _spread(total: int, wanted: int) -> np.ndarray:
    """So many of `total` indices, all of them where there are fewer, as far apart as can be."""
    return np.unique(np.linspace(0, total - 1, min(wanted, total)).round().astype(int))


def parity_images(processor: Any) -> int:
    """How many pictures the parity check asks about."""
    height, width = processor_size(processor)
    return max(LEAST_PARITY_IMAGES, min(PARITY_IMAGES, _PARITY_PIXELS // (height * width)))


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
