"""What transfer gained: the same architecture from random weights, with the same time, judged on the same pictures.

Must not know how the model that it is compared with was trained, only for how long.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tl_core.config import TrainConfig
from tl_core.images.collection import Collection
from tl_core.images.splits import Division
from tl_core.ml.backbone import load_backbone, save_backbone
from tl_core.ml.data import targets_of
from tl_core.ml.finetuning import Finetuning
from tl_core.ml.inference import load_predictor
from tl_core.ml.inputs import Inputs
from tl_core.ml.metrics import paired_difference, wilson_interval
from tl_core.ml.outcome import Outcome
from tl_core.recorder import Recorder, StopRequested
from tl_core.settings import Settings
from tl_core.sources import ModelSource

STAGE = "training the control"
# What describes the pictures and the machine is the control's too; how it is trained is derived for random weights.
MIN_SECONDS = 1.0  # features that were there already take none
SHARED = (
    *("data", "image_column", "label_column", "model", "image_size", "class_weights"),
    *("augment", "mirror", "erase", "mix", "precision", "activation_checkpointing", "checkpoint_minutes", "seed"),
)


def train_control(
    config: TrainConfig,
    inputs: Inputs,
    division: Division,
    transferred: Outcome,
    right: np.ndarray,
    settings: Settings,
    recorder: Recorder,
) -> dict[str, Any]:
    """Train from random weights for as long as `transferred` took, and compare.

    `right` (len(division.test),) tells which test pictures the transferred model got right. Returns {accuracy,
    accuracy_ci, images, seconds, steps, difference, difference_ci, stopped}; the difference is that model's accuracy
    less the control's. Where it is stopped, `stopped` is all there is, and a resumed run goes on.
    """
    seconds = max(MIN_SECONDS, sum(transferred.seconds.values()))
    recorder.say(f"the control: random weights, {seconds:.0f} s")
    asked = {name: getattr(config, name) for name in SHARED} | {"strategy": "scratch", "minutes": seconds / 60}
    if "augmentation" in transferred.details:  # what was measured of the pictures holds here too
        asked["mirror"] = "yes" if transferred.details["augmentation"]["mirror"] else "no"
    control = TrainConfig.parse(asked)
    collection = inputs.collection
    backbone = load_backbone(
        inputs.source, collection.classes, image_size=control.image_size, pretrained=False, seed=control.seed
    )
    folder = recorder.run.checkpoints_dir / "control"
    alike = inputs.duplicates.groups
    work = Finetuning(backbone, collection, alike, division, control, settings, recorder, folder, STAGE)
    try:
        outcome = work.run()
    except StopRequested:
        return {"stopped": True}
    if outcome.stopped:
        return {"stopped": True}
    recorder.stage("testing the control")
    model_dir = folder / "model"
    save_backbone(backbone, model_dir)
    answered = _right(model_dir, collection, division, settings, recorder)
    difference, low, high = paired_difference(right, answered)
    return {
        "accuracy": float(answered.mean()),
        "accuracy_ci": list(wilson_interval(int(answered.sum()), len(answered))),
        "images": len(answered),
        "seconds": round(outcome.seconds["training"], 3),
        "steps": outcome.details["steps_done"],
        "difference": difference,
        "difference_ci": [low, high],
        "stopped": False,
    }


def _right(
    model_dir: Path, collection: Collection, division: Division, settings: Settings, recorder: Recorder
) -> np.ndarray:
    tested = [collection.pictures[i] for i in division.test]
    predictor = load_predictor(ModelSource(recorder.run.id, model_dir, "folder"))
    answers = predictor.read([picture.path for picture in tested], settings.max_pixels, recorder.progress)
    return answers.argmax(-1) == np.asarray(targets_of(tested, predictor.labels))
