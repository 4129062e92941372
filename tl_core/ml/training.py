"""The recipe: from a configuration to a trained, measured, saved classifier. Read it top to bottom.

Each step is one call with a name. Must not know who started the run or who watches it.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from tl_core.config import TrainConfig
from tl_core.errors import DataError
from tl_core.files import write_atomically, write_json
from tl_core.images.collection import Collection
from tl_core.images.duplicates import Duplicates, find_duplicates
from tl_core.images.report import make_report
from tl_core.images.splits import Division, divide
from tl_core.ml.backbone import Backbone, fingerprint, load_backbone, read_architecture, save_backbone
from tl_core.ml.data import targets_of
from tl_core.ml.evaluation import check_parity, list_predictions
from tl_core.ml.frozen import train_frozen
from tl_core.ml.inference import load_predictor
from tl_core.ml.machine import current_device, describe_machine
from tl_core.ml.metrics import measure
from tl_core.ml.precision import checked_precision
from tl_core.ml.scratch import train_from_scratch
from tl_core.model_card import render_card
from tl_core.recorder import Recorder
from tl_core.settings import Settings
from tl_core.sources import ModelSource, open_data, open_model

VERSIONS_OF = ("torch", "transformers", "datasets", "accelerate", "scikit-learn", "pillow")


@dataclass(frozen=True)
class Inputs:
    """What a configuration names, found and verified; nothing has been trained or written."""

    source: ModelSource
    collection: Collection
    duplicates: Duplicates
    division: Division


def make_inputs(config: TrainConfig, source: ModelSource, collection: Collection) -> Inputs:
    """Divide the pictures and check what the configuration wants of the backbone and this machine; writes nothing.

    Raises ModelError, ConfigError or DataError.
    """
    read_architecture(source)
    if config.precision != "auto":
        checked_precision(config.precision, current_device())
    duplicates = find_duplicates(collection.pictures)
    division = divide(collection, duplicates.groups, config.seed, folds_allowed=config.strategy == "frozen")
    if not division.test:
        raise DataError(
            f"no class of {collection.source} has a second image, so that nothing is left to test on; "
            "add images, at least two for some classes and better twenty for each"
        )
    return Inputs(source, collection, duplicates, division)


def open_inputs(config: TrainConfig, settings: Settings, progress: Callable[[int, int], None]) -> Inputs:
    """Find the backbone and the pictures that a configuration names. Raises ModelError, HubError or DataError."""
    source = open_model(config.model, settings, weights=config.needs_weights)
    collection = open_data(
        config.data, settings, image_column=config.image_column, label_column=config.label_column, progress=progress
    )
    return make_inputs(config, source, collection)


def train(config: TrainConfig, settings: Settings, recorder: Recorder, inputs: Inputs | None = None) -> dict[str, Any]:
    """Run the recipe; the report, as it was written. Raises TLError, or StopRequested where there is no model yet."""
    begun = time.perf_counter()
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)
    if inputs is None:
        recorder.stage("checking the images")
        inputs = open_inputs(config, settings, recorder.advance)
    for note in [*inputs.collection.notes, *inputs.division.notes]:
        recorder.note(note)

    recorder.stage("loading the backbone")
    backbone = load_backbone(
        inputs.source,
        inputs.collection.classes,
        image_size=config.image_size,
        pretrained=config.needs_weights,
        seed=config.seed,
    )
    for note in backbone.notes:
        recorder.note(note)

    if config.strategy == "frozen":
        groups = inputs.duplicates.groups
        outcome = train_frozen(backbone, inputs.collection, groups, inputs.division, config, settings, recorder)
    else:
        outcome = train_from_scratch(backbone, inputs.collection, inputs.division, config, settings, recorder)

    recorder.stage("saving the model")
    _save_model(backbone, recorder)

    recorder.stage("testing")
    tested_at = time.perf_counter()
    predictor = load_predictor(ModelSource(recorder.run.id, recorder.run.model_dir, "run"))
    tested = [inputs.collection.pictures[i] for i in outcome.tested]
    probabilities = outcome.probabilities
    if probabilities is None:
        probabilities = predictor.read([p.path for p in tested], settings.max_pixels, recorder.progress)
    metrics = measure(
        probabilities, np.asarray(targets_of(tested, backbone.labels)), backbone.labels, inputs.division.reported
    )
    parity = check_parity(recorder.run.model_dir, predictor, tested, settings.max_pixels)
    if not parity["passed"]:
        recorder.note(f"transformers' own pipeline differs from this model by {parity['max_abs_diff']:.1g}")

    seconds = {
        "total": time.perf_counter() - begun,
        "features": outcome.seconds.get("features", 0.0),
        "training": outcome.seconds["training"],
        "evaluation": time.perf_counter() - tested_at,
    }
    report = {
        "run_id": recorder.run.id,
        "run_dir": str(recorder.run.dir),
        "model_dir": str(recorder.run.model_dir),
        "strategy": config.strategy,
        "stopped": outcome.stopped,
        "metrics": {**metrics, "method": outcome.method},
        "parity": parity,
        "data": make_report(inputs.collection, inputs.duplicates, inputs.division).to_json(),
        "backbone": _describe_backbone(backbone),
        "precision": outcome.precision.dtype,
        "precision_reason": outcome.precision.reason,
        "training": outcome.details,
        "refit": outcome.shipped,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "seed": config.seed,
        "command": config.command(),
        "machine": describe_machine(),
        "versions": {name: version(name) for name in VERSIONS_OF},
        "predictions": list_predictions(tested, probabilities, backbone.labels),
    }
    _write_report(report, config, recorder)
    return report


def _save_model(backbone: Backbone, recorder: Recorder) -> None:
    """Replace model/ as a whole: a kill leaves the old one or the new one."""
    fresh = recorder.run.dir / "model.new"
    shutil.rmtree(fresh, ignore_errors=True)
    save_backbone(backbone, fresh)
    shutil.rmtree(recorder.run.model_dir, ignore_errors=True)
    fresh.rename(recorder.run.model_dir)


def _describe_backbone(backbone: Backbone) -> dict[str, Any]:
    source = backbone.source
    return {
        "id": source.named,
        "kind": source.kind,
        "revision": source.revision,
        "architecture": type(backbone.model).__name__,
        "parameters": backbone.parameters,
        "image_size": list(backbone.input_size),
        "fingerprint": fingerprint(source, backbone.processor),
        "embedded": source.kind == "embedded",
    }


def _write_report(report: dict[str, Any], config: TrainConfig, recorder: Recorder) -> None:
    folder = recorder.run.model_dir
    write_json(folder / "training_config.json", config.to_json())
    write_atomically(folder / "README.md", render_card(report, config.to_json()))
    write_json(recorder.run.report_path, report)
