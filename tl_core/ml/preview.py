"""What a training would do with these pictures, and about how long it would take here: said before it starts.

A few pictures are read and a few steps rehearsed (`speed.py`), the rest is counted. Nothing is written and no run made.
Must not know who asks, nor how an answer is shown.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tl_core.config import AUTO, TrainConfig
from tl_core.errors import ModelError
from tl_core.images.collection import Picture
from tl_core.images.splits import Division
from tl_core.images.wording import count, spoken_pace
from tl_core.ml.augmentation import Augmentation
from tl_core.ml.backbone import Backbone
from tl_core.ml.backbone_pass import features_key, pictures_read_at_a_time, views_key
from tl_core.ml.control import MIN_SECONDS
from tl_core.ml.evaluation import parity_images
from tl_core.ml.feature_store import missing_features
from tl_core.ml.frozen import taught_by
from tl_core.ml.groups import LayerGroup, layer_groups, train_only
from tl_core.ml.head_fitting import FOLDS
from tl_core.ml.head_training import DEFAULT_BATCH_SIZE, DEFAULT_LEARNING_RATE, DEFAULT_STEPS, DEFAULT_WEIGHT_DECAY
from tl_core.ml.heads import STRENGTHS
from tl_core.ml.inputs import Inputs, make_inputs, settle_inputs
from tl_core.ml.libraries import loading_seconds
from tl_core.ml.machine import current_device
from tl_core.ml.mirror import MAX_IMAGES
from tl_core.ml.plan import PATIENT_SHARE, Circumstances, Figure, Plan, derived_figures, make_plan
from tl_core.ml.precision import Precision
from tl_core.ml.speed import Speed, backbone_speed, reading_speed, teacher_speed
from tl_core.ml.strategies import choose_trained
from tl_core.ml.trainer import MAX_LOADERS, MIN_IMAGES_FOR_LOADERS
from tl_core.ml.views import views_of
from tl_core.settings import Settings
from tl_core.sources import Named

# Measured on two cores: a process starts and loads all that it needs in 1.5 to 2.1 times what torch and transformers
# take, which was 3 to 6 s, saves a model, opens it again and makes a pipeline of it in 1 to 2 s; Trainer adds 5 ms to
# a step of a backbone, and a head's whole step takes 1 ms.
STARTING_SECONDS, STARTING_FOR_LOADING = 7.5, 2.0
SAVING_SECONDS = 2.0
TRAINER_SECONDS = 0.005
HEAD_STEP_SECONDS = 0.001
# An exact head whose strength is chosen, for so many images × features × classes, and how that grows with the product:
# 0.4 s for 1,259 × 256 × 10, 5 s for 10,000 × 512 × 20, 59 s for 50,000 × 768 × 100 (`benchmarks.head`).
FITTING_SECONDS, FITTING_PRODUCT, FITTING_POWER = 0.5, 3.2e6, 0.68
# How long somebody waits for a strategy that was chosen for them, and who has not said how long: --minutes says it.
USUAL_MINUTES = 20.0
# Real runs on a busy machine took 0.8 to 1.1 of the estimate; how busy it will be nobody knows.
MARGIN = 1.5


@dataclass(frozen=True)
class Forecast:
    """`seconds` of all, of which `spared` may not be needed, and what was measured."""

    figures: list[Figure]
    seconds: float
    spared: float
    reason: str


def preview(config: TrainConfig, named: Named, settings: Settings) -> dict[str, Any]:
    """What `train` would do, as plain values:

    {groups: [{name, parameters, trained}], parameters, trained_parameters, image_size [height, width], figures:
    [{option, label, value, spoken, reason}], seconds, seconds_low, seconds_high, seconds_reason, images: {train,
    validation, test}}.

    `seconds` are from the start of a process of its own to its report; a batch that does not fit into memory is found
    out by the run alone. The backbone's speed is remembered in this process. Raises as `train` does for whatever is
    wrong with the configuration, the backbone or the pictures: ConfigError, ModelError, DataError.
    """
    inputs = make_inputs(config, *named)
    backbone, division = inputs.backbone, inputs.division
    groups, trained, forecast = _foresee(config, inputs, settings)
    learning = sum(_size(group) for group in trained) if groups else backbone.parameters
    return {
        "groups": [{"name": group.name, "parameters": _size(group), "trained": group in trained} for group in groups],
        "parameters": backbone.parameters,
        "trained_parameters": learning,
        "image_size": list(backbone.input_size),
        "figures": [asdict(figure) for figure in forecast.figures],
        "seconds": round(forecast.seconds, 1),
        "seconds_low": round((forecast.seconds - forecast.spared) / MARGIN, 1),
        "seconds_high": round(forecast.seconds * MARGIN, 1),
        "seconds_reason": forecast.reason,
        "images": {
            "train": len(division.train),
            "validation": len(division.validation),
            "test": len(division.test),
            "folds": division.uses_folds and config.strategy != AUTO,
        },
    }


def forecast_seconds(config: TrainConfig, inputs: Inputs, settings: Settings) -> float:
    """About how long `train` takes with these inputs, from the start of a process of its own to its report."""
    return _foresee(config, inputs, settings)[-1].seconds


def _foresee(
    config: TrainConfig, inputs: Inputs, settings: Settings
) -> tuple[list[LayerGroup], list[LayerGroup], Forecast]:
    """The backbone's layer groups, those that train, and the rest of what is foreseen."""
    if config.strategy == AUTO:
        return [], [], _forecast_choice(config, inputs, settings)
    inputs.backbone.model.to(current_device())
    groups = _groups(inputs.backbone, config)
    if config.trains_backbone:
        plan = _plan(config, inputs, groups)
        trained = choose_trained(config.strategy, groups, plan.unfreeze_blocks)
        return groups, trained, _forecast_training(config, inputs, plan, groups, trained, settings)
    return groups, choose_trained(config.strategy, groups), _forecast_frozen(config, inputs, settings)


