"""`--strategy auto`: which strategy suits these pictures and this backbone, decided by looking before time is spent.

Heads on frozen features of a sample, which a frozen training would need anyway, are cross-validated. What they get
right is not trained further; what they do not is fine-tuned, as far as the time allows. Must not know how a strategy
is carried out.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from statistics import median

import numpy as np

from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.files import read_json, write_json
from tl_core.images.collection import targets_of
from tl_core.images.wording import count
from tl_core.ml.backbone import linear_head
from tl_core.ml.backbone_pass import backbone_features
from tl_core.ml.cross_validation import Judges
from tl_core.ml.frozen import choose_precision
from tl_core.ml.inputs import Inputs, settle_inputs
from tl_core.ml.metrics import wilson_interval
from tl_core.ml.preview import USUAL_MINUTES, forecast_seconds
from tl_core.ml.ranking import choose_sample
from tl_core.recorder import Recorder
from tl_core.settings import Settings

# Errors of frozen features that fine-tuning does not mend by a point or more. Measured with tiny-resnet: handwritten
# digits, 8 % of errors with 10 images a class, 1 % with all, are no better fine-tuned; photographs of signs, 9 % with
# 140 a class, lose all but 1 %. Few images leave errors that more images mend, and gradient steps do not.
FEW_PER_CLASS = 20
TOLERATED_OF_FEW, TOLERATED = 0.10, 0.05
# With --minutes a training has fewer steps, down to a quarter of those derived, which is what "quick" is.
LEAST_SHARE = 0.25


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why, in two sentences; `accuracy` is that of heads on frozen features, None where none could
    be judged."""

    strategy: str
    reason: str
    accuracy: float | None = None
    accuracy_ci: tuple[float, float] | None = None


def settle_strategy(
    config: TrainConfig, inputs: Inputs, settings: Settings, recorder: Recorder
) -> tuple[TrainConfig, Inputs, Choice]:
    """The configuration with a strategy in the place of `auto`, inputs for it, and the choice, which the run keeps.

    A run that goes on has chosen already. Raises StopRequested, ModelError, DataError, JobError.
    """
    path = recorder.run.choice_path
    kept = read_json(path)
    if kept is None:
        choice = choose_strategy(config, inputs, settings, recorder)
        write_json(path, asdict(choice))
    elif kept.keys() != {field.name for field in fields(Choice)}:
        raise JobError(f"{path} was written by another version; begin a new run")
    else:
        choice = Choice(**kept)
    settled, unused = config.settled(choice.strategy)
    recorder.note(f"chose {choice.strategy}: {choice.reason}")
    unused = [name for name in unused if name != "minutes"]  # it had its part in the choice
    if unused:
        recorder.note(f"not used, since {choice.strategy} has no use for it: {', '.join(unused)}")
    return settled, settle_inputs(inputs, settled), choice


def choose_strategy(config: TrainConfig, inputs: Inputs, settings: Settings, recorder: Recorder) -> Choice:
    """Look at the training and validation pictures. Test pictures have no part in it, unless there are too few for a
    part that is only tested on: folds judge all of them then, if the head alone is taught."""
    division, pictures = inputs.division, inputs.collection.pictures
    groups = inputs.duplicates.groups
    sample = choose_sample(pictures, [*division.train, *division.validation], groups, None, config.seed)
    targets = np.asarray(targets_of([pictures[i] for i in sample], inputs.backbone.labels))
    judges = Judges(targets, [groups[i] for i in sample], config.seed)
    if not judges.rounds:
        nothing = "No class has two different images to learn and judge by"
        if config.teacher is not None:
            return Choice("lp-ft", f"{nothing}. Only a training learns from the teacher.")
        return Choice("frozen", f"{nothing}. A new head on frozen features has the least to get wrong.")
    precision = choose_precision(config, inputs.backbone, len(pictures), settings, recorder.run.dir)
    looked_at = [pictures[i] for i in sample]
    features = backbone_features(
        inputs.backbone, linear_head(inputs.backbone), looked_at, precision, settings, recorder
    )
    recorder.stage("choosing a strategy")
    right = judges.right(features)
    known = targets[judges.judged]
    chance = float((known == np.bincount(known).argmax()).mean())
    per_class = median(Counter(pictures[i].label for i in division.train).values())
    found = float(right.mean()), wilson_interval(int(right.sum()), len(right))

    def seconds(strategy: str) -> float:
        settled, _ = config.model_copy(update={"minutes": None, "control": False}).settled(strategy)
        return forecast_seconds(settled, settle_inputs(inputs, settled), settings)

    strategy, reason = decide(found, chance, per_class, config.minutes, config.teacher is not None, seconds)
    return Choice(strategy, reason, *found)


def decide(
    found: tuple[float, tuple[float, float]],
    chance: float,
    per_class: float,
    minutes: float | None,
    taught: bool,
    seconds: Callable[[str], float],
) -> tuple[str, str]:
    """The strategy and the reason, from what frozen features were found to be worth.

    `found` is the cross-validated accuracy and its interval, `chance` that of always saying the commonest class,
    `per_class` the training images of a class, `taught` whether there is a teacher, whom only a training can learn
    from; `seconds` foretells how long a strategy takes without a limit.
    """
    accuracy, (low, _) = found
    knows = (
        f"Heads on frozen features get {accuracy:.1%} right of images that they have not seen; there are about "
        f"{count(round(per_class), 'training image', 'training images')} per class"
    )
    if not taught and 1 - accuracy <= (TOLERATED_OF_FEW if per_class < FEW_PER_CLASS else TOLERATED):
        return "frozen", f"{knows}. Fine-tuning is not expected to gain much, and takes far longer."
    best, why = "lp-ft", "Training all of it, beginning with such a head, mends what the features do not tell apart."
    if low <= chance:
        best, why = "full", "Such a head is no beginning, so that everything is trained at once."
    allowed = 60 * (minutes or USUAL_MINUTES)
    share = LEAST_SHARE if minutes else 1.0
    if share * seconds(best) <= allowed:
        return best, f"{knows}. {why}"
    slow = f"Training all of it would take longer than {count(round(allowed / 60), 'minute', 'minutes')} here"
    if share * seconds("last-blocks") <= allowed:
        return "last-blocks", f"{knows}. {slow}; the blocks next to the head do not."
    if taught:
        return best, f"{knows}. {slow}, but without it nothing is learnt from the teacher."
    return "frozen", f"{knows}. {slow}; --strategy lp-ft with more --minutes is likely to gain."
