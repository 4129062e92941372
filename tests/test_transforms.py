"""Training images: a function of seed, epoch and index, in the very numbers that the checkpoint's processor makes."""

import pickle
from pathlib import Path
from typing import Any

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

every_processor = pytest.mark.parametrize("name", PROCESSORS)


def noise(seed: int, width: int = 40, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@every_processor
def test_the_input_size_is_what_the_processor_makes(name: str) -> None:
    processor = PROCESSORS[name]
    assert processor_size(processor) == SIZES.get(name, (24, 24))
    made = processor(images=[noise(0, 90, 50)], return_tensors="pt")["pixel_values"]
    assert tuple(made.shape[2:]) == processor_size(processor)


@every_processor
@pytest.mark.parametrize("augment", ["none", "crop", "crop-flip"])
def test_training_gives_a_colour_the_numbers_that_the_processor_gives_it(name: str, augment: str) -> None:
    processor = PROCESSORS[name]
    height, width = processor_size(processor)
    picture = Image.new("RGB", (width, height), (10, 200, 90))
    (pixels,) = TrainTransform(processor, augment, 0)([picture], 0, [0])
    ours = Normalisation(processor)(pixels.unsqueeze(0))
    theirs = processor(images=[picture], return_tensors="pt")["pixel_values"].float()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@every_processor
def test_without_augmentation_training_sees_what_evaluation_sees(name: str) -> None:
    processor = PROCESSORS[name]
    height, width = processor_size(processor)
    rounding = 0.5 * Normalisation(processor).scale.abs().max().item()
    for picture in (noise(1, width, height), noise(2, 90, 50)):
        (pixels,) = TrainTransform(processor, "none", 0)([picture], 0, [0])
        ours = Normalisation(processor)(pixels.unsqueeze(0))
        theirs = processor(images=[picture], return_tensors="pt")["pixel_values"].float()
        assert (ours - theirs).abs().max() <= 1.01 * rounding


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


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_a_loading_process_can_be_sent_the_transform(augment: str) -> None:
    transform = TrainTransform(PROCESSOR, augment, 0)
    sent = pickle.loads(pickle.dumps(transform))
    assert torch.equal(sent([noise(0)], 0, [0])[0], transform([noise(0)], 0, [0])[0])


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


def test_crops_never_mirror() -> None:
    half = np.zeros((40, 40, 3), np.uint8)
    half[:, :20] = 255
    transform = TrainTransform(PROCESSOR, "crop", 0)
    for pixels in transform([Image.fromarray(half)] * 50, 0, list(range(50))):
        assert pixels[0, :, 0].float().mean() >= pixels[0, :, -1].float().mean()


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