def _forecast_choice(config: TrainConfig, inputs: Inputs, settings: Settings) -> Forecast:
    """Between the quickest and the longest that may be chosen; in any case the frozen backbone looks first."""

    def seconds(strategy: str, **changes: Any) -> float:
        settled, _ = config.model_copy(update=changes).settled(strategy)
        return forecast_seconds(settled, settle_inputs(inputs, settled), settings)

    looking = seconds("frozen", control=False, teacher=None) - starting_seconds()
    least = seconds("frozen") if config.teacher is None else seconds("last-blocks") + looking
    most = seconds("lp-ft")
    if config.teacher is None:  # whom only a training learns from, however long it takes
        most = min(most, 60 * (config.minutes or USUAL_MINUTES) * (2 if config.control else 1))
    most = max(least, most + looking)
    how = "how well frozen features tell these images apart, and the time, decide when the run begins"
    reason = f"if all of it is trained; about {spoken_pace(least)} if less is enough"
    return Forecast(
        [Figure("", "Strategy", None, "frozen, last-blocks, full or lp-ft", how)], most, most - least, reason
    )


def starting_seconds() -> float:
    """Before and around its work, for a process of its own: by how long loading took here, where that is known."""
    loading = loading_seconds()
    # The first time after a computer was started, everything is read from its disk: the next process is faster.
    return STARTING_SECONDS if loading is None else min(STARTING_FOR_LOADING * loading, 2 * STARTING_SECONDS)


def _groups(backbone: Backbone, config: TrainConfig) -> list[LayerGroup]:
    try:
        return layer_groups(backbone)
    except ModelError:  # several classifiers, which only a training from random weights can do with
        if config.needs_weights:
            raise
        return []


def _size(group: LayerGroup) -> int:
    return sum(parameter.numel() for parameter in group.parameters)


