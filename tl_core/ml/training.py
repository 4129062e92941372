"""The recipe: from a configuration to a trained, measured, saved classifier. Read it top to bottom.

Each step is one call with a name. Must not know who started the run or who watches it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
import torch

from tl_core import __version__
from tl_core.card_metadata import licence_beside
from tl_core.config import AUTO, TrainConfig
from tl_core.errors import ModelError
from tl_core.files import write_atomically, write_json
from tl_core.images.collection import Picture, targets_of
from tl_core.images.report import make_report
from tl_core.images.splits import Division
from tl_core.images.wording import count
from tl_core.ml.backbone import (
    Backbone,
    fingerprint,
    save_backbone,
)
from tl_core.ml.choosing import settle_strategy
from tl_core.ml.control import Control
from tl_core.ml.evaluation import check_parity, list_predictions
from tl_core.ml.finetuning import Finetuning
from tl_core.ml.frozen import train_frozen
from tl_core.ml.groups import layer_groups
from tl_core.ml.inference import load_predictor
from tl_core.ml.inputs import Inputs, make_inputs
from tl_core.ml.machine import describe_machine
from tl_core.ml.metrics import measure
from tl_core.ml.outcome import Outcome
from tl_core.ml.shards import processes
from tl_core.model_card import render_card
from tl_core.parts import recall_parts, remember_parts
from tl_core.pins import recall_pins, remember_pins
from tl_core.recorder import Recorder
from tl_core.runs import Run
from tl_core.settings import Settings
from tl_core.sources import CHECKING, ModelSource, open_configured

# Features in float32 give the saved model's own probabilities to about 1e-5; more than this is another computation.
FEATURES_TOLERANCE = 1e-3
# Both of two probabilities may move by what was found, which brings them together from twice that; and as much again,
# for what was found is the most of a few pictures only.
CLOSE_CALL = 4.0
CHOSEN_BY_THESE = (
    "There are too few images to keep some from the choice of the strategy: it was chosen by images that it is judged "
    "on."
)
VERSIONS_OF = ("torch", "transformers", "datasets", "accelerate", "scikit-learn", "pillow")


def train(config: TrainConfig, settings: Settings, recorder: Recorder, inputs: Inputs | None = None) -> dict[str, Any]:
    """Run the recipe; the report, as it was written. Raises TLError, or StopRequested where there is no model yet."""
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)
    if inputs is None:
        recorder.stage(CHECKING)
        pins = recall_pins(recorder.run)
        opened = open_configured(config, settings, lambda _, step, total: recorder.advance(step, total), pins=pins)
        remember_pins(recorder.run, opened.pins)
        inputs = make_inputs(config, *opened)
    choice = None
    if config.strategy == AUTO:
        config, inputs, choice = settle_strategy(config, inputs, settings, recorder)
    division, warnings = _keep_division(inputs, recorder)
    data = make_report(inputs.collection, inputs.duplicates, division).to_json()
    data["fingerprint"] = inputs.collection.fingerprint
    for note in [*inputs.collection.notes, *division.notes, *(f"warning: {text}" for text in data["warnings"])]:
        recorder.note(note)
    if data["skipped"]:
        recorder.note(f"{count(len(data['skipped']), 'file was', 'files were')} left out; `check` says which and why")

    backbone = inputs.backbone
    for note in [*(inputs.prepared.notes if inputs.prepared is not None else ()), *backbone.notes]:
        recorder.note(note)

    recorder.note(_describe_task(config, backbone, division))
    if inputs.teacher is not None:
        recorder.note(inputs.teacher.description)
    alike = inputs.duplicates.groups
    if config.trains_backbone:
        if processes() > 1:
            recorder.note(
                f"this training is not divided: the first of {processes()} processes computes it, the others wait"
            )
        folder = recorder.run.checkpoints_dir
        finetuning = Finetuning(
            backbone, inputs.collection, alike, division, config, settings, recorder, folder, teacher=inputs.teacher
        )
        outcome = finetuning.run()
    else:
        outcome = train_frozen(
            backbone, inputs.collection, alike, division, config, settings, recorder, inputs.prepared
        )

    recorder.stage("saving the model")
    fresh = recorder.run.dir / "model.new"
    shutil.rmtree(fresh, ignore_errors=True)
    save_backbone(backbone, fresh)

    recorder.stage("testing")
    tested = [inputs.collection.pictures[i] for i in outcome.tested]
    probabilities, parity = judge_saved_model(fresh, tested, outcome, settings, recorder)
    targets = np.asarray(targets_of(tested, backbone.labels))
    metrics = measure(probabilities, targets, backbone.labels, division.reported)
    if choice is not None and outcome.method == "k-fold":
        warnings = [*warnings, CHOSEN_BY_THESE]

    recorder.stage("writing the report")
    report = {
        "run_id": recorder.run.id,
        "run_dir": str(recorder.run.dir),
        "model_dir": str(recorder.run.model_dir),
        "strategy": config.strategy,
        "choice": choice and asdict(choice),
        "stopped": outcome.stopped,
        "warnings": warnings,
        "metrics": {**metrics, "method": outcome.method},
        "control": None,
        "parity": parity,
        "data": data,
        "backbone": _describe_backbone(backbone, outcome.trained),
        "teacher": inputs.teacher and inputs.teacher.to_json(),
        "precision": outcome.precision.dtype,
        "precision_reason": outcome.precision.reason,
        "training": outcome.details,
        "refit": outcome.shipped,
        "seconds": _spent(inputs, outcome, recorder.run),
        "seed": config.seed,
        "command": config.portable().command(),
        "machine": {**describe_machine(), "processes": processes()},
        "versions": {
            "tl_core": __version__,
            "python": python_version(),
            **{name: version(name) for name in VERSIONS_OF},
        },
        "predictions": list_predictions(tested, probabilities, backbone.labels),
    }
    _publish(fresh, report, config, recorder.run)
    if config.control and not outcome.stopped:
        right = probabilities.argmax(-1) == targets
        control = Control(config, inputs, division, outcome, right, settings, recorder).run()
        report |= {"control": control, "stopped": control["stopped"], "seconds": _spent(inputs, outcome, recorder.run)}
        _write_card(recorder.run.model_dir, report, config)
        write_json(recorder.run.report_path, report)
    return report


def _keep_division(inputs: Inputs, recorder: Recorder) -> tuple[Division, list[str]]:
    """The division that this run was begun with, whatever has happened to the folder since; else today's, kept.

    And what must be said wherever its figures are.
    """
    parts = recall_parts(recorder.run)
    if parts is not None:
        division = parts.divide(inputs.collection)
        return division, _warn_of(parts.inherited, inputs, division, recorder)
    known = [inputs.source, *([inputs.teacher.source] if inputs.teacher is not None else [])]
    parts_of_runs = [recall_parts(Run(source.path.parent)) for source in known if source.kind == "run"]
    inherited = frozenset[str]().union(*(parts.fitted for parts in parts_of_runs if parts is not None))
    remember_parts(recorder.run, inputs.collection, inputs.division, inherited)
    return inputs.division, _warn_of(inherited, inputs, inputs.division, recorder)


def _warn_of(inherited: frozenset[str], inputs: Inputs, division: Division, recorder: Recorder) -> list[str]:
    taught = sum(inputs.collection.pictures[index].digest in inherited for index in division.test)
    if not taught:
        return []
    which = (
        "the run that this one begins from" if inputs.teacher is None else "a run that this one begins or learns from"
    )
    sentence = (
        f"{taught:,} of the {len(division.test):,} test images were taught to {which}: the "
        "figures are too good. The same --seed on the same images keeps them apart."
    )
    recorder.note(f"warning: {sentence}")
    return [sentence]


def judge_saved_model(
    model_dir: Path, tested: Sequence[Picture], outcome: Outcome, settings: Settings, recorder: Recorder
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities (N, C) of the tested pictures, and how far the saved model agrees with transformers and with them.

    Where features in fewer bits, of pictures decoded smaller, give other probabilities than the saved model, every
    picture whose answer could change for it is judged as the saved model does.
    """
    predictor = load_predictor(ModelSource(recorder.run.id, model_dir, "run"))
    probabilities = outcome.probabilities
    if probabilities is None:
        probabilities = predictor.read([each.path for each in tested], settings.max_pixels, recorder.progress)
    known = probabilities if outcome.method == "held-out" else None
    parity = check_parity(model_dir, predictor, tested, known, settings.max_pixels, outcome.exactly)
    if parity["passed"] is False:
        recorder.note(f"transformers' own pipeline differs from this model by {parity['max_abs_diff']:.1g}")
    if outcome.exactly is not None and parity["features_max_abs_diff"] > FEATURES_TOLERANCE:
        best = np.sort(probabilities, axis=1)
        close = np.flatnonzero(best[:, -1] - best[:, -2] < CLOSE_CALL * parity["features_max_abs_diff"])
        recorder.note(
            f"the features were less exact than the saved model (by {parity['features_max_abs_diff']:.1g}); "
            f"{count(len(close), 'test image', 'test images')} whose answer that could change were judged in full"
        )
        probabilities = probabilities.copy()
        probabilities[close] = outcome.exactly([tested[row] for row in close.tolist()])
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
    write_json(fresh / "training_config.json", config.recipe())
    _write_card(fresh, report, config)
    old = run.dir / "model.old"
    shutil.rmtree(old, ignore_errors=True)
    if run.model_dir.exists():
        run.model_dir.rename(old)
    fresh.rename(run.model_dir)
    write_json(run.report_path, report)
    shutil.rmtree(old, ignore_errors=True)


