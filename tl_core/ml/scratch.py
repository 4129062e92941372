"""The scratch strategy: everything from random weights, the control that shows what transfer gained.

Must not know how data was found or how a result is reported.
"""

import dataclasses

import numpy as np
import torch

from tl_core.config import TrainConfig
from tl_core.files import read_json, write_json
from tl_core.images.collection import Collection
from tl_core.images.splits import Division
from tl_core.ml.backbone import Backbone
from tl_core.ml.data import make_datasets, targets_of
from tl_core.ml.finetuning import train_backbone
from tl_core.ml.heads import class_weights
from tl_core.ml.machine import current_device
from tl_core.ml.outcome import Outcome
from tl_core.ml.plan import Plan, plan_scratch
from tl_core.ml.precision import Precision, choose_training_precision
from tl_core.recorder import Recorder
from tl_core.settings import Settings

TRAINING_STAGE = "training"


def train_from_scratch(
    backbone: Backbone,
    collection: Collection,
    division: Division,
    config: TrainConfig,
    settings: Settings,
    recorder: Recorder,
) -> Outcome:
    """Train `backbone`, whose weights are random, in place; continues where an earlier process of the run stopped."""
    plan = _kept_plan(config, backbone, len(division.train), recorder)
    for name, reason in plan.reasons.items():
        value = getattr(plan, name)
        recorder.note(
            f"{name.replace('_', ' ')} {value:.2g}: {reason}"
            if isinstance(value, float)
            else f"{name.replace('_', ' ')} {value}: {reason}"
        )
    recorder.note(f"training in {plan.precision['dtype']}: {plan.precision['reason']}")
    weights = None
    if config.class_weights == "balanced":
        targets = targets_of([collection.pictures[i] for i in division.train], backbone.labels)
        weights = torch.from_numpy(class_weights(np.asarray(targets), len(backbone.labels))).float()
    spent = recorder.run.seconds_in(TRAINING_STAGE)
    recorder.stage(TRAINING_STAGE, plan.steps)
    datasets = make_datasets(collection, division)
    end = train_backbone(backbone, datasets, plan, config, settings, recorder, weights, spent)
    if end.out_of_time:
        recorder.note(f"the time is up after {end.steps:,} of {plan.steps:,} steps; the model is kept as it is")
    return Outcome(
        tested=list(division.test),
        probabilities=None,
        method="held-out",
        shipped=f"The model that is shipped was trained on the {len(division.train):,} training images.",
        precision=Precision(**plan.precision),
        seconds={"training": recorder.run.seconds_in(TRAINING_STAGE)},
        details={**plan.to_json(), "steps_done": end.steps},
        stopped=end.stopped,
    )


def _kept_plan(config: TrainConfig, backbone: Backbone, images: int, recorder: Recorder) -> Plan:
    """The plan of this run: made once, so that a resumed run does not measure and decide anew."""
    path = recorder.run.checkpoints_dir / "plan.json"
    kept = read_json(path)
    if kept is not None:
        return Plan(**kept)
    precision = choose_training_precision(
        config.precision, backbone.model, backbone.input_size, len(backbone.labels), current_device()
    )
    plan = dataclasses.replace(plan_scratch(config, images), precision=dataclasses.asdict(precision))
    path.parent.mkdir(exist_ok=True)
    write_json(path, plan.to_json())
    return plan
