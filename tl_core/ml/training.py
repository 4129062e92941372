"""The recipe: from a configuration to a trained, measured, saved classifier. Read it top to bottom.

Each step is one call with a name. Must not know who started the run or who watches it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tl_core.config import TrainConfig
from tl_core.errors import DataError, ModelError
from tl_core.files import write_atomically, write_json
from tl_core.images.collection import Collection, Picture
from tl_core.images.duplicates import Duplicates, find_duplicates
from tl_core.images.report import make_report
from tl_core.images.splits import Division, divide
from tl_core.images.wording import count
from tl_core.ml.backbone import (
    Backbone,
    fingerprint,
    linear_head,
    load_backbone,
    save_backbone,
)
from tl_core.ml.data import targets_of
from tl_core.ml.evaluation import check_parity, list_predictions
from tl_core.ml.frozen import train_frozen
from tl_core.ml.groups import layer_groups
from tl_core.ml.inference import load_predictor
from tl_core.ml.machine import current_device, describe_machine
from tl_core.ml.metrics import measure
from tl_core.ml.outcome import Outcome
from tl_core.ml.precision import checked_precision
from tl_core.ml.scratch import train_from_scratch
from tl_core.model_card import render_card
from tl_core.parts import recall_parts, remember_parts
from tl_core.recorder import Recorder
from tl_core.runs import Run
from tl_core.settings import Settings
from tl_core.sources import CHECKING, ModelSource, open_configured

# Features in float32 give the saved model's own probabilities to about 1e-5; more than this is another computation.
FEATURES_TOLERANCE = 1e-3
VERSIONS_OF = ("torch", "transformers", "datasets", "accelerate", "scikit-learn", "pillow")


@dataclass(frozen=True)
class Inputs:
    """What a configuration names, found and verified; nothing has been trained or written."""

    source: ModelSource
    collection: Collection
    duplicates: Duplicates
    division: Division
    backbone: Backbone
    seconds: float = 0.0  # spent on finding and verifying before the run began


def make_inputs(config: TrainConfig, source: ModelSource, collection: Collection, seconds: float = 0.0) -> Inputs:
    """Load the backbone, divide the pictures, and check what the configuration wants of this machine; writes nothing.

    Raises ModelError, ConfigError or DataError.
    """
    if config.precision != "auto":
        checked_precision(config.precision, current_device())
    backbone = load_backbone(
        source, collection.classes, image_size=config.image_size, pretrained=config.needs_weights, seed=config.seed
    )
    if config.strategy == "frozen":
        linear_head(backbone)  # a classifier that cannot be fitted is refused now
    duplicates = find_duplicates(collection.pictures)
    division = divide(collection, duplicates.groups, config.seed, folds_allowed=config.strategy == "frozen")
    if not division.test:
        raise DataError(
            f"no class of {collection.source} has a second image, so that nothing is left to test on; "
            "add images, at least two for some classes and better twenty for each"
        )
    return Inputs(source, collection, duplicates, division, backbone, seconds)


def train(config: TrainConfig, settings: Settings, recorder: Recorder, inputs: Inputs | None = None) -> dict[str, Any]:
    """Run the recipe; the report, as it was written. Raises TLError, or StopRequested where there is no model yet."""
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)
    if inputs is None:
        recorder.stage(CHECKING)
        opened = open_configured(config, settings, lambda _, step, total: recorder.advance(step, total))
        inputs = make_inputs(config, *opened)
    division = _keep_division(inputs, recorder)
    data = make_report(inputs.collection, inputs.duplicates, division).to_json()
    for note in [*inputs.collection.notes, *division.notes, *(f"warning: {text}" for text in data["warnings"])]:
        recorder.note(note)
    if data["skipped"]:
        recorder.note(f"{count(len(data['skipped']), 'file was', 'files were')} left out; `check` says which and why")

    backbone = inputs.backbone
    for note in backbone.notes:
        recorder.note(note)

    if config.strategy == "frozen":
        groups = inputs.duplicates.groups
        outcome = train_frozen(backbone, inputs.collection, groups, division, config, settings, recorder)
    else:
        outcome = train_from_scratch(backbone, inputs.collection, division, config, settings, recorder)

    recorder.stage("saving the model")
    fresh = recorder.run.dir / "model.new"
    shutil.rmtree(fresh, ignore_errors=True)
    save_backbone(backbone, fresh)

    recorder.stage("testing")
    tested = [inputs.collection.pictures[i] for i in outcome.tested]
    probabilities, parity = judge_saved_model(fresh, tested, outcome, settings, recorder)
    metrics = measure(
        probabilities, np.asarray(targets_of(tested, backbone.labels)), backbone.labels, division.reported
    )

    recorder.stage("writing the report")
    report = {
        "run_id": recorder.run.id,
        "run_dir": str(recorder.run.dir),
        "model_dir": str(recorder.run.model_dir),
        "strategy": config.strategy,
        "stopped": outcome.stopped,
        "metrics": {**metrics, "method": outcome.method},
        "parity": parity,
        "data": data,
        "backbone": _describe_backbone(backbone, config.strategy),
        "precision": outcome.precision.dtype,
        "precision_reason": outcome.precision.reason,
        "training": outcome.details,
        "refit": outcome.shipped,
        "seconds": _spent(inputs, outcome, recorder.run),
        "seed": config.seed,
        "command": config.portable().command(),
        "machine": describe_machine(),
        "versions": {name: version(name) for name in VERSIONS_OF},
        "predictions": list_predictions(tested, probabilities, backbone.labels),
    }
    _publish(fresh, report, config, recorder.run)
    return report


def _keep_division(inputs: Inputs, recorder: Recorder) -> Division:
    """The division that this run was begun with, whatever has happened to the folder since; else today's, kept."""
    parts = recall_parts(recorder.run)
    if parts is not None:
        return parts.divide(inputs.collection)
    began_from = recall_parts(Run(inputs.source.path.parent)) if inputs.source.kind == "run" else None
    inherited = began_from.fitted if began_from is not None else frozenset()
    taught = sum(inputs.collection.pictures[index].digest in inherited for index in inputs.division.test)
    if taught:
        recorder.note(
            f"warning: {taught:,} of the {len(inputs.division.test):,} test images were taught to the run that this "
            "one begins from: the figures will be too good. The same --seed on the same images keeps them apart."
        )
    remember_parts(recorder.run, inputs.collection, inputs.division, inherited)
    return inputs.division


