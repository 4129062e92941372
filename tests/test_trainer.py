"""The loss of a step, however it is divided, and what a plan becomes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from tl_core.ml.trainer import TrainingLoss

LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


def loss(labels: torch.Tensor, parts: list[slice], weights: np.ndarray | None = None, smoothing: float = 0.0) -> float:
    """The loss of one step in so many micro-batches, which Trainer adds up."""
    of_step = TrainingLoss(weights, smoothing)
    counted = labels.numel()  # as Trainer counts the labels of a step
    return sum(float(of_step(SimpleNamespace(logits=LOGITS[part]), labels[part], counted)) for part in parts)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "parts", [[slice(0, 12)], [slice(0, 6), slice(6, 12)], [slice(0, 5), slice(5, 10), slice(10, 12)]]
)
def test_a_step_in_parts_has_the_loss_of_the_whole(parts: list[slice], smoothing: float) -> None:
    whole = float(cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))
    assert loss(LABELS, parts, smoothing=smoothing) == pytest.approx(whole)
    assert loss(one_hot(LABELS).float(), parts, smoothing=smoothing) == pytest.approx(whole)


def test_weights_of_classes_count_alike_for_numbers_and_for_shares() -> None:
    weights = np.array([0.5, 1.0, 1.5])
    parts = [slice(0, 7), slice(7, 12)]
    numbers, shares = loss(LABELS, parts, weights), loss(one_hot(LABELS).float(), parts, weights)
    each = cross_entropy(LOGITS, LABELS, torch.tensor(weights).float(), reduction="none")
    assert numbers == pytest.approx(float(each.mean()))
    assert shares == pytest.approx(numbers)


def test_a_look_at_the_validation_images_counts_its_own() -> None:
    assert float(TrainingLoss(None, 0.0)(SimpleNamespace(logits=LOGITS), LABELS)) == pytest.approx(
        float(cross_entropy(LOGITS, LABELS))
    )
