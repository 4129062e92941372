"""How fast this machine is at a training's parts: an optimiser step, a look at a picture, reading one of the person's.

Steps are rehearsed on random pictures and leave no trace. Must not know how many of them a training takes.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import nn

from tl_core.config import TrainConfig
from tl_core.images.collection import Picture
from tl_core.images.decode import read_picture
from tl_core.ml.augmentation import Augmentation
from tl_core.ml.backbone import Backbone, load_backbone
from tl_core.ml.data import Collator
from tl_core.ml.distillation import Teacher
from tl_core.ml.folding import fold_batch_norms
from tl_core.ml.machine import current_device, map_side_by_side, pictures_at_a_time, threads_side_by_side
from tl_core.ml.memory import checkpoint_activations
from tl_core.ml.picture_cache import read_reduced
from tl_core.ml.precision import MEASURING_SECONDS as LONGEST_COMPARING
from tl_core.ml.precision import (
    PLAIN,
    Precision,
    answers_in_channels_last,
    choose_forward_precision,
    choose_training_precision,
    formats_compared,
    forward_step,
    prepare_copy,
    rehearse,
)
from tl_core.ml.preprocessing import preprocess
from tl_core.ml.rehearsal import random_pictures
from tl_core.ml.strategies import hold_frozen
from tl_core.ml.transforms import Normalisation, TrainTransform
from tl_core.settings import Settings
from tl_core.sources import ModelSource

SAMPLED_PICTURES = 12  # of the person's, spread over all
_FEW, _BATCH = 2, 16  # batch norm cannot take statistics of one
MEASURING_SECONDS = 0.8  # for one figure; a backbone too slow for it is measured on fewer pictures
READING_SECONDS = 0.3  # for the few pictures, once more where there is time left
_REPEATS = 3, 12  # at least and at most; more, because a step that another program interrupts takes twice its time
# A run compares number formats in four steps of _BATCH pictures in each, and one in those that are clearly slower. Told
# from steps of two, which cost more per picture, that is too long by far: of four formats, three to five times.
_STEPS_OF_A_FORMAT = 3
COMPARING_SECONDS = 10.0


@dataclass(frozen=True)
class Speed:
    """Seconds of the backbone alone: for an optimiser step (0 where none is taken), and for one of many pictures that
    it only looks at. `comparing` is what choosing the precision takes."""

    precision: Precision
    step: float
    forward: float
    comparing: float


@dataclass(frozen=True)
class Reading:
    """Seconds for one of the person's pictures: decoded and processed as a model is asked; decoded and reduced; varied
    for a training step; and processed again after it was reduced. The last three are of trainings only."""

    asked: float
    reduced: float = 0.0
    varied: float = 0.0
    looked_at: float = 0.0


_speeds: dict[tuple[Any, ...], Speed] = {}
_answering: dict[tuple[Any, ...], float] = {}
_measuring = Lock()  # two measurements at once would slow each other


def backbone_speed(
    config: TrainConfig, backbone: Backbone, batch_size: int | None = None, resting: Sequence[nn.Module] = ()
) -> Speed:
    """The speed of the backbone as it stands, measured once in this process.

    `batch_size` images make a step, None for a backbone that does not train; `resting` are modules that stay in eval
    mode. Number formats are compared only where that is quick: a slow backbone on a CPU is measured in plain fp32.
    """
    trained = sum(parameter.numel() for parameter in backbone.model.parameters() if parameter.requires_grad)
    key = (
        *(str(backbone.source.path), backbone.parameters, trained, backbone.input_size, batch_size),
        *(config.precision, config.activation_checkpointing, str(current_device())),
    )
    with _measuring:
        if key not in _speeds:
            if batch_size is None:
                _speeds[key] = _measure_forward(config, backbone)
            else:
                handle = hold_frozen(backbone.model, resting)
                _speeds[key] = _measure_training(config, backbone, batch_size)
                handle.remove()
        return _speeds[key]


def forward_seconds(source: ModelSource) -> float:
    """What a picture of its own size costs a backbone, in a batch, without reading it. Raises ModelError."""
    backbone = load_backbone(source, ["a", "b"])
    backbone.model.to(current_device())
    return backbone_speed(TrainConfig.parse({"data": "?"}), backbone).forward


def teacher_speed(teacher: Teacher, size: tuple[int, int], precision: Precision, batch_size: int) -> float:
    """Seconds in which a teacher answers for a picture of (height, width) pixels, in a batch of so many."""
    teacher.compute_in(precision)

    def ask(images: int) -> None:
        pixels = random_pictures(images, size, current_device())
        teacher(pixels.contiguous(memory_format=precision.memory_format))

    key = (str(teacher.source.path), size, batch_size, precision, str(current_device()))
    with _measuring:
        if key not in _answering:
            _answering[key] = _seconds_per_picture(ask, batch_size)
        return _answering[key]


def reading_speed(
    backbone: Backbone, pictures: Sequence[Picture], settings: Settings, augmentation: Augmentation | None = None
) -> Reading:
    """Seconds for each of a few of `pictures`; `augmentation` is for those that train. Raises DataError, ModelError."""
    sample = [picture.path for picture in pictures[:: -(-len(pictures) // SAMPLED_PICTURES)]]
    size, processor, limit = backbone.input_size, backbone.processor, settings.max_pixels

    def ask(paths: Sequence[Path]) -> None:
        preprocess(processor, [read_picture(path, limit) for path in paths])

    ask(sample[:1])  # the first one ever loads decoders
    asked = _seconds_alone(lambda: ask(sample)) / len(sample)
    if augmentation is None:
        return Reading(asked)
    reduced = [read_reduced(path, size, limit) for path in sample]
    vary, collate = TrainTransform(processor, augmentation, 0), Collator(Normalisation(processor), False)

    def prepare() -> None:
        varied = vary(reduced, 0, range(len(reduced)))
        collate([{"pixel_values": pixels, "labels": torch.tensor(0)} for pixels in varied])

    vary(reduced[:1], 0, [0])
    spans = (
        _seconds_alone(lambda: [read_reduced(path, size, limit) for path in sample]),
        _seconds_alone(prepare),
        _seconds_alone(lambda: preprocess(processor, reduced)),
    )
    return Reading(asked, *(span / len(sample) for span in spans))


def _measure_forward(config: TrainConfig, backbone: Backbone) -> Speed:
    model, size, device = backbone.model, backbone.input_size, current_device()
    if formats_compared(config.precision, model, device, training=False):
        how = "fewer bits are tried when the run begins, where they could save time"
        precision = Precision("fp32", answers_in_channels_last(model, device), how)
    else:
        precision = choose_forward_precision(config.precision, model, size, 1, device)
    prepared = prepare_copy(fold_batch_norms(model, size), size, precision)
    threads, looking = threads_side_by_side(), forward_step(prepared, size, precision)
    batch = pictures_at_a_time(size)
    (alone,) = map_side_by_side(lambda images: _seconds_per_picture(looking, images), [batch], threads)
    return Speed(precision, 0.0, alone / threads, 0.0)


def _measure_training(config: TrainConfig, backbone: Backbone, batch_size: int) -> Speed:
    model, size, classes, device = backbone.model, backbone.input_size, len(backbone.labels), current_device()
    if config.activation_checkpointing == "on":
        checkpoint_activations(model)
    precision = Precision("fp32", False, "other formats are measured when the run begins; one may be faster")
    compared = formats_compared(config.precision, model, device, training=True)
    comparing = 0.0
    if compared:
        comparing = compared * _STEPS_OF_A_FORMAT * _BATCH * _quick_look(_training(model, size, classes, PLAIN))
    if comparing <= COMPARING_SECONDS:
        begun = time.perf_counter()
        precision = choose_training_precision(config.precision, model, size, classes, device)
        comparing = time.perf_counter() - begun
    each = _seconds_per_picture(_training(model, size, classes, precision), batch_size)
    forward = _seconds_per_picture(_looking(model, size, precision), _BATCH)
    return Speed(precision, each * batch_size, forward, min(comparing, LONGEST_COMPARING))


Step = Callable[[int], object]


def _training(model: nn.Module, size: tuple[int, int], classes: int, precision: Precision) -> Step:
    """An optimiser step on so many random pictures, as Trainer takes it."""
    rehearsal = rehearse(model, size, precision)
    optimizer = torch.optim.AdamW(rehearsal.trained, lr=0.0, fused=True)

    def step(images: int) -> None:
        pixels = rehearsal.pictures(images)
        with rehearsal.in_training():
            rehearsal.loss(pixels, classes).backward()
        nn.utils.clip_grad_norm_(rehearsal.trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _looking(model: nn.Module, size: tuple[int, int], precision: Precision) -> Step:
    rehearsal = rehearse(model, size, precision)

    def step(images: int) -> None:
        with rehearsal.in_eval():
            rehearsal.answer(rehearsal.pictures(images))

    return step


def _quick_look(step: Step) -> float:
    """Seconds per picture, of two pictures the second time."""
    step(_FEW)
    return _timed(step, _FEW) / _FEW


def _seconds_per_picture(step: Step, batch: int) -> float:
    """Seconds per picture of a batch, or of as many of its pictures as there is time to measure."""
    least, most = _REPEATS
    ends = time.perf_counter() + MEASURING_SECONDS
    step(_FEW)
    images, seconds = _FEW, _timed(step, _FEW)
    for _ in range(2):  # what a step costs apart from its pictures makes few of them look dear
        more = min(batch, int(MEASURING_SECONDS / (least + 1) * images / max(seconds, 1e-9)))
        if more <= images:
            break
        step(more)
        images, seconds = more, _timed(step, more)
    if images <= _FEW:
        return seconds / images
    taken = [seconds]
    while len(taken) < least or (len(taken) < most and time.perf_counter() < ends):
        taken.append(_timed(step, images))
    return statistics.median(taken) / images


def _timed(step: Step, images: int) -> float:
    return _seconds_of(lambda: step(images))


def _seconds_alone(work: Callable[[], object]) -> float:
    """Seconds of something short, without what interrupts it; once where that takes long, as large photographs do."""
    ends = time.perf_counter() + READING_SECONDS
    taken = [_seconds_of(work)]
    while len(taken) < _REPEATS[0] and time.perf_counter() < ends:
        taken.append(_seconds_of(work))
    return min(taken)


def _seconds_of(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    if current_device().type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - begun