def judge_saved_model(
    model_dir: Path, tested: Sequence[Picture], outcome: Outcome, settings: Settings, recorder: Recorder
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities (N, C) of the tested pictures, and how far the saved model agrees with transformers and with them.

    Figures that came from features are replaced by the saved model's own where the two differ.
    """
    predictor = load_predictor(ModelSource(recorder.run.id, model_dir, "run"))
    files = [picture.path for picture in tested]
    probabilities = outcome.probabilities
    if probabilities is None:
        probabilities = predictor.read(files, settings.max_pixels, recorder.progress)
    known = probabilities if outcome.method == "held-out" else None
    parity = check_parity(model_dir, predictor, tested, known, settings.max_pixels)
    if parity["passed"] is False:
        recorder.note(f"transformers' own pipeline differs from this model by {parity['max_abs_diff']:.1g}")
    if parity["features_max_abs_diff"] > FEATURES_TOLERANCE:
        recorder.note("the features were less exact than the saved model; the figures come from the model itself")
        probabilities = predictor.read(files, settings.max_pixels, recorder.progress)
    return probabilities, parity


def _spent(inputs: Inputs, outcome: Outcome, run: Run) -> dict[str, float]:
    """Seconds by kind of work, over all processes that worked on the run; 0 for what does not apply."""
    seconds = {
        "total": inputs.seconds + run.seconds_worked(),
        "features": outcome.seconds.get("features", 0.0),
        "training": outcome.seconds["training"],
        "evaluation": run.seconds_in("testing"),
    }
    return {name: round(value, 3) for name, value in seconds.items()}


def _publish(fresh: Path, report: dict[str, Any], config: TrainConfig, run: Run) -> None:
    """Put a complete model folder in place, then the report: a kill leaves whole folders, old or new."""
    portable = config.portable().to_json()
    write_json(fresh / "training_config.json", portable)
    handed_on = {**report, "data": {**report["data"], "source": portable["data"]}}
    write_atomically(fresh / "README.md", render_card(handed_on, portable))
    old = run.dir / "model.old"
    shutil.rmtree(old, ignore_errors=True)
    if run.model_dir.exists():
        run.model_dir.rename(old)
    fresh.rename(run.model_dir)
    write_json(run.report_path, report)
    shutil.rmtree(old, ignore_errors=True)
    if not report["stopped"]:  # a run that has ended well is never resumed
        for checkpoint in run.checkpoints_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _describe_backbone(backbone: Backbone, strategy: str) -> dict[str, Any]:
    source = backbone.source
    return {
        "id": source.named if source.kind != "folder" else source.path.name,
        "kind": source.kind,
        "revision": source.revision,
        "architecture": type(backbone.model).__name__,
        "parameters": backbone.parameters,
        "image_size": list(backbone.input_size),
        "fingerprint": fingerprint(backbone),
        "embedded": source.kind == "embedded",
        "groups": _describe_groups(backbone, trained="all" if strategy == "scratch" else "head"),
    }


def _describe_groups(backbone: Backbone, trained: str) -> list[dict[str, Any]]:
    """Layer groups from input to output, and which of them were trained; none for a model with several classifiers."""
    try:
        groups = layer_groups(backbone)
    except ModelError:
        return []
    return [
        {
            "name": group.name,
            "parameters": sum(parameter.numel() for parameter in group.parameters),
            "trained": trained in ("all", group.name),
        }
        for group in groups
    ]