def _plan(config: TrainConfig, inputs: Inputs, groups: Sequence[LayerGroup]) -> Plan:
    later = "whether mirror images keep their class is measured when the run begins" if _asks_mirror(config) else ""
    return make_plan(
        config,
        Circumstances(
            images=len(inputs.division.train),
            validation=len(inputs.division.validation),
            parameters=inputs.backbone.parameters,
            blocks=max(1, len(groups) - 2),
            mirror_reason=later,
        ),
    )


def _asks_mirror(config: TrainConfig) -> bool:
    return config.mirror == "auto" and config.augment != "none" and config.needs_weights


def _forecast_frozen(config: TrainConfig, inputs: Inputs, settings: Settings) -> Forecast:
    backbone, division, pictures = inputs.backbone, inputs.division, inputs.collection.pictures
    speed = backbone_speed(config, backbone)
    reading = reading_speed(backbone, pictures, settings)
    each = speed.forward + reading.asked / pictures_read_at_a_time(settings)
    missing = _missing(backbone, pictures, speed.precision, settings)
    views = _missing_views(config, inputs, speed.precision, settings)
    taught = len(division.train) * (1 + config.views)
    fitting = _seconds_of_fit(inputs, taught, FOLDS**2 if division.uses_folds else 1)
    if config.head_solver == "trainer":
        fitting = _head_steps(config, taught) * HEAD_STEP_SECONDS * (FOLDS if division.uses_folds else 2)
    tested = min(parity_images(backbone.processor), len(pictures) if division.uses_folds else len(division.test))
    work = (missing + views) * each + fitting
    seconds = starting_seconds() + work + SAVING_SECONDS + 2 * tested * (reading.asked + speed.forward)
    if config.control:
        seconds += max(MIN_SECONDS, work)
    known = len({picture.digest for picture in pictures}) - missing
    reason = f"measured here: {spoken_pace(each)} for a picture through the backbone, {missing:,} of them"
    if views:
        reason += f" and {count(views, 'varied version', 'varied versions')}"
    if known:
        reason += f"; the features of {count(known, 'picture is', 'pictures are')} known from before"
    return Forecast([*_frozen_figures(config, division), _precision_figure(speed)], seconds, 0.0, reason)


