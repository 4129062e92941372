"""What this project can do, one function for each thing: the Python face, under the command line and the page.

    import tl_core
    report = tl_core.train(data="photos")
    tl_core.predict(report["run_id"], ["new.jpg"])

Plain values in, plain values out. torch is imported by the functions that need it, after whatever can be said about
wrong words has been said. Must not know flags, forms or terminals.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core.catalogue import DEFAULT_MODEL
from tl_core.config import TrainConfig
from tl_core.errors import ConfigError, DataError, HubError
from tl_core.files import existing_path
from tl_core.images.collection import natural_key
from tl_core.recorder import LogStream
from tl_core.runs import LOCAL_OWNER, Run, create_run, find_run, list_runs
from tl_core.settings import Settings, read_settings
from tl_core.sources import ModelSource, Named, Ticker, open_configured, open_data, open_model

if TYPE_CHECKING:
    from tl_core.images.report import Report


def models(*, measure: bool = False) -> list[dict[str, Any]]:
    """The catalogue: embedded backbones first, then curated ones on the Hub. Any other Hub id works as well.

    `seconds_per_image` is what an embedded one takes for a picture on this machine, None for one that has not been
    measured; with `measure` those are measured now, and remembered.
    """
    from tl_core.catalogue import list_backbones
    from tl_core.ml.costs import cost_of

    settings = read_settings()
    return [
        {**backbone.to_json(), "seconds_per_image": cost_of(backbone, settings, measure=measure)}
        for backbone in list_backbones()
    ]


def check(
    data: str, *, image_column: str | None = None, label_column: str | None = None, ticker: Ticker | None = None
) -> "Report":
    """What is in `data`, verified: classes, skipped files, duplicates, splits, warnings. Raises DataError, HubError."""
    from tl_core.survey import make_survey

    settings = read_settings()
    collection = open_data(data, settings, image_column=image_column, label_column=label_column, ticker=ticker)
    return make_survey(collection).report


def train(
    config: TrainConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    echo: LogStream | None = None,
    ticker: Ticker | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train in this process; the run's report, with `model_dir` None where it was stopped before there was a model.

    The configuration is a TrainConfig, its values, the data alone, or values as keywords: `train("photos",
    strategy="full")`; the keywords are the flags of the command line. `ticker` hears how far it is, `echo`
    receives the log. Raises TLError; where it is about the configuration, the data or the backbone, nothing was
    written.
    """
    settings = read_settings()
    begun = time.perf_counter()
    config, named = _open_words(_parsed(config, options), settings, ticker)
    from tl_core.ml.inputs import make_inputs
    from tl_core.ml.libraries import quieten
    from tl_core.ml.worker import work

    quieten()
    inputs = make_inputs(config, *named, seconds=time.perf_counter() - begun)
    return work(create_run(config, settings), settings, echo=echo, ticker=ticker, inputs=inputs)


def train_in_background(
    config: TrainConfig | Mapping[str, Any], *, owner: str = LOCAL_OWNER, ticker: Ticker | None = None
) -> Run:
    """Verify the images here, then let a process of its own train; its run folder tells how far it is.

    It starts at once, or waits in the queue while as many work in the background as may. Raises TLError.
    """
    from tl_core.jobs import check_room_in_queue, enqueue

    settings = read_settings()
    check_room_in_queue(owner, settings)
    config, _ = _open_words(_parsed(config, {}), settings, ticker)
    run = create_run(config, settings, owner)
    enqueue(run, settings)
    return run


def resume(run: str, *, echo: LogStream | None = None, ticker: Ticker | None = None) -> dict[str, Any]:
    """Continue a run from its last checkpoint in this process; as `train`. Raises JobError for one that cannot be."""
    from tl_core.jobs import check_resumable

    settings = read_settings()
    found = find_run(run, settings)
    check_resumable(found)
    from tl_core.ml.worker import work

    return work(found, settings, echo=echo, ticker=ticker)


def resume_in_background(run: str) -> Run:
    """Continue a run in a process of its own, at once or when its turn has come. Raises JobError where it cannot be."""
    from tl_core.jobs import enqueue

    settings = read_settings()
    found = find_run(run, settings)
    enqueue(found, settings)
    return found


def runs() -> list[dict[str, Any]]:
    """All runs with their states and places in the queue, oldest first."""
    from tl_core.jobs import queue_of

    settings = read_settings()
    queue = queue_of(settings)
    return [run.view(queue).to_json() for run in list_runs(settings)]


def stop(run: str, *, now: bool = False) -> dict[str, Any]:
    """End a run after its current step and wait for that; `now` ends its process at once. One that is queued leaves
    the queue. Raises JobError."""
    from tl_core.jobs import kill_run, stop_run

    found = find_run(run, read_settings())
    if now:
        kill_run(found)
    else:
        stop_run(found)
    return found.view().to_json()


def predict(model: str, images: Sequence[str | Path], *, top: int = 0) -> dict[str, Any]:
    """{predictions: [{file, labels: [{label, score}]}], skipped: [{file, reason}]}, the `top` most probable labels of
    each image, all for 0.

    An image is a file, or a folder for all images in it; `sample:NAME` stands for one image of each class of a sample,
    of those that the model was not trained on. Raises DataError when none can be read, ModelError, HubError.
    """
    settings = read_settings()
    source = open_model(model, settings, accept=_accept)
    files = [file for image in images for file in _files_of(str(image), source)]
    from tl_core.ml.inference import rank_labels, recall_predictor
    from tl_core.ml.libraries import quieten

    quieten()
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
    source = open_model(model, settings, accept=_accept)
    collection = open_data(data, settings, image_column=image_column, label_column=label_column, ticker=ticker)
    from tl_core.ml.evaluation import choose_pictures, evaluate_model
    from tl_core.ml.inference import load_predictor
    from tl_core.ml.libraries import quieten

    quieten()
    name, pictures, fitted = choose_pictures(source, collection, split)
    figures = evaluate_model(
        load_predictor(source), pictures, name, settings.max_pixels, ticker and functools.partial(ticker, "judging")
    )
    apart = {key: figures.pop(key) for key in ("per_class", "confusion_matrix", "labels")}
    return {"metrics": {**figures, "fitted_on": fitted}, **apart}


