"""The head that lp-ft begins with: a linear probe of the backbone as the training that follows will see it.

A head that fits frozen features exactly makes a bad beginning for fine-tuning twice over. In training mode batch norms
use the batch's own statistics, for which its large weights are worse than random ones (right on 17 % instead of 99 % of
some photographs); and it is certain of pictures that have never been varied. So batch norms are first brought to the
person's pictures (Li et al. 2017, "Revisiting Batch Normalization For Practical Domain Adaptation"), and the head is
fitted on varied pictures, softly. Must not know runs beyond their progress, nor the training that follows.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_core.ml.backbone import Backbone, linear_head, write_head
from tl_core.ml.backbone_pass import encode_batch
from tl_core.ml.data import Collator, EvaluationImages, TrainingImages
from tl_core.ml.heads import DEFAULT_STRENGTH, fit_exact, refit, strongest_alike
from tl_core.ml.machine import current_device
from tl_core.ml.precision import Precision, prepare
from tl_core.recorder import Recorder

PROBING = "fitting a head to begin with"
# The strongest of the strengths that validate alike, times this: the probe's direction without its certainty, which a
# training has to unlearn. Photographs of hands, 10 a class, after fine-tuning: 88 % right with 1, 92 % with 10, 93 %
# with 100, and 89 % from a random head.
SOFTENING = 100
# No epoch of a training has this number: of what the probe sees, the training sees other variations.
PROBE_EPOCH = 1_000_000_000


def fit_probe(
    backbone: Backbone,
    images: TrainingImages,
    validation: EvaluationImages,
    collator: Collator,
    precision: Precision,
    batch_size: int,
    class_weights: np.ndarray | None,
    recorder: Recorder,
) -> None:
    """Bring the batch norms of `backbone.model` to `images`, fit a head and write it into the model.

    `collator` does not mix. Validation images choose the strength and nothing else, so that they can steer what
    follows. Raises ModelError for a classifier that no head can be written into, StopRequested.
    """
    head = linear_head(backbone)
    backbone.model.to(current_device()).eval()
    prepare(backbone.model, precision)
    images.epoch = PROBE_EPOCH
    recorder.stage(PROBING)
    _settle_batch_norms(backbone.model, _batches(images, collator, batch_size, recorder), precision)

    def encode(of: TrainingImages | EvaluationImages) -> tuple[np.ndarray, np.ndarray]:
        batches = _batches(of, collator, batch_size, recorder)
        features = [encode_batch(backbone.model, head, pixels, precision) for pixels in batches]
        return np.concatenate(features), of.labels.numpy()

    features, targets = encode(images)
    held = encode(validation) if len(validation) else None
    classes = len(backbone.labels)
    fitted = fit_exact(features, targets, classes, weights=class_weights, validation=held, roughly=True)
    strength = strongest_alike(fitted.scores, len(validation)) if fitted.scores else DEFAULT_STRENGTH
    write_head(head, refit(features, targets, classes, SOFTENING * strength, class_weights))


def _batches(
    images: TrainingImages | EvaluationImages, collator: Collator, size: int, recorder: Recorder
) -> Iterator[torch.Tensor]:
    """Pixels (B, 3, H, W) of all images in order, on the device."""
    for start in range(0, len(images), size):
        end = min(start + size, len(images))
        yield collator(images.__getitems__(list(range(start, end))))["pixel_values"].to(current_device())
        recorder.advance(end, len(images))


def _settle_batch_norms(model: nn.Module, batches: Iterable[torch.Tensor], precision: Precision) -> None:
    """Replace the statistics of `model`'s batch norms by those of `batches`; nothing else in it is in training mode."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain average of all batches
        norm.train()
    with torch.no_grad():
        for pixels in batches:
            if len(pixels) > 1:
                with precision.autocast(pixels.device):
                    model(pixel_values=pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
