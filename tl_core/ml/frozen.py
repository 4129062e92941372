"""The frozen strategy: every picture passes the backbone once, and a head is trained on what came out.

The head's weights then go into the model's own classifier, so that the result is an ordinary checkpoint. Must not know
how data was found or how a result is reported.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tl_core.config import TrainConfig
from tl_core.files import read_json, write_json
from tl_core.images.collection import Collection, Picture, targets_of
from tl_core.images.splits import Division
from tl_core.ml.allocation import give_back_freed_memory
from tl_core.ml.backbone import Backbone, fingerprint, linear_head, write_head
from tl_core.ml.backbone_pass import backbone_features, exact_features, view_features
from tl_core.ml.head_fitting import HeadFitting
from tl_core.ml.heads import LinearHead
from tl_core.ml.inputs import Prepared
from tl_core.ml.machine import current_device, describe_machine, map_side_by_side, threads_side_by_side
from tl_core.ml.outcome import Outcome
from tl_core.ml.precision import FORMATS_MEASURED, Precision, Remembered, choose_forward_precision
from tl_core.recorder import Recorder
from tl_core.settings import Settings


def train_frozen(
    backbone: Backbone,
    collection: Collection,
    groups: Sequence[int],
    division: Division,
    config: TrainConfig,
    settings: Settings,
    recorder: Recorder,
    prepared: Prepared | None = None,
) -> Outcome:
    """Compute features, fit a head, write it into `backbone.model`. Raises StopRequested, ModelError, DataError.

    What was `prepared` stays as it is: its features are stored in its precision.
    """
    begun = time.perf_counter()
    chosen = prepared.precision if prepared is not None else None
    precision = choose_precision(config, backbone, len(collection.pictures), settings, recorder.run.dir, chosen=chosen)
    before = prepared.seconds if prepared is not None else 0.0
    head = linear_head(backbone)
    features = backbone_features(backbone, head, collection.pictures, precision, settings, recorder)
    varied = None
    if config.views:
        taught = taught_by(division)
        pictures, mirror = [collection.pictures[i] for i in taught], config.mirror == "yes"
        varied = np.zeros((len(features), config.views, features.shape[1]), np.float32)
        varied[taught] = view_features(
            backbone, head, pictures, config.views, precision, settings, recorder, mirror=mirror
        )
    featured = time.perf_counter()
    targets = np.asarray(targets_of(collection.pictures, backbone.labels))
    recorder.stage("fitting the head")
    fitting = HeadFitting(features, targets, groups, len(backbone.labels), config, recorder, varied)
    fitted = fitting.cross_validate(division) if division.uses_folds else fitting.hold_out(division)
    write_head(head, fitted.head)
    give_back_freed_memory()
    recorder.note(_describe_head(backbone, head, fitted.head))
    if not fitted.head.converged:
        recorder.note("warning: the fit of the head ended before its tolerance: it works, and is not the exact minimum")

    def answer_exactly(asked: Sequence[Picture]) -> np.ndarray:
        if not asked:
            return np.zeros((0, len(backbone.labels)))
        return fitted.head.probabilities(exact_features(backbone, head, asked, settings, recorder))

    return Outcome(
        tested=fitted.tested,
        probabilities=fitted.probabilities,
        method="k-fold" if division.uses_folds else "held-out",
        shipped=f"The head that is shipped was fitted on {fitted.shipped_on}.",
        trained=["head"],
        precision=precision,
        seconds={"features": before + featured - begun, "training": time.perf_counter() - featured},
        details={
            "head_strength": fitted.head.strength,
            "head_converged": fitted.head.converged,
            "head_scores": [asdict(score) for score in fitted.head.scores],
        },
        exactly=answer_exactly,
    )


def taught_by(division: Division) -> list[int]:
    """Indices of the pictures that a head may be fitted on, with folds all of them."""
    return [*division.train, *division.validation, *(division.test if division.uses_folds else ())]


def _describe_head(backbone: Backbone, head: nn.Linear, fitted: LinearHead) -> str:
    """What was trained, and how strongly it was regularised, in a line."""
    learnt = sum(parameter.numel() for parameter in head.parameters())
    line = f"trained the head: {learnt:,} of {backbone.parameters / 1e6:.2g} M parameters"
    if fitted.strength is None:
        return line
    return f"{line}; L2 strength {fitted.strength:.2g} validates best" if fitted.scores else line


def choose_precision(
    config: TrainConfig,
    backbone: Backbone,
    pictures: int,
    settings: Settings,
    run_dir: Path | None = None,
    *,
    chosen: Precision | None = None,
) -> Precision:
    """The precision to compute features of so many pictures in. Raises ConfigError.

    What is measured is remembered for this backbone on this machine: measuring again could choose another number
    format, in which the stored features are of no use, and take a job for long that was short before. What was chosen
    for the run in `run_dir` stays with it, and what was `chosen` before there was a run.
    """
    device = current_device()
    model = backbone.model.to(device)
    here = _circumstances(backbone)
    remembered = settings.cache_dir / f"precision-{here}.json"
    kept = run_dir / "precision.json" if run_dir is not None else None
    if config.precision != "auto":
        return choose_forward_precision(config.precision, model, backbone.input_size, pictures, device)
    before = _recall(kept, here) if kept is not None else None
    if before is not None:
        return before
    if chosen is None:
        known = _recall_all(remembered, here)
        as_recalled = replace(known)
        threads = threads_side_by_side()

        def choose(share: int) -> Precision:
            return choose_forward_precision("auto", model, backbone.input_size, share, device, known)

        (chosen,) = map_side_by_side(choose, [-(-pictures // threads)], threads)  # in a thread as they compute
        if known != as_recalled:
            known.fastest = known.fastest or _recall_all(remembered, here).fastest  # another run may have found it
            with suppress(OSError):  # then it is measured again
                remembered.parent.mkdir(parents=True, exist_ok=True)
                write_json(remembered, {**asdict(known), "circumstances": here})
    if kept is not None:
        write_json(kept, {**asdict(chosen), "circumstances": here})
    return chosen


def _recall(path: Path, circumstances: str) -> Precision | None:
    """The precision in a file, None where it says none for these circumstances."""
    values = read_json(path) or {}
    return _precision_of(values) if values.pop("circumstances", None) == circumstances else None


def _recall_all(path: Path, circumstances: str) -> Remembered:
    """What a file says of these circumstances."""
    values = read_json(path) or {}
    seconds = values.get("seconds")
    if values.get("circumstances") != circumstances or not isinstance(seconds, float):
        return Remembered()
    return Remembered(seconds, _precision_of(values.get("fastest")))


def _precision_of(values: Any) -> Precision | None:
    names = {each.name for each in fields(Precision)}
    return Precision(**values) if isinstance(values, dict) and values.keys() == names else None


def _circumstances(backbone: Backbone) -> str:
    """Identifies what decides which precision is fastest: the backbone, the machine, torch."""
    circumstances = [fingerprint(backbone), describe_machine(), torch.__version__, FORMATS_MEASURED]
    return hashlib.blake2b(json.dumps(circumstances, default=str).encode(), digest_size=16).hexdigest()
