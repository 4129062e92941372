"""A teacher: a model of the same classes whose answers a training learns from, beside the labels.

Knowledge distillation (Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network"). The teacher is
asked about the very pixels that the student sees, varied and mixed (Beyer et al. 2022, "Knowledge distillation: a good
teacher is patient and consistent", section 3.1), and so at each step anew. Must not know strategies, data sets or runs.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, kl_div

from tl_core.errors import ModelError
from tl_core.ml.backbone import Backbone
from tl_core.ml.inference import Predictor, load_predictor
from tl_core.ml.precision import PLAIN, Precision, gains_from_channels_last, prepare
from tl_core.ml.preprocessing import ColourMap, measure_colours, processor_size
from tl_core.sources import ModelSource

NAMES_SHOWN = 5
# Below this share of a number's own range two processors make the same numbers of a colour, but for rounding.
SAME_COLOUR = 1e-4


def distances(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """(B,) how far a student's `logits` (B, C) are from a teacher's: KL(teacher || student).

    At a temperature of 1, since teachers are taught here with smoothed labels and mixed pictures: their answers are
    soft already. Tiny ImageNet's best of 202 classes has 0.44 on average so, and 0.10 at a temperature of 2.
    """
    student, teacher = (torch.log_softmax(values, dim=-1) for values in (logits, answers))
    return kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


class Teacher:
    """(B, 3, H, W) pixels as the student's processor makes them -> the teacher's logits (B, C) in float32.

    In eval mode, without gradients; C are the student's classes in its order, whatever else the teacher knows.
    `share` is the part of the loss that is its.
    """

    def __init__(self, source: ModelSource, predictor: Predictor, student: Backbone, share: float) -> None:
        self.source = source
        self.share = share
        self.model = predictor.model.requires_grad_(False)
        self.size = processor_size(predictor.processor)
        self.known = len(predictor.labels)
        self.classes = torch.tensor(_places(source, predictor.labels, student.labels), device=predictor.device)
        self.recolour = _Recolour(*(measure_colours(each) for each in (student.processor, predictor.processor)))
        self.recolour.to(predictor.device)
        self.precision = PLAIN

    def compute_in(self, precision: Precision) -> None:
        """Take the number format of the student's training."""
        self.precision = dataclasses.replace(precision, channels_last=gains_from_channels_last(self.model))
        prepare(self.model, self.precision)

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels = self.recolour(pixels)
        if tuple(pixels.shape[2:]) != self.size:
            pixels = interpolate(pixels, self.size, mode="bilinear", antialias=True, align_corners=False)
        pixels = pixels.contiguous(memory_format=self.precision.memory_format)
        with self.precision.autocast(pixels.device):
            logits = self.model(pixel_values=pixels).logits
        return logits.float()[:, self.classes]

    @property
    def description(self) -> str:
        """For the log of a run."""
        height, width = self.size
        known = f", of the {self.known:,} that it knows" if self.known > len(self.classes) else ""
        return (
            f"learns from {self.source.named}: its answers for {len(self.classes):,} classes{known}, at {width} × "
            f"{height} pixels, are {self.share:.0%} of the loss"
        )

    def to_json(self) -> dict[str, Any]:
        """For the report of a run."""
        return {
            "id": self.source.named if self.source.kind != "folder" else self.source.path.name,
            "kind": self.source.kind,
            "revision": self.source.revision,
            "weight": self.share,
        }


def load_teacher(source: ModelSource, student: Backbone, share: float) -> Teacher:
    """Open a model as the teacher of `student`, on this process's device.

    Raises ModelError for one that cannot answer, does not know a class of the student's, or whose processor does to
    colours what cannot be done to a batch.
    """
    predictor = load_predictor(source)
    teacher = Teacher(source, predictor, student, share)
    if not np.isfinite(predictor.judge([Image.new("RGB", (64, 64))])).all():
        raise ModelError(f"the teacher's answers are not finite: the weights of {source.named} are damaged")
    return teacher


def _places(source: ModelSource, known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the `wanted` classes are among those that a teacher knows, by name."""
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ModelError(
            f"{source.named} cannot be the teacher: it does not know {_listed(missing)}; it knows {_listed(known)}. "
            "Name a --teacher that was trained on the same classes, or name the classes of your images as it does"
        )
    twice = [name for name in wanted if known.count(name) > 1]
    if twice:
        raise ModelError(
            f"{source.named} cannot be the teacher: it has several classes named {_listed(twice)}, and which of them "
            "is meant cannot be told; name another --teacher"
        )
    return [known.index(name) for name in wanted]


def _listed(names: Sequence[str]) -> str:
    """A few names and how many there are, for a sentence."""
    shown = ", ".join(repr(name) for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{len(names):,} classes such as {shown}"


class _Recolour:
    """Pixels as one processor makes them of a colour -> as another does, channel by channel."""

    def __init__(self, student: ColourMap, teacher: ColourMap) -> None:
        self.order = [student.order.index(channel) for channel in teacher.order]
        self.scale = (teacher.scale / student.scale[self.order]).view(1, -1, 1, 1)
        self.shift = teacher.shift.view(1, -1, 1, 1) - self.scale * student.shift[self.order].view(1, -1, 1, 1)
        same = torch.allclose(self.scale, torch.ones(()), atol=SAME_COLOUR)
        self.idle = same and self.order == [0, 1, 2] and bool((self.shift.abs() < SAME_COLOUR).all())

    def to(self, device: torch.device) -> None:
        self.scale, self.shift = self.scale.to(device), self.shift.to(device)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.idle:
            return pixels
        ordered = pixels if self.order == [0, 1, 2] else pixels[:, self.order]
        return ordered * self.scale + self.shift
