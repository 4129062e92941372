"""Training images: a function of seed, epoch and index, in the very numbers that the checkpoint's processor makes."""

import json
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import (
    BeitImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    EfficientNetImageProcessor,
    ImageGPTImageProcessor,
    LevitImageProcessor,
    MobileViTImageProcessor,
    PerceiverImageProcessor,
    SegformerImageProcessor,
    TextNetImageProcessor,
    TimmWrapperImageProcessor,
    ViTImageProcessor,
)

from tl_core.errors import ModelError
from tl_core.ml.augmentation import Augmentation, Policy
from tl_core.ml.preprocessing import load_processor, measure_colours, preprocess, processor_size, reason_of
from tl_core.ml.transforms import Normalisation, TrainTransform
from tl_core.sources import ModelSource

PROCESSOR = ViTImageProcessor(size={"height": 24, "width": 24}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
SQUARE = {"height": 24, "width": 24}
PROCESSORS = {
    "vit": PROCESSOR,
    "oblong": ViTImageProcessor(size={"height": 24, "width": 40}),
    "not rescaled": ViTImageProcessor(size=SQUARE, do_rescale=False, do_normalize=False),
    "not normalised": BeitImageProcessor(size=SQUARE, do_normalize=False, do_center_crop=False),
    "cropped to a part": ConvNextImageProcessor(size={"shortest_edge": 28}, crop_pct=0.875),
    "normalised twice": EfficientNetImageProcessor(size=SQUARE, include_top=True),
    "rescaled to -1 … 1": EfficientNetImageProcessor(
        size=SQUARE, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False
    ),
    "blue first": MobileViTImageProcessor(size={"shortest_edge": 28}, crop_size=SQUARE),
    "size means the output": PerceiverImageProcessor(size=SQUARE, crop_size={"height": 30, "width": 30}),
    "resized to more than it says": LevitImageProcessor(size={"shortest_edge": 24}, crop_size=SQUARE),
    "segformer": SegformerImageProcessor(size=SQUARE),
    "timm": TimmWrapperImageProcessor(timm.get_pretrained_cfg("test_vit").to_dict()),
}
SIZES = {
    "oblong": (24, 40),
    "cropped to a part": (28, 28),
    "timm": (160, 160),
}
NONE, CROP, CROP_AND_MIRROR = Augmentation(), Augmentation("crop"), Augmentation("crop", mirror=True)

every_processor = pytest.mark.parametrize("name", PROCESSORS)
every_policy = pytest.mark.parametrize("policy", get_args(Policy))


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (40, 40), colour)


