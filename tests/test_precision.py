"""Which number format and layout is chosen, from injected seconds; and that measuring leaves everything alone."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from tl_core.errors import ConfigError
from tl_core.ml import precision as module
from tl_core.ml.machine import supports_bfloat16
from tl_core.ml.precision import (
    MIN_STRIDED_CHANNELS,
    PLAIN,
    Precision,
    choose_fastest,
    choose_forward_precision,
    choose_training_precision,
    formats_compared,
    measure_formats,
)
from tl_core.ml.strategies import hold_frozen

CPU = torch.device("cpu")
BF16, BF16_LAST = Precision("bf16", False, ""), Precision("bf16", True, "")
FP32_LAST = Precision("fp32", True, "")


def resnet(narrowest: int = 16) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"embedding_size": narrowest, "hidden_sizes": [narrowest, 16], "depths": [2, 2]}
    return ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic", num_labels=3)).eval()


def vit(**values: float) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=16, num_labels=3, **values)).eval()


@pytest.mark.parametrize(
    ("timed", "dtype", "channels_last", "words"),
    [
        ({PLAIN: 3.0, BF16_LAST: 1.0, BF16: 2.0, FP32_LAST: 2.5}, "bf16", True, "3.0 × as fast"),
        ({PLAIN: 2.0, BF16: 1.0}, "bf16", False, "2.0 × as fast"),
        ({PLAIN: 3.0, BF16_LAST: 1.1, BF16: 1.0}, "bf16", True, "2.7 × as fast"),
        ({PLAIN: 3.0, BF16_LAST: 1.5, BF16: 1.0}, "bf16", False, "3.0 × as fast"),
        ({PLAIN: 1.0, BF16_LAST: 0.88, BF16: 0.77}, "bf16", False, "1.3 × as fast"),
        ({PLAIN: 1.0, BF16: 0.9}, "fp32", False, "bf16 is 1.1 × as fast, which does not pay"),
        ({PLAIN: 1.0, BF16: 5.0}, "fp32", False, "bf16 is 0.2 × as fast, which does not pay"),
        ({PLAIN: 3.0, BF16_LAST: 1.9, BF16: 2.0, FP32_LAST: 2.0}, "fp32", True, "1.5 × as fast"),
        ({PLAIN: 1.0, BF16_LAST: 0.99, FP32_LAST: 0.98}, "fp32", False, "channels-last layout is 1.0 × as fast"),
        ({PLAIN: 90.0}, "fp32", False, "too slow here to try"),
    ],
)
def test_the_fastest_is_taken_where_it_pays(
    timed: dict[Precision, float], dtype: str, channels_last: bool, words: str
) -> None:
    chosen = choose_fastest(timed, "trains")
    assert (chosen.dtype, chosen.channels_last) == (dtype, channels_last)
    assert words in chosen.reason


def test_steps_are_on_as_many_pictures_as_there_is_time_for() -> None:
    asked: list[int] = []

    def prepare(seconds_per_picture: float):
        def step(images: int) -> float:
            asked.append(images)
            return images * seconds_per_picture

        return lambda _: step

    measure_formats([PLAIN, BF16], prepare(1e-6), 1_000.0)
    assert max(asked) == 16
    asked.clear()
    measure_formats([PLAIN, BF16], prepare(25.0), 1_000.0)  # 1,000 s / (2 formats × 4 steps) / 25 s
    assert max(asked) == 5
    asked.clear()
    measure_formats([PLAIN, BF16], prepare(1e6), 1_000.0)
    assert set(asked) == {2}


def test_what_is_clearly_slower_is_not_timed_again() -> None:
    asked: list[str] = []

    def prepare(precision: Precision):
        def step(images: int) -> float:
            asked.append(precision.label)
            return images * {PLAIN: 10.0, BF16: 30.0, BF16_LAST: 12.0}[precision]

        return step

    assert len(measure_formats([PLAIN, BF16, BF16_LAST], prepare, 100.0)) == 3
    assert asked.count(BF16.label) == 2  # once to warm up, once timed
    assert asked.count(BF16_LAST.label) > 2


def test_without_time_only_plain_fp32_is_measured() -> None:
    assert list(measure_formats([PLAIN, BF16], lambda _: lambda images: 1.0, 0.0)) == [PLAIN]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[Precision]:
    """The formats that were measured, in each of which a step took a second."""
    formats: list[Precision] = []

    def measure(asked: list[Precision], *_: object) -> dict[Precision, float]:
        formats.extend(asked)
        return dict.fromkeys(asked, 1.0)

    monkeypatch.setattr(module, "measure_formats", measure)
    monkeypatch.setattr(module, "LONG_FORWARD_SECONDS", 0.0)
    return formats


def test_a_training_compares_layouts_and_answers_only_number_formats(
    compared: list[Precision], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "supports_bfloat16", lambda device: True)
    choose_training_precision("auto", resnet(), (32, 32), 3, CPU)
    assert compared == [PLAIN, BF16_LAST, BF16, FP32_LAST]
    assert formats_compared("auto", resnet(), CPU, training=True) == 4
    compared.clear()
    assert choose_forward_precision("auto", resnet(), (32, 32), 1_000_000, CPU).channels_last
    assert compared == [FP32_LAST, BF16_LAST, BF16]
    assert formats_compared("auto", resnet(), CPU, training=False) == 3


def test_fewer_bits_are_not_measured_where_the_processor_does_not_have_them(
    compared: list[Precision], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "supports_bfloat16", lambda device: False)
    choose_training_precision("auto", resnet(), (32, 32), 3, CPU)
    assert compared == [PLAIN, FP32_LAST]
    answering = choose_forward_precision("auto", resnet(), (32, 32), 1_000_000, CPU)
    alone = [
        choose_training_precision("auto", vit(), (32, 32), 3, CPU),
        choose_forward_precision("auto", vit(), (32, 32), 1_000_000, CPU),
    ]
    assert answering.label == FP32_LAST.label and [each.label for each in alone] == [PLAIN.label] * 2
    assert {each.reason for each in (answering, *alone)} == {"fewer bits are no faster on this processor"}
    assert len(compared) == 2
    assert formats_compared("auto", resnet(), CPU, training=True) == 2
    assert formats_compared("auto", resnet(), CPU, training=False) == 0
    assert formats_compared("bf16", resnet(), CPU, training=True) == 0
    assert choose_training_precision("bf16", resnet(), (32, 32), 3, CPU).label == BF16_LAST.label


def test_whether_there_is_bfloat16_is_asked_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (True, False):
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: answer))  # noqa: B023
        assert supports_bfloat16(CPU) == answer
        assert supports_bfloat16(torch.device("cuda"))
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())  # as in a torch that was built without oneDNN
    assert supports_bfloat16(CPU)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN")
def test_torch_still_answers_whether_there_is_bfloat16() -> None:
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() in (True, False)


@pytest.mark.parametrize("wanted", ["auto", "fp32"])
def test_answers_in_fp32_are_computed_in_the_layout_that_is_faster_for_them(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "supports_bfloat16", lambda device: False)
    assert choose_forward_precision(wanted, resnet(), (32, 32), 1, CPU).channels_last
    assert not choose_forward_precision(wanted, vit(), (32, 32), 1, CPU).channels_last


@pytest.mark.parametrize("direction", ["training", "forward"])
def test_measuring_leaves_model_and_random_state_alone(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG_FORWARD_SECONDS", 0.0)
    monkeypatch.setattr(module, "supports_bfloat16", lambda device: True)
    model = resnet()
    model.resnet.embedder.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if direction == "training":
            chosen = choose_training_precision("auto", model, (32, 32), 3, CPU)
        else:
            chosen = choose_forward_precision("auto", model, (32, 32), 1_000_000, CPU)
    assert chosen.dtype in ("fp32", "bf16")
    assert "measured" in chosen.reason
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(part.training for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.resnet.embedder.parameters()].count(True) == 0
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name


def test_what_is_held_in_eval_mode_is_measured_so() -> None:
    model = resnet()
    seen: set[tuple[bool, bool]] = set()
    first = model.resnet.encoder.stages[0]
    hold_frozen(model, [first])
    first.register_forward_hook(lambda stage, *_: seen.add((stage.training, model.training)))
    choose_training_precision("auto", model, (32, 32), 3, CPU)
    assert seen == {(False, True)}


def test_a_short_job_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "supports_bfloat16", lambda device: True)
    chosen = choose_forward_precision("auto", resnet(), (32, 32), 1, CPU)
    assert chosen.dtype == "fp32"
    assert "too little to gain" in chosen.reason


def test_channels_last_is_for_networks_of_convolutions() -> None:
    assert choose_training_precision("bf16", resnet(), (32, 32), 3, CPU).channels_last
    assert choose_forward_precision("bf16", resnet(), (32, 32), 1, CPU).channels_last
    assert not choose_training_precision("bf16", vit(), (32, 32), 3, CPU).channels_last
    assert not choose_training_precision("fp32", resnet(), (32, 32), 3, CPU).channels_last


def test_narrow_strided_convolutions_are_not_trained_in_channels_last() -> None:
    narrow = resnet(narrowest=MIN_STRIDED_CHANNELS // 2)
    assert not choose_training_precision("bf16", narrow, (384, 384), 3, CPU).channels_last
    assert choose_forward_precision("bf16", narrow, (384, 384), 1, CPU).channels_last


def test_half_precision_floats_need_a_gpu() -> None:
    for choose in (choose_training_precision, choose_forward_precision):
        with pytest.raises(ConfigError, match="needs a GPU"):
            choose("fp16", resnet(), (32, 32), 3, CPU)


def test_other_accelerators_get_fp32() -> None:
    chosen = choose_training_precision("auto", resnet(), (32, 32), 3, torch.device("mps"))
    assert (chosen.dtype, chosen.channels_last) == ("fp32", False)
