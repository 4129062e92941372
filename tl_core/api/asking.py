"""A model is asked: about pictures, about how good it is."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tl_core.api.words import accept
from tl_core.catalogue import DEFAULT_MODEL
from tl_core.errors import DataError
from tl_core.files import existing_path
from tl_core.images.collection import natural_key
from tl_core.settings import read_settings
from tl_core.sources import ModelSource, Ticker, open_data, open_model


def predict(model: str, images: Sequence[str | Path], *, top: int = 0) -> dict[str, Any]:
    """{predictions: [{file, labels: [{label, score}]}], skipped: [{file, reason}]}, the `top` most probable labels of
    each image, all for 0.

    An image is a file, or a folder for all images in it; `sample:NAME` stands for one image of each class of a sample,
    of those that the model was not trained on. Raises DataError when none can be read, ModelError, HubError.
    """
    settings = read_settings()
    source = open_model(model, settings, accept=accept)
    files = [file for image in images for file in _files_of(str(image), source)]
    from tl_core.ml.libraries import load_libraries

    load_libraries()
    from tl_core.ml.inference import rank_labels, recall_predictor

    predictor = recall_predictor(source)
    predictions, skipped = [], []
    for file, row in predictor.answer(files, settings.max_pixels):
        if isinstance(row, DataError):
            skipped.append({"file": str(file), "reason": row.message})
        else:
            labels = rank_labels(row, predictor.labels, top or len(predictor.labels))
            predictions.append({"file": str(file), "labels": labels})
    if not predictions:
        reasons = [f"{entry['file']}: {entry['reason']}" for entry in skipped]
        raise DataError(
            reasons[0] if len(reasons) == 1 else f"none of {len(reasons):,} images can be read", reasons[1:]
        )
    return {"predictions": predictions, "skipped": skipped}


def evaluate(
    model: str,
    data: str,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """{metrics, per_class, confusion_matrix, labels} of `model` on `data`.

    A run is judged on the images that it was not fitted on, unless `split` says otherwise; `metrics.fitted_on` counts
    those that it was. Raises DataError, ModelError, HubError.
    """
    settings = read_settings()
    source = open_model(model, settings, accept=accept)
    collection = open_data(data, settings, image_column=image_column, label_column=label_column, ticker=ticker)
    from tl_core.ml.libraries import load_libraries

    load_libraries()
    from tl_core.ml.evaluation import choose_pictures, evaluate_model
    from tl_core.ml.inference import load_predictor

    name, pictures, fitted = choose_pictures(source, collection, split)
    figures = evaluate_model(
        load_predictor(source), pictures, name, settings.max_pixels, ticker and functools.partial(ticker, "judging")
    )
    apart = {key: figures.pop(key) for key in ("per_class", "confusion_matrix", "labels")}
    return {"metrics": {**figures, "fitted_on": fitted}, **apart}


def warm(model: str = DEFAULT_MODEL) -> None:
    """Load torch, transformers and a model, and let it answer once, so that the next answer comes at once.

    Raises ModelError, HubError.
    """
    settings = read_settings()
    source = open_model(model, settings, accept=accept)
    from PIL import Image

    from tl_core.ml.libraries import load_libraries

    load_libraries()
    from tl_core.ml.inference import recall_predictor

    recall_predictor(source).judge([Image.new("RGB", (64, 64))])


def _files_of(word: str, source: ModelSource) -> list[Path]:
    """The files that a word names: one, those of a folder, or one for each class of a sample."""
    if word.startswith("sample:"):
        from tl_core.ml.evaluation import choose_pictures

        _, pictures, _ = choose_pictures(source, open_data(word, read_settings()))
        by_class = {picture.label: picture.path for picture in reversed(pictures)}
        return [path for _, path in sorted(by_class.items(), key=lambda item: natural_key(item[0]))]
    path = existing_path(word)
    if path is None:
        raise DataError(f"there is no image file {word!r}")
    if not path.is_dir():
        return [path]
    from tl_core.images.decode import readable_extensions

    endings = readable_extensions()
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in endings and file.is_file())
    if not files:
        raise DataError(f"the folder {word} holds no images")
    return files