def noise(seed: int, width: int = 40, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@every_processor
def test_the_input_size_is_what_the_processor_makes(name: str) -> None:
    processor = PROCESSORS[name]
    assert processor_size(processor) == SIZES.get(name, (24, 24))
    made = processor(images=[noise(0, 90, 50)], return_tensors="pt")["pixel_values"]
    assert tuple(made.shape[2:]) == processor_size(processor)


@every_processor
@pytest.mark.parametrize("augmentation", [NONE, CROP, CROP_AND_MIRROR])
def test_training_gives_a_colour_the_numbers_that_the_processor_gives_it(name: str, augmentation: Augmentation) -> None:
    processor = PROCESSORS[name]
    height, width = processor_size(processor)
    picture = Image.new("RGB", (width, height), (10, 200, 90))
    (pixels,) = TrainTransform(processor, augmentation, 0)([picture], 0, [0])
    ours = Normalisation(processor)(pixels.unsqueeze(0))
    theirs = processor(images=[picture], return_tensors="pt")["pixel_values"].float()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@every_processor
def test_without_augmentation_training_sees_what_evaluation_sees(name: str) -> None:
    processor = PROCESSORS[name]
    height, width = processor_size(processor)
    rounding = 0.5 * Normalisation(processor).scale.abs().max().item()
    for picture in (noise(1, width, height), noise(2, 90, 50)):
        (pixels,) = TrainTransform(processor, NONE, 0)([picture], 0, [0])
        ours = Normalisation(processor)(pixels.unsqueeze(0))
        theirs = processor(images=[picture], return_tensors="pt")["pixel_values"].float()
        assert (ours - theirs).abs().max() <= 1.01 * rounding


@every_policy
def test_what_a_picture_looks_like_depends_on_seed_epoch_and_index_alone(policy: Policy) -> None:
    augmentation = Augmentation(policy, mirror=True, erase=0.5)
    transform = TrainTransform(PROCESSOR, augmentation, seed=5)
    pictures = [noise(index) for index in range(8)]
    together = transform(pictures, 1, range(8))
    torch.manual_seed(99)
    torch.rand(5)
    backwards = transform(pictures[::-1], 1, range(7, -1, -1))
    alone = [transform([pictures[index]], 1, [index])[0] for index in range(8)]
    for index in range(8):
        assert torch.equal(together[index], backwards[7 - index])
        assert torch.equal(together[index], alone[index])
    next_epoch = transform(pictures, 2, range(8))
    other_seed = TrainTransform(PROCESSOR, augmentation, seed=6)(pictures, 1, range(8))
    assert any(not torch.equal(now, then) for now, then in zip(together, next_epoch, strict=True))
    assert any(not torch.equal(one, other) for one, other in zip(together, other_seed, strict=True))
    same_picture = transform([pictures[0]] * 8, 1, range(8))
    assert any(not torch.equal(same_picture[0], other) for other in same_picture[1:])


@every_policy
def test_a_loading_process_can_be_sent_the_transform(policy: Policy) -> None:
    transform = TrainTransform(PROCESSOR, Augmentation(policy, mirror=True, erase=1), 0)
    sent = pickle.loads(pickle.dumps(transform))
    assert torch.equal(sent([noise(0)], 0, [0])[0], transform([noise(0)], 0, [0])[0])


@every_policy
def test_the_global_generator_is_left_as_it_was(policy: Policy) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    TrainTransform(PROCESSOR, Augmentation(policy, mirror=True, erase=1), seed=0)([noise(0)], 0, [0])
    assert torch.equal(before, torch.get_rng_state())


@every_policy
def test_pictures_of_any_shape_come_out_at_the_backbones_size(policy: Policy) -> None:
    transform = TrainTransform(PROCESSORS["oblong"], Augmentation(policy, mirror=True, erase=1), 0)
    for pixels in transform([noise(0, 33), noise(1, 300, 20), noise(2, 1, 1)], 0, range(3)):
        assert pixels.shape == (3, 24, 40)
        assert pixels.dtype == torch.uint8


def test_every_policy_changes_pictures_in_its_own_way() -> None:
    made = [
        torch.stack(TrainTransform(PROCESSOR, Augmentation(policy), 0)([noise(0)] * 20, 0, range(20)))
        for policy in get_args(Policy)
    ]
    for number, one in enumerate(made):
        for other in made[:number]:
            changed = (one != other).flatten(1).any(1).float().mean()
            assert changed > 0.5


def test_colour_changes_are_mild_and_keep_grey_grey() -> None:
    transform = TrainTransform(PROCESSOR, Augmentation("colour"), 0)
    pixels = torch.stack(transform([plain((100, 100, 100))] * 50, 0, range(50))).float()
    assert (pixels.amax(1) == pixels.amin(1)).all()
    assert pixels.min() >= 100 * 0.8 * 0.8 - 1
    assert pixels.max() <= 100 * 1.2 * 1.2 + 1
    assert pixels.std() > 5


def mirrored(pixels: torch.Tensor) -> bool:
    return bool(pixels[0, :, 0].float().mean() < pixels[0, :, -1].float().mean())


@pytest.mark.parametrize(("mirror", "least", "most"), [(False, 0, 0), (True, 80, 120)])
def test_half_of_the_pictures_are_mirrored_if_asked_and_none_otherwise(mirror: bool, least: int, most: int) -> None:
    half = np.zeros((40, 40, 3), np.uint8)
    half[:, :20] = 255
    transform = TrainTransform(PROCESSOR, Augmentation("crop", mirror), 0)
    made = transform([Image.fromarray(half)] * 200, 0, range(200))
    assert least <= sum(map(mirrored, made)) <= most


@pytest.mark.parametrize(("erase", "least", "most"), [(0, 0, 0), (0.25, 30, 70), (1, 200, 200)])
def test_as_many_pictures_have_an_erased_rectangle_as_asked(erase: float, least: int, most: int) -> None:
    transform = TrainTransform(PROCESSOR, Augmentation("crop", erase=erase), 0)
    made = transform([plain((250, 0, 0))] * 200, 0, range(200))
    assert least <= sum(bool((pixels[0] != 250).any()) for pixels in made) <= most


def test_what_is_erased_is_zero_to_the_model() -> None:
    (pixels,) = TrainTransform(PROCESSOR, Augmentation(erase=1), 0)([plain((250, 0, 0))], 0, [0])
    normalisation = Normalisation(PROCESSOR)
    erased = normalisation(pixels.unsqueeze(0)).movedim(1, -1)[0][pixels[0] != 250]
    assert 0.02 < len(erased) / 24**2 < 0.4
    assert (erased.abs() <= 0.5 * normalisation.scale.flatten()).all()


def test_no_policy_turns_a_picture_far_enough_to_change_a_digit() -> None:
    rows = np.linspace(40, 210, 96).astype(np.uint8)
    picture = Image.fromarray(np.broadcast_to(rows[:, None, None], (96, 96, 3)).copy())
    processor = ViTImageProcessor(size={"height": 64, "width": 64})
    reach = 8  # pixels over which the slope is taken: rounding to grey levels then shifts its direction little
    turned = []
    for pixels in TrainTransform(processor, Augmentation("trivial"), 0)([picture] * 400, 0, range(400)):
        grey = pixels[0].float()
        down = grey[reach:, :-reach] - grey[:-reach, :-reach]
        across = grey[:-reach, reach:] - grey[:-reach, :-reach]
        sloping = (down != 0) | (across != 0)
        if sloping.any():  # the greatest solarisation and posterisation can leave one colour
            turned.append(torch.atan2(across[sloping].abs(), down[sloping].abs()).rad2deg().median().item())
    assert len(turned) > 350
    assert 15 < max(turned) < 40


@pytest.mark.parametrize("resample", [1, 2, 3])
def test_a_crop_is_the_same_however_the_processor_resizes(resample: int) -> None:
    rows, columns = np.mgrid[0:90, 0:70]
    picture = Image.fromarray(np.stack([rows * 2, columns * 3, rows + columns], axis=-1).astype(np.uint8))
    made = TrainTransform(ViTImageProcessor(size=SQUARE, resample=resample), CROP, 0)([picture] * 4, 0, range(4))
    bilinear = TrainTransform(ViTImageProcessor(size=SQUARE), CROP, 0)([picture] * 4, 0, range(4))
    assert (torch.stack(made).int() - torch.stack(bilinear).int()).abs().max() <= 4


def test_an_augmentation_says_what_it_does() -> None:
    assert Augmentation().describe() == "none"
    assert Augmentation("crop").describe() == "random crops"
    assert Augmentation("colour", mirror=True, erase=0.25, mix="mixup").describe() == (
        "random crops, colour, mirror images, erased rectangles in 25 % of images, mixup"
    )
    assert "TrivialAugment" in Augmentation("trivial").describe()
    assert "RandAugment" in Augmentation("rand").describe()
    assert Augmentation(mix="both").describe() == "mixup or cutmix"


def test_an_augmentation_is_the_same_after_a_file() -> None:
    augmentation = Augmentation("rand", mirror=True, erase=0.1, mix="both")
    assert Augmentation(**json.loads(json.dumps(asdict(augmentation)))) == augmentation


def test_a_plan_can_name_an_augmentation_without_torch() -> None:
    program = "import sys, tl_core.ml.augmentation; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


class Standardising(ViTImageProcessor):
    """Brings each picture to mean 0, which no map of single colours does."""

    def __call__(self, *arguments: Any, **words: Any) -> Any:
        made = super().__call__(*arguments, **words)
        made["pixel_values"] = made["pixel_values"] - made["pixel_values"].mean(dim=(1, 2, 3), keepdim=True)
        return made


class Curved(ViTImageProcessor):
    def __call__(self, *arguments: Any, **words: Any) -> Any:
        made = super().__call__(*arguments, **words)
        made["pixel_values"] = made["pixel_values"] ** 3
        return made


@pytest.mark.parametrize("kind", [Standardising, Curved])
def test_a_processor_that_is_no_map_of_each_channel_is_refused(kind: type) -> None:
    with pytest.raises(ModelError, match=f"{kind.__name__} .* does more to colours"):
        measure_colours(kind(size=SQUARE))


def test_a_padded_edge_is_not_taken_for_a_colour() -> None:
    processor = MobileViTImageProcessor(size={"shortest_edge": 20}, crop_size=SQUARE)
    assert measure_colours(processor).order == [2, 1, 0]


class Greying(ViTImageProcessor):
    def __call__(self, *arguments: Any, **words: Any) -> Any:
        made = super().__call__(*arguments, **words)
        made["pixel_values"] = made["pixel_values"][:, [0, 0, 0]]
        return made


def test_a_processor_that_drops_channels_is_refused() -> None:
    with pytest.raises(ModelError, match="does more to colours"):
        measure_colours(Greying(size=SQUARE))


class Nested(ViTImageProcessor):
    def __call__(self, *arguments: Any, **words: Any) -> Any:
        made = super().__call__(*arguments, **words)
        made["pixel_values"] = made["pixel_values"].unsqueeze(1)
        return made


def test_a_processor_that_makes_no_pictures_is_a_sentence() -> None:
    with pytest.raises(ModelError, match=r"shape \(1, 1, 3, 24, 24\)"):
        processor_size(Nested(size=SQUARE))
    with pytest.raises(ModelError, match="no pixel values"):
        processor_size(ImageGPTImageProcessor(clusters=np.zeros((4, 3)), size=SQUARE))


def test_a_processor_whose_settings_make_no_sense_is_a_sentence() -> None:
    with pytest.raises(ModelError, match=r"ViTImageProcessor of this model cannot process a picture of 96 × 64 pixels"):
        processor_size(ViTImageProcessor(size=SQUARE, image_mean=[0.5] * 7, image_std=[0.5] * 7))


@pytest.mark.parametrize(
    "processor",
    [
        CLIPImageProcessor(size={"shortest_edge": 24}, do_center_crop=False),
        ViTImageProcessor(size=SQUARE, do_resize=False),
    ],
)
def test_a_processor_that_makes_several_sizes_is_refused(processor: Any) -> None:
    with pytest.raises(ModelError, match=r"several sizes \(.* pixels\).* --image-size"):
        processor_size(processor)


@pytest.mark.parametrize(
    "processor",
    [
        CLIPImageProcessor(size={"shortest_edge": 24}, do_center_crop=False),
        SegformerImageProcessor(size=SQUARE, do_resize=False),
    ],
)
def test_an_image_size_gives_one_size_to_a_processor_that_makes_several(tmp_path: Path, processor: Any) -> None:
    source = ModelSource("several", tmp_path, "folder")
    processor.save_pretrained(tmp_path)
    resized = load_processor(source, 32)
    assert processor_size(resized) == (32, 32)
    resized.save_pretrained(tmp_path)
    assert processor_size(load_processor(source)) == (32, 32)


@pytest.mark.parametrize("name", [name for name in PROCESSORS if name != "timm"])
def test_an_image_size_is_what_the_processor_then_makes(tmp_path: Path, name: str) -> None:
    PROCESSORS[name].save_pretrained(tmp_path)
    processor = load_processor(ModelSource(name, tmp_path, "folder"), 48)
    assert processor_size(processor)[0] == 48
    assert measure_colours(processor).order == measure_colours(PROCESSORS[name]).order


def test_an_image_size_that_a_processor_cannot_make_is_refused(tmp_path: Path) -> None:
    TextNetImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"TextNetImageProcessor of text cannot be made to give pictures of 50"):
        load_processor(ModelSource("text", tmp_path, "folder"), 50)


def test_a_processor_with_a_text_for_a_number_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 24}, "image_mean": "0.5"}'
    )
    with pytest.raises(ModelError, match=r"mage ?[pP]rocessor"):
        processor_size(load_processor(ModelSource("vit", tmp_path, "folder")))


def test_pictures_of_any_shape_make_one_batch() -> None:
    pictures = [noise(0, 90, 50), noise(1, 30, 61), noise(2, 1, 1)]
    together = preprocess(PROCESSOR, pictures)
    assert together.shape == (3, 3, 24, 24)
    alone = PROCESSOR(images=[pictures[1]], return_tensors="pt")["pixel_values"]
    assert torch.equal(together[1:2], alone)


def test_an_error_without_words_still_has_a_reason() -> None:
    assert reason_of(AssertionError()) == "AssertionError"
    assert reason_of(ValueError("\nfirst\nsecond")) == "first"
