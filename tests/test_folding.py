"""Copies that only answer: the same answers, fewer batch norms, rounded weights; their model stays as it is."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import save_resnet, save_vit
from pictures import make_folder
from test_groups import CASES, make_backbone
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations

from tl_core.config import TrainConfig
from tl_core.ml import backbone_pass
from tl_core.ml import precision as precision_module
from tl_core.ml.attention import has_choice, is_plain
from tl_core.ml.backbone import Backbone, linear_head, load_backbone
from tl_core.ml.backbone_pass import backbone_features, encode_batch, exact_features
from tl_core.ml.folding import fold_batch_norms
from tl_core.ml.precision import PLAIN, Precision, choose_forward_precision, prepare, prepare_copy
from tl_core.recorder import Recorder
from tl_core.runs import create_run
from tl_core.settings import read_settings
from tl_core.sources import ModelSource, open_data

CPU = torch.device("cpu")
SIZE = (32, 32)
BF16 = Precision("bf16", True, "", plain_attention=True)
# Their norms compute an activation as well, or there are none.
NOTHING_TO_FOLD = {
    *("vit", "deit", "dinov2", "swin", "convnext", "convnextv2"),
    *("timm-inception_v3", "timm-mobilenetv4", "timm-test_vit", "timm-test_convnext"),
}


def unsettle(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights as if they had been trained: new ones change next to nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, _BatchNorm):
                norm.running_mean.normal_(0.0, 0.5, generator=generator)
                norm.running_var.uniform_(0.5, 2.0, generator=generator)
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def backbone_of(name: str) -> Backbone:
    backbone = make_backbone(name)
    unsettle(backbone.model)
    return backbone


def pictures(size: tuple[int, int], count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def plain_norms(model: nn.Module) -> int:
    return sum(type(module) is nn.BatchNorm2d for module in model.modules())


def head_of(copied: nn.Module, backbone: Backbone) -> nn.Linear:
    (name,) = [name for name, module in backbone.model.named_modules() if module is backbone.head]
    return copied.get_submodule(name)


def logits(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(pixel_values=pixels).logits


@pytest.mark.parametrize("name", CASES)
def test_features_are_the_same_without_batch_norms(name: str) -> None:
    backbone = backbone_of(name)
    folded, pixels = fold_batch_norms(backbone.model, backbone.input_size), pictures(backbone.input_size)
    expected = encode_batch(backbone.model, backbone.head, pixels, PLAIN)
    features = encode_batch(folded, head_of(folded, backbone), pixels, PLAIN)
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert plain_norms(folded) == 0
    assert (plain_norms(backbone.model) == 0) == (name in NOTHING_TO_FOLD)


@pytest.mark.parametrize("name", CASES)
def test_rounded_weights_give_the_bits_that_autocast_gives(name: str) -> None:
    backbone = backbone_of(name)
    folded, pixels = fold_batch_norms(backbone.model, backbone.input_size), pictures(backbone.input_size)
    for precision in (Precision("bf16", False, ""), BF16):
        prepared = prepare_copy(folded, backbone.input_size, precision)
        assert any(parameter.dtype == torch.bfloat16 for parameter in prepared.parameters())
        laid_out = pixels.contiguous(memory_format=precision.memory_format)
        features = encode_batch(prepared, head_of(prepared, backbone), laid_out, precision)
        prepare(folded, precision)
        expected = encode_batch(folded, head_of(folded, backbone), laid_out, precision)
        np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("precision", [PLAIN, Precision("fp32", True, ""), BF16])
@pytest.mark.parametrize("name", ["resnet-basic", "vit", "timm-test_resnet", "efficientnet"])
def test_the_model_stays_as_it_is(name: str, precision: Precision) -> None:
    backbone = backbone_of(name)
    model = backbone.model
    model.train()
    held = next(module for module in model.modules() if isinstance(module, nn.Conv2d)).eval()
    before = dict(model.named_parameters()) | dict(model.named_buffers())
    values = {at: (value.clone(), value.stride(), value.requires_grad) for at, value in before.items()}
    modules, attention, random_state = list(model.modules()), is_plain(model), torch.get_rng_state()
    prepared = prepare_copy(fold_batch_norms(model, backbone.input_size), backbone.input_size, precision)
    assert not any(module.training for module in prepared.modules())
    assert is_plain(prepared) == (precision.plain_attention if has_choice(model) else attention)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(model.modules()) == modules and is_plain(model) == attention
    assert [module for module in modules if not module.training] == [held]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    for at, value in (dict(model.named_parameters()) | dict(model.named_buffers())).items():
        assert value is before[at]
        assert torch.equal(value, values[at][0]) and (value.stride(), value.requires_grad) == values[at][1:]


def test_a_copy_shares_what_it_does_not_change() -> None:
    backbone = backbone_of("vit")
    copied = prepare_copy(fold_batch_norms(backbone.model, SIZE), SIZE, PLAIN)
    theirs = {id(parameter) for parameter in backbone.model.parameters()}
    assert {id(parameter) for parameter in copied.parameters()} == theirs
    assert not set(copied.modules()) & set(backbone.model.modules())


def test_what_a_model_keeps_of_its_gradients_does_not_keep_it_from_being_copied() -> None:
    tiny = Tiny(in_a_row)
    # copy.deepcopy refuses tensors with a gradient function
    tiny.kept, tiny.norm.kept = tiny.conv.weight.sum(), {"mean": tiny.norm.weight.mean()}
    tiny.second.kept = [tiny.norm.bias.sum()]
    folded = fold_batch_norms(tiny, SIZE)
    assert plain_norms(folded) == 1
    torch.testing.assert_close(logits(folded, pictures(SIZE)), logits(tiny, pictures(SIZE)))
    assert tiny.kept.grad_fn is not None


class Tiny(nn.Module):
    """A convolution, a norm and a classifier, with `between` to say what becomes of the first two."""

    def __init__(self, between: Callable[["Tiny", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)
        self.other, self.second = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.between = between
        unsettle(self)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.between(self, pixel_values).mean((2, 3))))


def in_a_row(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    return tiny.norm(tiny.conv(pixels)).relu()


def beside_the_norm(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    made = tiny.conv(pixels)
    return tiny.norm(made) + made


def into_two_norms(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    made = tiny.conv(pixels)
    return tiny.norm(made) + tiny.second(made)


def twice(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    return tiny.norm(tiny.conv(pixels)) + tiny.conv(pixels.flip(3))


def norm_twice(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    return tiny.norm(tiny.norm(tiny.conv(pixels)).relu())


def not_at_once(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    return tiny.norm(tiny.conv(pixels).relu())


def by_its_weight(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    return tiny.norm(tiny.conv(pixels)) * tiny.conv.weight.sum()


def by_the_norms_weight(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    return tiny.norm(tiny.conv(pixels)) * tiny.norm.weight.sum()


def shared_later(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    made = in_a_row(tiny, pixels)
    return tiny.second(tiny.other(made)) + tiny.other(made.flip(3))


def with_noise(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    return nn.functional.dropout(in_a_row(tiny, pixels), 0.5, training=True)


def test_what_is_shared_keeps_its_norm_and_the_others_lose_theirs() -> None:
    tiny = Tiny(shared_later)
    folded = fold_batch_norms(tiny, SIZE)
    assert isinstance(folded.norm, nn.Identity) and isinstance(folded.second, nn.BatchNorm2d)
    torch.testing.assert_close(logits(folded, pictures(SIZE)), logits(tiny, pictures(SIZE)))


def test_a_model_that_draws_at_random_takes_nothing_from_the_random_state() -> None:
    before = torch.get_rng_state()
    tiny = Tiny(with_noise)
    torch.set_rng_state(before)
    assert plain_norms(prepare_copy(fold_batch_norms(tiny, SIZE), SIZE, BF16)) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_a_norm_after_a_convolution_is_folded() -> None:
    tiny = Tiny(in_a_row)
    folded = fold_batch_norms(tiny, SIZE)
    assert isinstance(folded.norm, nn.Identity) and isinstance(folded.second, nn.BatchNorm2d)
    torch.testing.assert_close(logits(folded, pictures(SIZE)), logits(tiny, pictures(SIZE)))


@pytest.mark.parametrize(
    "between",
    [beside_the_norm, into_two_norms, twice, norm_twice, not_at_once, by_its_weight, by_the_norms_weight],
)
def test_what_folding_would_change_is_left_as_it_is(between: Callable[[Tiny, torch.Tensor], torch.Tensor]) -> None:
    tiny = Tiny(between)
    folded = fold_batch_norms(tiny, SIZE)
    assert plain_norms(folded) == 2
    assert torch.equal(logits(folded, pictures(SIZE)), logits(tiny, pictures(SIZE)))


@pytest.mark.parametrize("part", ["conv", "norm"])
def test_what_has_hooks_of_its_own_is_left_as_it_is(part: str) -> None:
    tiny = Tiny(in_a_row)
    tiny.get_submodule(part).register_forward_hook(lambda module, given, output: 2 * output)
    folded = fold_batch_norms(tiny, SIZE)
    assert plain_norms(folded) == 2
    assert torch.equal(logits(folded, pictures(SIZE)), logits(tiny, pictures(SIZE)))


def test_what_has_a_parametrization_is_left_as_it_is() -> None:
    tiny = Tiny(in_a_row)
    parametrizations.weight_norm(tiny.conv)
    prepared = prepare_copy(fold_batch_norms(tiny, SIZE), SIZE, BF16)
    assert plain_norms(prepared) == 2
    assert {parameter.dtype for parameter in prepared.conv.parameters()} == {torch.float32}
    assert prepared.head.weight.dtype == torch.bfloat16


def test_a_norm_that_keeps_no_statistics_is_left_as_it_is() -> None:
    tiny = Tiny(in_a_row)
    tiny.norm = nn.BatchNorm2d(8, track_running_stats=False)
    assert plain_norms(fold_batch_norms(tiny, SIZE)) == 2


def without_autocast(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return tiny.conv(pixels)


def with_its_weight(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
    return tiny.conv(pixels).float() * tiny.conv.weight.sum()


@pytest.mark.parametrize("between", [without_autocast, with_its_weight])
def test_weights_that_autocast_does_not_round_stay(between: Callable[[Tiny, torch.Tensor], torch.Tensor]) -> None:
    prepared = prepare_copy(Tiny(between), SIZE, BF16)
    assert {parameter.dtype for parameter in prepared.parameters()} == {torch.float32}


def test_tied_weights_are_rounded_for_those_alone_that_autocast_rounds_them_for() -> None:
    def tied(tiny: Tiny, pixels: torch.Tensor) -> torch.Tensor:
        return tiny.conv(pixels).float() * tiny.gain.sum()

    tiny = Tiny(tied)
    tiny.gain = tiny.conv.weight
    prepared = prepare_copy(tiny, SIZE, BF16)
    assert prepared.conv.weight.dtype == torch.bfloat16 and prepared.gain.dtype == torch.float32
    with BF16.autocast(CPU):
        assert torch.equal(logits(prepared, pictures(SIZE)), logits(tiny, pictures(SIZE)))


@pytest.mark.parametrize("save", [save_resnet, save_vit])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_pass_computes_with_such_a_copy(
    dtype: str, save: Callable[[Path], ModelSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[nn.Module, nn.Module]] = []

    def watched(model: nn.Module, head: nn.Linear, pixels: torch.Tensor, precision: Precision) -> np.ndarray:
        seen.append((model, head))
        return encode_batch(model, head, pixels, precision)

    monkeypatch.setattr(backbone_pass, "encode_batch", watched)
    photos = str(make_folder(tmp_path / "photos", {"a": 5, "b": 5}))
    settings = read_settings()
    recorder = Recorder(create_run(TrainConfig.parse({"data": photos}), settings))
    files = open_data(photos, settings).pictures
    backbone = load_backbone(save(tmp_path / "model"), ["a", "b"])
    model, head = unsettle(backbone.model), linear_head(backbone)
    attention = is_plain(model)
    precision = Precision(dtype, True, "", plain_attention=True)
    features = backbone_features(backbone, head, files, precision, settings, recorder)
    for copied, its_head in seen:
        assert copied is not model and its_head is not head and its_head in copied.modules()
        assert plain_norms(copied) == 0
        assert (its_head.weight.dtype == torch.bfloat16) == (dtype == "bf16")
    seen.clear()
    exact = exact_features(backbone, head, files, settings, recorder)
    assert seen and all(plain_norms(copied) == plain_norms(model) for copied, _ in seen)
    assert all(value.is_contiguous() for value in model.parameters()) and is_plain(model) == attention
    np.testing.assert_allclose(features, exact, rtol=0, atol=(1e-4 if dtype == "fp32" else 0.05) * np.abs(exact).max())


LAST = " in the channels-last layout"


def test_what_is_measured_is_what_the_pass_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "LONG_FORWARD_SECONDS", 0.0)
    monkeypatch.setattr(precision_module, "supports_bfloat16", lambda device: True)
    model = backbone_of("resnet-basic").model
    measured: list[tuple[str, int]] = []
    make = precision_module.forward_step

    def watched(folded: nn.Module, size: tuple[int, int], precision: Precision) -> precision_module.Step:
        measured.append((precision.label, plain_norms(folded)))
        return make(folded, size, precision)

    monkeypatch.setattr(precision_module, "forward_step", watched)
    choose_forward_precision("auto", model, SIZE, 10**9, CPU)
    labels = [label for label, _ in measured]
    assert labels == [f"fp32{LAST}", f"bf16{LAST}", "bf16"]  # fp32 is not measured a second time
    assert {norms for _, norms in measured} == {0}
