"""What transfer gained: the same architecture from random weights, with as much time, judged on the same pictures.

Must not know how the model that it is compared with was trained, only for how long and on which variations.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.config import TrainConfig
from tl_core.errors import TLError
from tl_core.files import read_json, write_json
from tl_core.images.collection import targets_of
from tl_core.images.splits import Division
from tl_core.ml.backbone import load_backbone, save_backbone
from tl_core.ml.backbone_pass import seconds_of_pass
from tl_core.ml.finetuning import Finetuning, ask_about_mirror
from tl_core.ml.frozen import choose_precision
from tl_core.ml.inference import load_predictor
from tl_core.ml.inputs import Inputs
from tl_core.ml.metrics import paired_difference, wilson_interval
from tl_core.ml.outcome import Outcome
from tl_core.ml.plan import WARMUP_SHARE
from tl_core.recorder import Recorder, StopRequested
from tl_core.settings import Settings
from tl_core.sources import ModelSource

STAGE = "training the control"
# A head on features takes seconds, in which random weights learn nothing and any transfer would seem a wonder.
MIN_SECONDS = 60.0
# More than any control takes in its time, so that time alone ends it and brings its learning rate down.
UNREACHED_STEPS = 1_000_000
WARMUP_STEPS = round(WARMUP_SHARE * UNREACHED_STEPS)
# What describes the pictures and the machine is the control's too; how it is trained is derived for random weights.
SHARED = (
    *("data", "image_column", "label_column", "model", "image_size", "drop_path", "dropout", "class_weights"),
    *("augment", "erase", "mix", "precision", "activation_checkpointing", "checkpoint_minutes", "seed"),
)


@dataclass
class Control:
    """The control of one run, whose model `transferred` is trained and judged: `right` (len(division.test),) tells
    which of the test pictures it got right."""

    config: TrainConfig
    inputs: Inputs
    division: Division
    transferred: Outcome
    right: np.ndarray
    settings: Settings
    recorder: Recorder

    def run(self) -> dict[str, Any]:
        """Train from random weights for as long as the transfer took, `MIN_SECONDS` at least, and compare.

        Returns {accuracy, accuracy_ci, images, seconds, transfer_seconds, steps, difference, difference_ci, stopped,
        failed}; the difference is the transferred model's accuracy less the control's. A control that was stopped has
        no figures, and a resumed run goes on with it; one that failed has none either, `failed` is the reason.
        """
        try:
            return self._run()
        except StopRequested:
            return {"stopped": True, "failed": None}
        except TLError as failure:  # the model that transferred is there, and worth having without a control
            self.recorder.note(f"warning: the control failed: {failure.message}")
            return {"stopped": False, "failed": failure.message}

    @property
    def folder(self) -> Path:
        return self.recorder.run.checkpoints_dir / "control"

    def _run(self) -> dict[str, Any]:
        taken = self._time_of_transfer()
        seconds = max(MIN_SECONDS, taken)
        self.recorder.say(f"the control: random weights, {seconds:.0f} s")
        collection, settings, recorder = self.inputs.collection, self.settings, self.recorder
        limits = {"minutes": seconds / 60, "max_steps": UNREACHED_STEPS, "warmup_steps": WARMUP_STEPS}
        shared = {name: getattr(self.config, name) for name in SHARED}
        config = TrainConfig.parse({**shared, **limits, "strategy": "scratch", "mirror": self._mirror()})
        backbone = load_backbone(
            self.inputs.source,
            collection.classes,
            image_size=config.image_size,
            pretrained=False,
            seed=config.seed,
            regularisation=(config.drop_path, config.dropout),
        )
        alike = self.inputs.duplicates.groups
        training = Finetuning(
            backbone, collection, alike, self.division, config, settings, recorder, self.folder, stage=STAGE
        )
        outcome = training.run()
        if outcome.stopped:
            raise StopRequested
        recorder.stage("testing the control")
        save_backbone(backbone, self.folder / "model")
        answered = self._ask(self.folder / "model")
        difference, low, high = paired_difference(self.right, answered)
        return {
            "accuracy": float(answered.mean()),
            "accuracy_ci": list(wilson_interval(int(answered.sum()), len(answered))),
            "images": len(answered),
            "seconds": round(outcome.seconds["training"], 3),
            "transfer_seconds": round(taken, 3),
            "steps": outcome.details["steps_done"],
            "difference": difference,
            "difference_ci": [low, high],
            "stopped": False,
            "failed": None,
        }

    def _time_of_transfer(self) -> float:
        """Seconds that the transferred model took, decided once: a resumed run finds most of its work done already."""
        path = self.folder / "time.json"
        kept = read_json(path)
        if kept is not None:
            return float(kept["seconds"])
        seconds = sum(self.transferred.seconds.values())
        if not self.config.trains_backbone:  # features that an earlier run stored took their time as well
            pictures, backbone = self.inputs.collection.pictures, self.inputs.backbone
            precision = choose_precision(self.config, backbone, len(pictures), self.settings, self.recorder.run.dir)
            anew = seconds_of_pass(backbone, pictures, precision, self.settings)
            seconds += max(0.0, anew - self.transferred.seconds["features"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"seconds": seconds})
        return seconds

    def _mirror(self) -> str:
        """What is known of mirror images: random weights could tell less."""
        if self.config.mirror != "auto" or self.config.augment == "none":
            return self.config.mirror
        if "augmentation" in self.transferred.details:
            return "yes" if self.transferred.details["augmentation"]["mirror"] else "no"
        inputs = self.inputs
        alike = inputs.duplicates.groups
        verdict = ask_about_mirror(
            inputs.backbone, inputs.collection, alike, self.division, self.config, self.settings, self.recorder
        )
        self.recorder.note(verdict.reason)
        return "yes" if verdict.keeps else "no"

    def _ask(self, model_dir: Path) -> np.ndarray:
        """(len(division.test),) which test pictures the control gets right."""
        tested = [self.inputs.collection.pictures[i] for i in self.division.test]
        predictor = load_predictor(ModelSource(self.recorder.run.id, model_dir, "folder"))
        files = [picture.path for picture in tested]
        answers = predictor.read(files, self.settings.max_pixels, self.recorder.progress)
        return answers.argmax(-1) == np.asarray(targets_of(tested, predictor.labels))
