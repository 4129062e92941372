"""Which weights are kept, and when a training ends."""

import pytest

from tl_core.ml.steering import Look, Steering


def kept(accuracies: list[float], images: int) -> int:
    """The last look, by number, whose weights are kept."""
    steering = Steering(images, 2, 0)
    return max(number for number, accuracy in enumerate(accuracies) if steering.add(Look(number, accuracy, 1.0)))


@pytest.mark.parametrize(
    ("accuracies", "images", "number"),
    [
        ([0.5, 0.6, 0.7], 1_000, 2),
        ([0.5, 0.9, 0.7], 1_000, 1),  # worse by far more than chance
        ([0.5, 0.9, 0.895], 1_000, 2),  # worse by less than one image in a hundred
        ([0.5, 0.9, 0.895], 1_000_000, 1),
        ([0.5, 0.9, 0.7], 3, 2),  # three images say little
        ([1.0, 1.0, 0.99], 30, 2),  # all right of thirty is not certainty
        ([0.9, 0.892, 0.884, 0.876], 1_000, 1),  # measured from the best, so that it cannot slide away
    ],
)
def test_of_the_looks_that_are_as_good_as_the_best_the_latest_is_kept(
    accuracies: list[float], images: int, number: int
) -> None:
    assert kept(accuracies, images) == number


def test_weights_that_are_no_numbers_are_never_kept() -> None:
    steering = Steering(100, 2, 0)
    assert not steering.add(Look(1, 0.9, float("nan")))
    assert not steering.add(Look(2, 0.9, float("inf")))
    assert steering.add(Look(3, 0.5, 1.0))


def test_weights_that_were_destroyed_are_not_kept_for_what_they_get_right_by_chance() -> None:
    steering = Steering(6, 2, 0)
    assert steering.add(Look(0, 0.5, 1.1))
    assert not steering.add(Look(1, 0.5, 4e7))
    assert steering.add(Look(2, 0.5, 1.9))
    unsure = Steering(6, 10, 0)
    assert unsure.add(Look(0, 0.5, 0.8))
    assert unsure.add(Look(1, 0.5, 2.2))  # surer of its mistakes, and still better than guessing among ten


def ends_at(looks: list[tuple[float, float]], patience: int) -> int | None:
    steering = Steering(100, 2, patience)
    for step, (accuracy, loss) in enumerate(looks):
        steering.add(Look(step, accuracy, loss))
        if steering.is_in_vain():
            return step
    return None


def test_a_training_ends_when_neither_accuracy_nor_loss_gains() -> None:
    flat = [(0.5, 1.0)] * 5
    assert ends_at(flat, 3) == 3
    assert ends_at(flat, 0) is None
    assert ends_at([(0.5, 1.0), (0.5, 1.0), (0.6, 1.0), *flat], 3) == 5
    assert ends_at([(0.5, 1.0 - step / 10) for step in range(8)], 3) is None
    assert ends_at([(step / 10, 1.0 + step) for step in range(8)], 3) is None
    assert ends_at([(0.5, float("nan"))] * 5, 3) == 3