def preview(config: TrainConfig | Mapping[str, Any], *, ticker: Ticker | None = None) -> dict[str, Any]:
    """What `train` would do with a configuration and about how long it would take here, without doing it.

    {groups, parameters, trained_parameters, image_size, figures, seconds, seconds_low, seconds_high, seconds_reason,
    images}, as `tl_core.ml.preview` says. A model that has not been fetched from the Hub yet is not fetched for this:
    raises HubError then, and whatever else `train` would raise before it begins.
    """
    settings = read_settings()
    config = _parsed(config, {})
    source = _model_at_hand(config.model, settings, weights=config.needs_weights)
    teacher = _model_at_hand(config.teacher, settings) if config.teacher else None
    columns = {"image_column": config.image_column, "label_column": config.label_column}
    collection = open_data(config.data, settings, **columns, ticker=ticker)
    from tl_core.ml.libraries import quieten
    from tl_core.ml.preview import preview as foresee

    quieten()
    return foresee(config, Named(source, collection, teacher), settings)


def rank(
    data: str,
    *,
    models: Sequence[str] | None = None,
    images: int | None = None,
    seed: int = TrainConfig.model_fields["seed"].default,
    image_column: str | None = None,
    label_column: str | None = None,
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """Which backbone suits `data`, before anything is trained: {backbones: [{id, score, score_ci, …}] best first,
    failed: [{id, reason}], recommendation: {accuracy, speed: {id, reason}}, …}, as in `tl_core.ml.ranking`.

    `models` are words as `train` takes them, None for `models_at_hand`; `images` is the most to look at, None for as
    many as are worth their time. With the `seed` of a training its test images are left out. Raises DataError,
    HubError, ConfigError, and where no model can be used what was wrong with them.
    """
    begun = time.perf_counter()
    settings = read_settings()
    if images is not None and images < 1:
        raise ConfigError(f"--images is {images}; it must be at least 1, or left out")
    from tl_core.ml.candidates import open_candidates, refuse_none

    candidates = open_candidates(models, settings, _accept)
    collection = open_data(data, settings, image_column=image_column, label_column=label_column, ticker=ticker)
    from tl_core.ml.libraries import quieten
    from tl_core.ml.ranking import rank_backbones
    from tl_core.ml.recommendation import recommend

    quieten()
    ranking = rank_backbones(candidates.sources, collection, settings, images=images, seed=seed, ticker=ticker)
    ranking = replace(ranking, failed={**candidates.failed, **ranking.failed})
    refuse_none(ranking.backbones, ranking.failed)
    seconds = round(time.perf_counter() - begun, 1)
    asked = {"data": collection.source, "image_column": image_column, "label_column": label_column}
    return {**asked, **ranking.to_json(), "recommendation": recommend(ranking), "seconds": seconds}


def models_at_hand() -> list[str]:
    """The catalogue's ids that need no network: the embedded ones, and those that were fetched from the Hub before."""
    from tl_core.ml.candidates import at_hand

    return at_hand(read_settings())


def warm(model: str = DEFAULT_MODEL) -> None:
    """Load torch, transformers and a model, and let it answer once, so that the next answer comes at once.

    Raises ModelError, HubError.
    """
    settings = read_settings()
    source = open_model(model, settings, accept=_accept)
    from PIL import Image

    from tl_core.ml.inference import recall_predictor
    from tl_core.ml.libraries import quieten

    quieten()
    recall_predictor(source).judge([Image.new("RGB", (64, 64))])


def pack(run: str, folder: str | Path) -> Path:
    """A zip of a run's model in `folder`, for plain transformers; its path. Raises JobError."""
    from tl_core.packing import pack_model

    return pack_model(find_run(run, read_settings()), Path(folder))


def _model_at_hand(word: str, settings: Settings, *, weights: bool = True) -> ModelSource:
    """A model that a configuration names, from this disk alone."""
    from tl_core.hub.repository import Unreachable

    try:
        return open_model(word, replace(settings, offline=True), weights=weights, accept=_accept)
    except Unreachable as failure:
        raise HubError(
            f"{word} is not on this machine yet: the estimate comes once it has been fetched, which a training "
            "does first of all"
        ) from failure


def _parsed(config: TrainConfig | Mapping[str, Any] | str | Path | None, options: Mapping[str, Any]) -> TrainConfig:
    if isinstance(config, str | Path):
        return TrainConfig.parse({"data": str(config), **options})
    if isinstance(config, TrainConfig):
        return TrainConfig.parse({**config.to_json(), **options}) if options else config
    return TrainConfig.parse({**(config or {}), **options})


def _open_words(config: TrainConfig, settings: Settings, ticker: Ticker | None) -> tuple[TrainConfig, Named]:
    """What a configuration names, and the same configuration in words that stay true: absolute paths, and a run's id
    for `last`."""
    named = open_configured(config, settings, ticker, _accept)
    teacher = named.teacher.named if named.teacher else None
    return config.with_words(data=named.collection.source, model=named.source.named, teacher=teacher), named


def _accept(config: dict[str, Any]) -> None:
    """Refuse a Hub model that classifies no images before its weights are fetched."""
    from tl_core.ml.backbone import accept_architecture

    accept_architecture(config)


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
