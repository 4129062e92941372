"""Attention in the two ways that transformers has for it: the same answers, and the model is left as it was."""

from pathlib import Path

import pytest
import torch
from models import save_vit
from pictures import make_folder
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

import tl_core
from tl_core.ml.attention import FUSED, has_choice, is_plain, use_attention
from tl_core.ml.precision import PLAIN, choose_training_precision, measure_formats, prepare, rehearse
from tl_core.runs import Run

CPU = torch.device("cpu")


@pytest.fixture
def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=3)).eval()


def test_both_ways_give_the_same_but_for_rounding(vit: ViTForImageClassification) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert has_choice(vit) and not is_plain(vit)
    with torch.no_grad():
        fused = vit(pixel_values=pixels).logits
        use_attention(vit, plain=True)
        assert is_plain(vit)
        plain = vit(pixel_values=pixels).logits
    torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-5)
    use_attention(vit, plain=False)
    assert vit.config._attn_implementation == FUSED


def test_a_model_without_attention_has_no_choice() -> None:
    resnet = ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    )
    for model in (resnet, nn.Linear(2, 2)):
        assert not has_choice(model)
        use_attention(model, plain=True)
    assert resnet.config._attn_implementation != FUSED


def test_each_format_is_measured_with_its_own_attention(vit: ViTForImageClassification) -> None:
    seen = {}
    chosen = choose_training_precision("bf16", vit, (32, 32), 3, CPU)
    assert chosen.plain_attention and "plain attention" in chosen.label

    def look(precision: object) -> object:
        def step(images: int) -> float:
            rehearsal = rehearse(vit, (32, 32), precision)
            with rehearsal.in_training():
                seen[precision] = is_plain(vit)
                rehearsal.loss(rehearsal.pictures(images), 3).backward()
            assert not is_plain(vit)
            return 1.0

        return step

    measure_formats([PLAIN, chosen], look, 20.0)
    assert seen == {PLAIN: False, chosen: True}


def test_a_prepared_model_can_be_set_back(vit: ViTForImageClassification) -> None:
    chosen = choose_training_precision("bf16", vit, (32, 32), 3, CPU)
    prepare(vit, chosen)
    assert is_plain(vit)
    prepare(vit, PLAIN)
    assert not is_plain(vit)


def test_automatic_choice_compares_both_for_a_vit_and_neither_for_fp32_alone(
    vit: ViTForImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def note(formats: list[object], *rest: object) -> dict[object, float]:
        compared.extend(formats)
        return {PLAIN: 1.0}

    monkeypatch.setattr("tl_core.ml.precision.measure_formats", note)
    monkeypatch.setattr("tl_core.ml.precision.supports_bfloat16", lambda device: True)
    choose_training_precision("auto", vit, (32, 32), 3, CPU)
    assert [(each.dtype, each.plain_attention) for each in compared] == [
        ("fp32", False),
        ("bf16", True),
        ("bf16", False),
    ]


def test_a_training_in_bf16_says_which_attention_it_uses(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "photos", {"a": 10, "b": 10})
    report = tl_core.train(
        data=str(data), model=str(save_vit(tmp_path / "v").path), strategy="full", max_steps=2, precision="bf16"
    )
    log = Run(Path(report["run_dir"])).log_path.read_text(encoding="utf-8")
    assert "training in bf16 with plain attention: as asked" in log