def _write_card(model_dir: Path, report: dict[str, Any], config: TrainConfig) -> None:
    recipe = config.recipe()
    handed_on = {**report, "data": {**report["data"], "source": recipe["data"]}}
    write_atomically(model_dir / "README.md", render_card(handed_on, recipe))


def _describe_task(config: TrainConfig, backbone: Backbone, division: Division) -> str:
    parts = {"train": division.train, "validation": division.validation, "test": division.test}
    images = ", ".join(f"{len(indices):,} {part}" for part, indices in parts.items() if indices)
    return (
        f"{config.strategy}: {backbone.source.named}, {backbone.parameters / 1e6:.1f} M parameters, "
        f"{len(backbone.labels)} classes; of the images {images}"
    )


def _describe_backbone(backbone: Backbone, trained: Sequence[str]) -> dict[str, Any]:
    source = backbone.source
    return {
        "id": source.named if source.kind != "folder" else source.path.name,
        "kind": source.kind,
        "revision": source.revision,
        "architecture": type(backbone.model).__name__,
        "parameters": backbone.parameters,
        "image_size": list(backbone.input_size),
        "fingerprint": fingerprint(backbone),
        "licence": licence_beside(source.path),
        "embedded": source.kind == "embedded",
        "groups": _describe_groups(backbone, trained),
    }


def _describe_groups(backbone: Backbone, trained: Sequence[str]) -> list[dict[str, Any]]:
    """Layer groups from input to output, and which of them were trained; none for a model with several classifiers."""
    try:
        groups = layer_groups(backbone)
    except ModelError:
        return []
    return [
        {
            "name": group.name,
            "parameters": sum(parameter.numel() for parameter in group.parameters),
            "trained": group.name in trained,
        }
        for group in groups
    ]
