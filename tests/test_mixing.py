"""Mixed batches: labels in the measure of the pixels, a function of seed, epoch and the batch's indices."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import ViTImageProcessor

from tl_core.ml.augmentation import Augmentation, Mix
from tl_core.ml.mixing import Mixing
from tl_core.ml.transforms import Normalisation, TrainTransform

SIZE = 6  # images in a batch, each of a class of its own, so that its targets name its two origins
CLASSES = SIZE + 1
LABELS = torch.arange(SIZE)

every_kind = pytest.mark.parametrize("kind", get_args(Mix))


def noise(seed: int) -> torch.Tensor:
    return torch.rand(SIZE, 3, 16, 20, generator=torch.Generator().manual_seed(seed))


def plain() -> torch.Tensor:
    """Image i is of the one value i."""
    return LABELS.float().view(-1, 1, 1, 1).expand(-1, 3, 16, 20).contiguous()


def own_share(targets: torch.Tensor) -> float:
    """The weight of an image itself, beside that of the one before it. Fails unless all images have the same two."""
    own, before = targets[LABELS, LABELS], targets[LABELS, LABELS.roll(1)]
    torch.testing.assert_close(own + before, torch.ones(SIZE))
    torch.testing.assert_close(targets.sum(1), torch.ones(SIZE))
    assert (own == own[0]).all()
    return own[0].item()


def test_mixup_weighs_labels_as_pixels() -> None:
    pixels, shares = noise(0), []
    for epoch in range(40):
        mixed, targets = Mixing("mixup", CLASSES, 0)(pixels, LABELS, epoch, range(SIZE))
        share = own_share(targets)
        torch.testing.assert_close(mixed, share * pixels + (1 - share) * pixels.roll(1, 0))
        shares.append(share)
    assert sum(0.1 < share < 0.9 for share in shares) > 5
    assert min(shares) < 0.1 < 0.9 < max(shares)


def test_cutmix_weighs_labels_by_area() -> None:
    pixels, shares = plain(), []
    for epoch in range(40):
        mixed, targets = Mixing("cutmix", CLASSES, 0)(pixels, LABELS, epoch, range(SIZE))
        share = own_share(targets)
        own = mixed == pixels
        assert (own | (mixed == pixels.roll(1, 0))).all()
        torch.testing.assert_close(own.float().mean((1, 2, 3)), torch.full((SIZE,), share))
        shares.append(share)
    assert sum(0.1 < share < 0.9 for share in shares) > 20


def test_both_takes_either_kind_for_half_of_the_batches() -> None:
    pixels, mixing = plain(), Mixing("both", CLASSES, 0)
    blended = 0
    for epoch in range(100):
        mixed, targets = mixing(pixels, LABELS, epoch, range(SIZE))
        own_share(targets)
        blended += len(mixed[1].unique()) == 1
    assert 35 <= blended <= 65


def test_a_pair_of_one_class_keeps_its_class() -> None:
    _, targets = Mixing("mixup", CLASSES, 0)(noise(0), torch.full((SIZE,), 2), 0, range(SIZE))
    torch.testing.assert_close(targets[:, 2], torch.ones(SIZE))


@every_kind
def test_without_a_partner_an_image_stays_as_it_is(kind: Mix) -> None:
    pixels = noise(0)[:1]
    mixed, targets = Mixing(kind, CLASSES, 0)(pixels, torch.tensor([3]), 0, [17])
    assert torch.equal(mixed, pixels)
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[0, 0, 0, 1, 0, 0, 0]]


def test_without_mixing_targets_are_the_labels() -> None:
    pixels = noise(0)
    mixed, targets = Mixing("none", CLASSES, 0)(pixels, LABELS, 0, range(SIZE))
    assert torch.equal(mixed, pixels)
    assert own_share(targets) == 1


@every_kind
def test_what_is_mixed_depends_on_seed_epoch_and_indices_alone(kind: Mix) -> None:
    pixels, indices = noise(0), [4, 8, 15, 16, 23, 42]
    mixing = Mixing(kind, CLASSES, 3)
    mixed, targets = mixing(pixels, LABELS, 1, indices)
    torch.manual_seed(99)
    torch.rand(5)
    before = torch.get_rng_state()
    again, same_targets = mixing(pixels, LABELS, 1, torch.tensor(indices).tolist())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(mixed, again)
    assert torch.equal(targets, same_targets)
    if kind != "none":
        for other in (
            mixing(pixels, LABELS, 2, indices),
            mixing(pixels, LABELS, 1, [5, *indices[1:]]),
            Mixing(kind, CLASSES, 4)(pixels, LABELS, 1, indices),
        ):
            assert not torch.equal(mixed, other[0])


def test_a_batch_is_not_changed_in_place() -> None:
    for kind in get_args(Mix):
        pixels = noise(0)
        Mixing(kind, CLASSES, 0)(pixels, LABELS, 0, range(SIZE))
        assert torch.equal(pixels, noise(0))


@every_kind
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_format_and_type_are_kept(kind: Mix, memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    pixels = noise(0).to(dtype).contiguous(memory_format=memory_format)
    mixed, targets = Mixing(kind, CLASSES, 0)(pixels, LABELS, 0, range(SIZE))
    assert mixed.shape == pixels.shape
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=memory_format)
    assert targets.dtype == torch.float32
    assert targets.shape == (SIZE, CLASSES)


class Noises(Dataset[tuple[int, torch.Tensor]]):
    """Augmented noise, an image's index beside it."""

    def __init__(self) -> None:
        processor = ViTImageProcessor(size={"height": 16, "width": 16})
        self.normalisation = Normalisation(processor)
        self.transform = TrainTransform(processor, Augmentation("rand", mirror=True, erase=0.5), seed=0)

    def __len__(self) -> int:
        return 2 * SIZE

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        grid = np.random.default_rng(index).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        (pixels,) = self.transform([Image.fromarray(grid)], 3, [index])
        return index, self.normalisation(pixels.unsqueeze(0))[0]


class Mixed:
    """Items of `Noises` -> a mixed batch, each image of a class of its own."""

    def __init__(self) -> None:
        self.mixing = Mixing("both", 2 * SIZE, seed=0)

    def __call__(self, items: list[tuple[int, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        indices = [index for index, _ in items]
        return self.mixing(torch.stack([pixels for _, pixels in items]), torch.tensor(indices), 3, indices)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loading_processes_make_the_same_batches(start: str) -> None:
    data, collate = Noises(), Mixed()
    here = list(DataLoader(data, SIZE, collate_fn=collate))
    there = list(DataLoader(data, SIZE, collate_fn=collate, num_workers=1, multiprocessing_context=start))
    assert len(here) == len(there) == 2
    for (pixels, targets), (sent_pixels, sent_targets) in zip(here, there, strict=True):
        assert torch.equal(pixels, sent_pixels)
        assert torch.equal(targets, sent_targets)