def _forecast_training(
    config: TrainConfig,
    inputs: Inputs,
    plan: Plan,
    groups: Sequence[LayerGroup],
    trained: Sequence[LayerGroup],
    settings: Settings,
) -> Forecast:
    backbone, division, pictures = inputs.backbone, inputs.division, inputs.collection.pictures
    resting = train_only(backbone.model, groups, trained) if groups else ()
    speed = backbone_speed(config, backbone, plan.batch_size, resting)
    reading = reading_speed(
        backbone, [pictures[i] for i in division.train], settings, Augmentation(**plan.augmentation)
    )
    train, validation, test = len(division.train), len(division.validation), len(division.test)
    loaders = min(MAX_LOADERS, settings.workers - 1) if train >= MIN_IMAGES_FOR_LOADERS else 0
    varied = reading.varied * plan.batch_size
    computing = speed.step
    if inputs.teacher is not None:
        computing += plan.batch_size * teacher_speed(
            inputs.teacher, backbone.input_size, speed.precision, plan.batch_size
        )
    step = TRAINER_SECONDS + (max(computing, varied / loaders) if loaders else computing + varied)
    looks = -(-plan.steps // plan.evaluate_every) if validation else 0
    look = validation * (reading.looked_at + speed.forward)
    training = plan.steps * step + looks * look + (train + validation) * reading.reduced
    if config.minutes:
        training = min(training, 60 * config.minutes)
    before = speed.comparing
    if _asks_mirror(config):
        asked = min(MAX_IMAGES, train + validation)
        before += 2 * asked * (speed.forward + reading.asked / pictures_read_at_a_time(settings))
        before += _seconds_of_fit(inputs, asked, 2)  # of its folds only the first compares strengths
    if config.strategy == "lp-ft":
        before += 2 * train * (reading.varied + speed.forward) + look + _seconds_of_fit(inputs, train, 1)
    testing = (test + 2 * min(parity_images(backbone.processor), test)) * (reading.asked + speed.forward)
    seconds = starting_seconds() + before + training + SAVING_SECONDS + testing
    if config.control:
        seconds += max(MIN_SECONDS, training) + testing
    reason = (
        f"measured here: {spoken_pace(step)} for a step of {plan.batch_size} images, {plan.steps:,} of them, and "
        f"{spoken_pace(look)} for a look at the validation images, {looks} of them"
    )
    if plan.patience_steps:
        reason += "; it ends earlier where nothing is gained any more"
    spared = (1 - PATIENT_SHARE) * training if plan.patience_steps else 0.0
    return Forecast([*derived_figures(plan), _precision_figure(speed)], seconds, spared, reason)


def _frozen_figures(config: TrainConfig, division: Division) -> list[Figure]:
    """What a frozen run derives: how its head is fitted and judged."""
    if config.head_solver == "trainer":
        why = "enough for a head on features"
        derived = [
            Figure("max_steps", "Steps", DEFAULT_STEPS, f"{DEFAULT_STEPS:,}", why),
            Figure("batch_size", "Batch size", DEFAULT_BATCH_SIZE, f"{DEFAULT_BATCH_SIZE:,}", why),
            Figure("learning_rate", "Learning rate", DEFAULT_LEARNING_RATE, f"{DEFAULT_LEARNING_RATE:.2g}", why),
            Figure("weight_decay", "Weight decay", DEFAULT_WEIGHT_DECAY, f"{DEFAULT_WEIGHT_DECAY:.2g}", why),
        ]
        given = config.changed()
        fitted = [
            figure
            for figure in derived
            if figure.option not in given and not (figure.option == "max_steps" and config.epochs)
        ]
    else:
        chooser = "folds of the images" if division.uses_folds or not division.validation else "the validation images"
        fitted = [Figure("", "L2 strength", None, f"the best of {len(STRENGTHS)}", f"chosen on {chooser}")]
    if division.uses_folds:
        everything = len(division.train) + len(division.validation) + len(division.test)
        judged = f"all {everything:,} images, in {FOLDS} folds"
        why = "too few for a test part; each is judged by a head that has not seen it"
    else:
        judged = count(len(division.test), "test image", "test images")
        why = "kept out of training and of every choice"
    return [*fitted, Figure("", "Judged on", None, judged, why)]


def _head_steps(config: TrainConfig, images: int) -> int:
    """Steps that teach a head on features."""
    in_epochs = (config.epochs or 0) * -(-images // (config.batch_size or DEFAULT_BATCH_SIZE))
    return config.max_steps or in_epochs or DEFAULT_STEPS


def _precision_figure(speed: Speed) -> Figure:
    precision = speed.precision
    return Figure("precision", "Precision", precision.dtype, precision.label, precision.reason)


def _missing(backbone: Backbone, pictures: Sequence[Picture], precision: Precision, settings: Settings) -> int:
    """How many different pictures have no stored features."""
    digests = list({picture.digest for picture in pictures})
    return len(missing_features(settings.features_dir, features_key(backbone, precision), digests))


def _missing_views(config: TrainConfig, inputs: Inputs, precision: Precision, settings: Settings) -> int:
    """The same for varied versions of pictures."""
    pictures = [inputs.collection.pictures[index] for index in taught_by(inputs.division)]
    wanted = [view.digest for view in views_of(pictures, config.views)]
    key = views_key(inputs.backbone, precision, mirror=config.mirror == "yes")
    return len(missing_features(settings.features_dir, key, list(dict.fromkeys(wanted))))


def _seconds_of_fit(inputs: Inputs, images: int, fits: int) -> float:
    """About how long so many exact heads for so many images take."""
    backbone = inputs.backbone
    product = images * min(images, backbone.head.in_features) * len(backbone.labels)
    return fits * FITTING_SECONDS * (product / FITTING_PRODUCT) ** FITTING_POWER
