"""Training images: a function of seed, epoch and index, normalised as the checkpoint's processor does."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ConvNextImageProcessor, ViTImageProcessor

from tl_core.ml.transforms import Normalisation, TrainTransform

PROCESSOR = ViTImageProcessor(size={"height": 24, "width": 24}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])


def noise(seed: int, side: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_what_a_picture_looks_like_depends_on_seed_epoch_and_index_alone() -> None:
    transform = TrainTransform(PROCESSOR, "crop-flip", seed=5)
    pictures = [noise(0), noise(1), noise(2)]
    together = transform(pictures, 1, [7, 8, 9])
    torch.manual_seed(99)
    torch.rand(5)
    alone = transform([pictures[2]], 1, [9])[0]
    assert torch.equal(together[2], alone)
    assert not torch.equal(alone, transform([pictures[2]], 2, [9])[0])
    assert not torch.equal(alone, TrainTransform(PROCESSOR, "crop-flip", seed=6)([pictures[2]], 1, [9])[0])


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    TrainTransform(PROCESSOR, "crop", seed=0)([noise(0)], 0, [0])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("augment", ["none", "crop", "crop-flip"])
def test_pictures_come_out_at_the_backbones_size(augment: str) -> None:
    (pixels,) = TrainTransform(PROCESSOR, augment, 0)([noise(0, 33)], 0, [0])
    assert pixels.shape == (3, 24, 24)
    assert pixels.dtype == torch.uint8


def test_without_augmentation_training_sees_what_the_processor_makes() -> None:
    picture = noise(3)
    (pixels,) = TrainTransform(PROCESSOR, "none", 0)([picture], 0, [0])
    ours = Normalisation(PROCESSOR)(pixels.unsqueeze(0))
    theirs = PROCESSOR(images=[picture], return_tensors="pt")["pixel_values"]
    grey_level = 1 / 255 / 0.2
    assert (ours - theirs).abs().max() <= 1.01 * grey_level  # two resizers may round a grey level apart


def test_crops_never_mirror() -> None:
    half = np.zeros((40, 40, 3), np.uint8)
    half[:, :20] = 255
    transform = TrainTransform(PROCESSOR, "crop", 0)
    for pixels in transform([Image.fromarray(half)] * 50, 0, list(range(50))):
        assert pixels[0, :, 0].float().mean() >= pixels[0, :, -1].float().mean()


def test_a_processor_with_another_kind_of_size_is_understood() -> None:
    processor = ConvNextImageProcessor(size={"shortest_edge": 20})
    (pixels,) = TrainTransform(processor, "none", 0)([noise(0)], 0, [0])
    assert pixels.shape == (3, 20, 20)
