"""What a configuration names, found, verified and divided, before anything is trained or written.

Must not know strategies beyond what they ask of pictures and backbones, nor runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tl_core.config import AUTO, TrainConfig
from tl_core.errors import DataError
from tl_core.images.collection import Collection
from tl_core.images.duplicates import Duplicates, find_duplicates
from tl_core.images.splits import Division, divide
from tl_core.ml.backbone import Backbone, linear_head, load_backbone
from tl_core.ml.distillation import Teacher, load_teacher
from tl_core.ml.machine import current_device
from tl_core.ml.precision import Precision, checked_precision
from tl_core.sources import ModelSource


@dataclass(frozen=True)
class Prepared:
    """What was done for a frozen training while its pictures were verified, in so many `seconds`."""

    precision: Precision  # of the features that are stored
    seconds: float
    notes: Sequence[str]


@dataclass(frozen=True)
class Inputs:
    """A backbone and divided pictures, ready to be trained with."""

    source: ModelSource
    collection: Collection
    duplicates: Duplicates
    division: Division
    backbone: Backbone
    teacher: Teacher | None = None
    seconds: float = 0.0  # spent on finding and verifying before the run began
    prepared: Prepared | None = None


def make_inputs(
    config: TrainConfig,
    source: ModelSource,
    collection: Collection,
    teacher: ModelSource | None = None,
    *,
    seconds: float = 0.0,
    backbone: Backbone | None = None,
    prepared: Prepared | None = None,
) -> Inputs:
    """Load the backbone and its teacher, divide the pictures, and check what is wanted of this machine; writes nothing.

    A `backbone` that is loaded already is taken where it is for the classes that are there. Raises ModelError,
    ConfigError or DataError.
    """
    if config.precision != "auto":
        checked_precision(config.precision, current_device())
    if backbone is None or backbone.labels != collection.classes:
        backbone = load_for(config, source, collection.classes)
    taught_by = load_teacher(teacher, backbone, config.teacher_weight) if teacher is not None else None
    duplicates = find_duplicates(collection.pictures)
    division = _divide(config, collection, duplicates)
    if not division.test:
        raise DataError(
            f"no class of {collection.source} has a second image, so that nothing is left to test on; "
            "add images, at least two for some classes and better twenty for each"
        )
    return Inputs(source, collection, duplicates, division, backbone, taught_by, seconds, prepared)


def settle_inputs(inputs: Inputs, config: TrainConfig) -> Inputs:
    """The same inputs for a configuration whose strategy has been chosen since. Raises ModelError."""
    division = _divide(config, inputs.collection, inputs.duplicates)
    backbone = load_for(config, inputs.source, inputs.collection.classes)
    return replace(inputs, backbone=backbone, division=division, teacher=inputs.teacher if config.teacher else None)


def load_for(config: TrainConfig, source: ModelSource, classes: Sequence[str]) -> Backbone:
    """The backbone as a configuration wants it. Raises ModelError."""
    backbone = load_backbone(
        source,
        classes,
        image_size=config.image_size,
        pretrained=config.needs_weights,
        seed=config.seed,
        regularisation=(config.drop_path, config.dropout) if config.surely_trains else None,
    )
    if config.strategy in (AUTO, "frozen", "lp-ft"):
        linear_head(backbone)  # a classifier that cannot be fitted is refused now
    return backbone


def _divide(config: TrainConfig, collection: Collection, duplicates: Duplicates) -> Division:
    folds_allowed = not config.surely_trains and not config.control
    return divide(collection, duplicates.groups, config.seed, folds_allowed=folds_allowed)
