"""The strategies that train the backbone itself: last-blocks, full, lp-ft and scratch.

What is to be done is decided once, measured and derived, and kept with the run's checkpoints; then transformers'
Trainer does it. Must not know how data was found or how a result is reported.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from tl_core.config import TrainConfig
from tl_core.errors import JobError, ModelError
from tl_core.files import read_json, write_json
from tl_core.images.collection import TRAIN, VALIDATION, Collection, targets_of
from tl_core.images.splits import Division
from tl_core.ml.augmentation import Augmentation
from tl_core.ml.backbone import Backbone
from tl_core.ml.callbacks import RunCallback
from tl_core.ml.checkpoints import load_best, newest_whole_checkpoint, save_best
from tl_core.ml.data import Collator, EvaluationImages, TrainingImages, make_datasets
from tl_core.ml.distillation import Teacher
from tl_core.ml.frozen import choose_precision
from tl_core.ml.groups import LayerGroup, layer_groups, train_only
from tl_core.ml.heads import class_weights
from tl_core.ml.machine import current_device
from tl_core.ml.memory import (
    LESS_MEMORY,
    MIN_BATCH,
    available_memory,
    checkpoint_activations,
    fit_batch,
    largest_batch,
    probe_cuda_batch,
    training_bytes,
)
from tl_core.ml.mirror import MirrorVerdict, measure_mirror
from tl_core.ml.mixing import Mixing
from tl_core.ml.outcome import Outcome
from tl_core.ml.picture_cache import PictureCache
from tl_core.ml.plan import Circumstances, Plan, describe_plan, make_plan
from tl_core.ml.precision import Precision, choose_training_precision
from tl_core.ml.probe import PROBING, fit_probe
from tl_core.ml.strategies import choose_trained, hold_frozen
from tl_core.ml.trainer import Trained, TrainingEnd, TrainingLoss, train_backbone
from tl_core.ml.transforms import Normalisation, TrainTransform
from tl_core.recorder import Recorder, StopRequested
from tl_core.settings import Settings

PLAN, END = "plan.json", "end.json"
Kept = TypeVar("Kept", Plan, TrainingEnd)


@dataclasses.dataclass
class Finetuning:
    """One training of a backbone's own weights, in a run. `folder` keeps its plan and its checkpoints, `stage` is what
    the run calls it."""

    backbone: Backbone
    collection: Collection
    alike: Sequence[int]  # one number per picture, equal for copies and near-duplicates
    division: Division
    config: TrainConfig
    settings: Settings
    recorder: Recorder
    folder: Path
    stage: str = "training"
    teacher: Teacher | None = None

    def run(self) -> Outcome:
        """Train in place; continues where an earlier process of the run stopped. Raises TLError, StopRequested."""
        groups = self._groups()
        plan = self._kept_plan(groups)
        trained = choose_trained(self.config.strategy, groups, plan.unfreeze_blocks)
        end = self._ended()
        if end is None:
            plan, end = self._train_within_memory(plan, groups, trained)
        stages = (PROBING, self.stage) if self.config.strategy == "lp-ft" else (self.stage,)
        return Outcome(
            tested=list(self.division.test),
            probabilities=None,
            method="held-out",
            shipped=self._what_is_shipped(end),
            precision=Precision(**plan.precision),
            seconds={"training": sum(self.recorder.run.seconds_in(stage) for stage in stages)},
            details={
                **plan.to_json(),
                "steps_done": end.steps,
                "shipped_step": end.shipped_step,
            },
            trained=[group.name for group in trained],
            stopped=end.stopped,
        )

    def _groups(self) -> list[LayerGroup]:
        try:
            return layer_groups(self.backbone)
        except ModelError:  # several classifiers: training everything at one rate needs no groups
            if self.config.needs_weights:
                raise
            return []

    # ---------------------------------------------------------------- the plan

    def _kept_plan(self, groups: Sequence[LayerGroup]) -> Plan:
        """The plan of this training: made once, so that a resumed run does not measure and decide anew."""
        path = self.folder / PLAN
        kept = read_json(path)
        if kept is not None:
            return _restore(Plan, kept)
        self.recorder.stage("planning")
        verdict = self._measure_mirror()
        about = Circumstances(
            images=len(self.division.train),
            validation=len(self.division.validation),
            parameters=self.backbone.parameters,
            blocks=max(1, len(groups) - 2),
            mirror=verdict is not None and verdict.keeps,
            mirror_reason=verdict.reason if verdict is not None else "",
        )
        plan = make_plan(self.config, about)
        trained = choose_trained(self.config.strategy, groups, plan.unfreeze_blocks)
        resting = hold_frozen(self.backbone.model, self._let_train(groups, trained))
        plan = self._fit_to_machine(plan, about)
        resting.remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, plan.to_json())
        for line in [*_describe_trained(groups, trained), *describe_plan(plan)]:
            self.recorder.note(line)
        return plan

    def _measure_mirror(self) -> MirrorVerdict | None:
        if self.config.mirror != "auto" or self.config.augment == "none" or not self.config.needs_weights:
            return None  # what random weights see of a picture says little about mirror images
        return ask_about_mirror(
            self.backbone, self.collection, self.alike, self.division, self.config, self.settings, self.recorder
        )

    def _fit_to_machine(self, plan: Plan, about: Circumstances) -> Plan:
        """The plan with the precision that pays here, and as many images at a time as fit into memory."""
        model, size, classes = self.backbone.model, self.backbone.input_size, len(self.backbone.labels)
        device = current_device()
        model.to(device)
        precision = choose_training_precision(self.config.precision, model, size, classes, device)
        reasons = dict(plan.reasons)
        checkpointing = self.config.activation_checkpointing == "on" and checkpoint_activations(model)
        limit = self._largest_batch(precision)
        if limit < plan.batch_size and self.config.activation_checkpointing == "auto" and checkpoint_activations(model):
            checkpointing = True
            reasons["activation_checkpointing"] = f"memory holds only {limit} images at a time without it"
            limit = self._largest_batch(precision)
        images = len(self.division.train)
        batch, micro, accumulation = fit_batch(plan.batch_size, images, limit)
        if device.type == "cuda":  # what is counted is an estimate; here it can be tried without harm
            fits = probe_cuda_batch(model, size, classes, precision, micro)
            batch, micro, accumulation = fit_batch(plan.batch_size, images, fits)
        if batch != plan.batch_size:
            refitted = make_plan(self.config.model_copy(update={"batch_size": batch}), about)
            plan, reasons = refitted, {**plan.reasons, **refitted.reasons}
            reasons["batch_size"] = "so that passes end evenly, and what is computed at a time fits into memory"
        if self.config.activation_checkpointing == "on" and not checkpointing:
            reasons["activation_checkpointing"] = "this architecture has no support for it"
        if accumulation > 1:
            reasons["micro_batch"] = f"what fits into memory; {accumulation} of them make one step"
        return dataclasses.replace(
            plan,
            batch_size=batch,
            micro_batch=micro,
            activation_checkpointing=checkpointing,
            precision=dataclasses.asdict(precision),
            reasons=reasons,
        )

    def _largest_batch(self, precision: Precision) -> int:
        """As many images as memory holds at a time; the teacher has answered and forgotten when the student begins."""
        needed = training_bytes(self.backbone.model, self.backbone.input_size, len(self.backbone.labels), precision)
        if self.teacher is not None:  # nothing of it trains, so that what is counted is a look's
            asked = training_bytes(self.teacher.model, self.teacher.size, self.teacher.known, precision)
            needed = dataclasses.replace(needed, per_image=max(needed.per_image, asked.per_image))
        return largest_batch(needed, available_memory(current_device()))

    # ---------------------------------------------------------------- the training

    def _train_within_memory(
        self, plan: Plan, groups: Sequence[LayerGroup], trained: Sequence[LayerGroup]
    ) -> tuple[Plan, TrainingEnd]:
        """Train; where a GPU runs out of memory all the same, go on with half as many images at a time.

        Returns the plan as it was then followed.
        """
        model = self.backbone.model
        if plan.activation_checkpointing:
            checkpoint_activations(model)
        on_gpu = current_device().type == "cuda"
        begun = {name: value.cpu() for name, value in model.state_dict().items()} if on_gpu else {}
        while True:
            try:
                return plan, self._train(plan, groups, trained)
            except torch.OutOfMemoryError as failure:
                if plan.micro_batch <= MIN_BATCH:
                    raise JobError(
                        f"the GPU has too little free memory to train {MIN_BATCH} images at a time; {LESS_MEMORY}"
                    ) from failure
            images, half = len(self.division.train), plan.micro_batch // 2
            batch, micro, _ = fit_batch(plan.batch_size, images, half)
            plan = dataclasses.replace(plan, batch_size=batch, micro_batch=micro)
            write_json(self.folder / PLAN, plan.to_json())
            self.recorder.note(f"the GPU's memory is full: {micro} images at a time from here on")
            model.load_state_dict(begun)  # of the start, where there is no checkpoint to go on from
            torch.cuda.empty_cache()

    def _train(self, plan: Plan, groups: Sequence[LayerGroup], trained: Sequence[LayerGroup]) -> TrainingEnd:
        backbone, recorder, seed = self.backbone, self.recorder, self.config.seed
        checkpoint = newest_whole_checkpoint(self.folder)
        begins = checkpoint is None
        if begins and recorder.run.stop_requested():
            raise StopRequested
        spent = recorder.run.seconds_in(self.stage)
        precision, augmentation = Precision(**plan.precision), Augmentation(**plan.augmentation)
        normalisation, weights = Normalisation(backbone.processor), self._class_weights()
        datasets = make_datasets(self.collection, self.division)
        with self._kept_pictures(TRAIN) as taught, self._kept_pictures(VALIDATION) as looked_at:
            images = TrainingImages(datasets[TRAIN], taught, TrainTransform(backbone.processor, augmentation, seed))
            validation = EvaluationImages(datasets[VALIDATION], looked_at, backbone.processor)
            if self.config.strategy == "lp-ft" and begins:
                plain = Collator(normalisation, precision.channels_last)
                fit_probe(backbone, images, validation, plain, precision, plan.micro_batch, weights, recorder)
            recorder.stage(self.stage, 0 if self.config.minutes else plan.steps)
            end = train_backbone(
                backbone,
                Trained(groups, self._let_train(groups, trained)),
                images,
                validation,
                Collator(normalisation, precision.channels_last, Mixing(augmentation.mix, len(backbone.labels), seed)),
                TrainingLoss(weights, plan.label_smoothing),
                plan,
                RunCallback(recorder, self.folder, self.config.checkpoint_minutes, self.config.minutes, spent),
                checkpoint=checkpoint,
                seed=seed,
                workers=self.settings.workers,
                look_first=self.config.strategy == "lp-ft" and begins,
                teacher=self.teacher,
            )
        self._say_how_it_ended(end, plan)
        if not end.stopped:
            self._keep_end(end)
        return end

    def _let_train(self, groups: Sequence[LayerGroup], trained: Sequence[LayerGroup]) -> Sequence[nn.Module]:
        """Let only `trained` learn, everything in a model without groups; the modules that stay in eval mode."""
        return train_only(self.backbone.model, groups, trained) if groups else ()

    @contextmanager
    def _kept_pictures(self, part: str) -> Iterator[PictureCache]:
        indices = self.division.train if part == TRAIN else self.division.validation
        pictures = [self.collection.pictures[i] for i in indices]
        path, size = self.folder / f"{part}.pictures", self.backbone.input_size
        with PictureCache(path, pictures, size, self.settings.max_pixels) as cache:
            yield cache
        if cache.trouble:
            self.recorder.note(cache.trouble)

    def _class_weights(self) -> np.ndarray | None:
        if self.config.class_weights == "none":
            return None
        targets = targets_of([self.collection.pictures[i] for i in self.division.train], self.backbone.labels)
        return class_weights(np.asarray(targets), len(self.backbone.labels))

    def _keep_end(self, end: TrainingEnd) -> None:
        """What a process needs that comes after this one, to go on with what follows the training."""
        if end.shipped_step == end.steps:
            save_best(self.backbone.model, end.steps, self.folder)
        write_json(self.folder / END, dataclasses.asdict(end))

    def _ended(self) -> TrainingEnd | None:
        """The end of this training, its weights in the model, where an earlier process of the run reached it."""
        kept = read_json(self.folder / END)
        if kept is None:
            return None
        load_best(self.backbone.model, self.folder)
        self.recorder.note("the training had ended already")
        return _restore(TrainingEnd, kept)

    # ---------------------------------------------------------------- words

    def _say_how_it_ended(self, end: TrainingEnd, plan: Plan) -> None:
        if end.out_of_time:
            self.recorder.note(f"the time is up after {end.steps:,} steps")
        if end.ended_early:
            self.recorder.note(f"no gain any more: ended after {end.steps:,} of {plan.steps:,} steps")
        if end.diverged:
            self.recorder.note(
                f"warning: the training diverged after {end.steps:,} steps; try a --learning-rate below "
                f"{plan.learning_rate:.1g}"
            )
        if end.shipped_step < end.steps:
            self.recorder.note(
                f"kept: the weights of step {end.shipped_step:,}, the latest of those that validate best within chance"
            )

    def _what_is_shipped(self, end: TrainingEnd) -> str:
        on = f"The model that is shipped was trained on the {len(self.division.train):,} training images"
        if end.shipped_step >= end.steps:  # beyond the steps of a process that was stopped: kept by one before it
            return f"{on}; its weights are those of step {end.shipped_step:,}."
        return (
            f"{on}; its weights are those of step {end.shipped_step:,} of {end.steps:,}, after which it grew worse on "
            f"the {len(self.division.validation):,} validation images."
        )


def _restore(kind: type[Kept], values: dict[str, Any]) -> Kept:
    """A value that an earlier process of the run kept. Raises JobError where another version of this project did."""
    try:
        return kind(**values)
    except TypeError as failure:
        raise JobError("this run began with another version of this project; start it again") from failure


def ask_about_mirror(
    backbone: Backbone,
    collection: Collection,
    alike: Sequence[int],
    division: Division,
    config: TrainConfig,
    settings: Settings,
    recorder: Recorder,
) -> MirrorVerdict:
    """Whether mirror images of the pictures that are not tested keep their class, as `backbone` sees them."""
    indices = [*division.train, *division.validation]
    pictures = [collection.pictures[i] for i in indices]
    precision = choose_precision(config, backbone, len(pictures), settings)
    groups = [alike[i] for i in indices]
    return measure_mirror(backbone, pictures, groups, precision, config.seed, settings, recorder)


def _describe_trained(groups: Sequence[LayerGroup], trained: Sequence[LayerGroup]) -> list[str]:
    """Which layers learn, in a line; none for a model without groups."""
    if not groups:
        return []
    learning, all_of_it = (
        sum(parameter.numel() for group in some for parameter in group.parameters) for some in (trained, groups)
    )
    first = trained[0].name
    which = "everything" if len(trained) == len(groups) else f"from {first} to head" if first != "head" else "the head"
    return [f"trains {which}: {learning / 1e6:.2g} of {all_of_it / 1e6:.2g} M parameters"]
