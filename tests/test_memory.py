"""What a training takes of memory, counted on real models; and the batches that follow from it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    ViTConfig,
    ViTForImageClassification,
)

from tl_core.errors import JobError
from tl_core.ml.backbone import make_model
from tl_core.ml.memory import (
    BATCH_TOLERANCE,
    OVERHEAD,
    USABLE_SHARE,
    TrainingMemory,
    available_memory,
    cgroup_memory,
    checkpoint_activations,
    fit_batch,
    largest_batch,
    probe_cuda_batch,
    training_bytes,
)
from tl_core.ml.precision import PLAIN, Precision
from tl_core.ml.strategies import hold_frozen

CPU = torch.device("cpu")
BF16 = Precision("bf16", False, "")
SIZE = (32, 32)
FLOAT = 4


def vit(**values: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 64}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=4, num_labels=3, **values))


def convnext() -> nn.Module:
    torch.manual_seed(0)
    return ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 2, 1], num_labels=3)
    )


def resnet() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 16], "depths": [1, 1]}
    return ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic", num_labels=3))


def timm_model(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    settings = timm.get_pretrained_cfg(architecture).to_dict()
    fields = {"architecture": architecture, "label_names": ["a", "b", "c"], "pretrained_cfg": settings}
    return make_model(TimmWrapperConfig.from_dict({**fields, "num_classes": 3}))


def timm_vit() -> nn.Module:
    return timm_model("test_vit")


def saved_for_backward(model: nn.Module, images: int, size: tuple[int, int]) -> int:
    """Bytes that autograd itself says it keeps, each storage once, without the model's own."""
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.train()(pixel_values=torch.rand(images, 3, *size)).logits.sum()
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(("make", "side"), [(resnet, 64), (convnext, 64), (vit, 32), (timm_vit, 160)])
def test_bytes_of_an_image_are_what_autograd_keeps_and_little_more(make: Callable[[], nn.Module], side: int) -> None:
    model = make()
    counted = training_bytes(model, (side, side), 3, PLAIN).per_image
    kept = saved_for_backward(model, 3, (side, side)) - saved_for_backward(model, 2, (side, side))
    assert 0.98 * kept <= counted <= 1.25 * kept


def test_fixed_bytes_are_weights_gradients_and_moments_of_what_trains() -> None:
    model = vit()
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert training_bytes(model, SIZE, 3, PLAIN).fixed == pytest.approx(4 * FLOAT * weights, rel=0.02)
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    head = sum(parameter.numel() for parameter in model.classifier.parameters())
    assert training_bytes(model, SIZE, 3, PLAIN).fixed == pytest.approx(FLOAT * (weights + 3 * head), rel=0.02)


def test_frozen_blocks_keep_nothing() -> None:
    model = vit()
    everything = training_bytes(model, SIZE, 3, PLAIN)
    for block in model.vit.layers[:-1]:
        block.requires_grad_(False)
    model.vit.embeddings.requires_grad_(False)
    last = training_bytes(model, SIZE, 3, PLAIN)
    assert last.per_image < 0.4 * everything.per_image
    assert last.fixed < 0.6 * everything.fixed


def test_bf16_halves_what_is_kept_and_copies_the_weights() -> None:
    model = vit()
    full, half = training_bytes(model, SIZE, 3, PLAIN), training_bytes(model, SIZE, 3, BF16)
    assert half.per_image < 0.9 * full.per_image
    assert half.fixed > full.fixed


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_everything_as_it_was(training: bool) -> None:
    model = resnet().train(training)
    model.resnet.embedder.requires_grad_(False)
    model.resnet.embedder.eval()
    modes = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    training_bytes(model, SIZE, 3, Precision("bf16", True, ""))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(value.is_contiguous() for value in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


# ------------------------------------------------------------------ memory that is there


def test_a_cpu_has_some_memory_and_no_more_than_its_groups_leave() -> None:
    available = available_memory(CPU)
    assert available > 1 << 20
    left = cgroup_memory()
    assert left is None or available <= left + (1 << 30)  # other processes move between the two readings


def write_group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_cgroup_version_2_counts_every_group_above(tmp_path: Path) -> None:
    groups, process = tmp_path / "cgroup", tmp_path / "self"
    process.write_text("0::/outer/inner\n")
    write_group(groups / "outer", memory__max=1000, memory__current=700, memory__stat="anon 400\ninactive_file 100")
    write_group(groups / "outer/inner", memory__max="max", memory__current=600, memory__stat="inactive_file 50")
    assert cgroup_memory(groups, process) == 400
    write_group(groups / "outer/inner", memory__max=800)
    assert cgroup_memory(groups, process) == 250


def test_cgroup_version_1_in_a_container_is_found_at_the_mounted_root(tmp_path: Path) -> None:
    groups, process = tmp_path / "cgroup", tmp_path / "self"
    process.write_text("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n")
    stat = "cache 300\ntotal_inactive_file 200"
    write_group(groups / "memory", memory__limit_in_bytes=2000, memory__usage_in_bytes=900, memory__stat=stat)
    assert cgroup_memory(groups, process) == 1300


def test_no_limit_and_no_groups_are_no_limit(tmp_path: Path) -> None:
    groups, process = tmp_path / "cgroup", tmp_path / "self"
    assert cgroup_memory(groups, process) is None
    process.write_text("4:memory:/\n0::/\n")
    unlimited = 9223372036854771712  # what version 1 says for none
    write_group(groups / "memory", memory__limit_in_bytes=unlimited, memory__usage_in_bytes=1, memory__stat="")
    assert cgroup_memory(groups, process) is None


# ------------------------------------------------------------------ batches


def test_the_largest_batch_leaves_a_share_free() -> None:
    memory = TrainingMemory(fixed=1000, per_image=100)
    for available in (0, 1000, 2000, 5000, 100_000):
        batch = largest_batch(memory, available)
        assert batch >= 0
        if batch:
            assert OVERHEAD * (1000 + 100 * batch) <= USABLE_SHARE * available
        assert OVERHEAD * (1000 + 100 * (batch + 1)) > USABLE_SHARE * available


def allowed_batches(images: int, limit: int) -> list[int]:
    return [micro for micro in range(2, limit + 1) if images == 1 or images % micro != 1]


@pytest.mark.parametrize("limit", range(2, 15))
def test_every_small_batch_keeps_the_rules_and_none_is_nearer(limit: int) -> None:
    for images in range(1, 75):
        micros = allowed_batches(images, limit)
        for wanted in range(2, 40):
            if not micros:
                with pytest.raises(JobError, match="add an image"):
                    fit_batch(wanted, images, limit)
                continue
            effective, micro, accumulation = fit_batch(wanted, images, limit)
            assert effective == micro * accumulation >= 2
            assert micro in micros
            nearest = min(abs(m * a - wanted) for m in micros for a in range(1, wanted + 1))
            assert abs(effective - wanted) <= max(nearest, BATCH_TOLERANCE * wanted), (wanted, images)
            if nearest <= BATCH_TOLERANCE * wanted:
                fewest = min(
                    a for m in micros for a in range(1, wanted + 1) if abs(m * a - wanted) <= BATCH_TOLERANCE * wanted
                )
                assert accumulation == fewest, (wanted, images)


@pytest.mark.parametrize(
    ("wanted", "images", "limit", "batch"),
    [
        (128, 1000, 10**9, (128, 128, 1)),
        (128, 1000, 100, (128, 64, 2)),
        (134, 1000, 66, (132, 66, 2)),  # not 67 micro-batches of 2
        (16, 13, 64, (16, 16, 1)),
        (12, 13, 64, (13, 13, 1)),
        (2, 13, 64, (5, 5, 1)),  # 2, 3 and 4 leave one image over
        (1, 1, 64, (2, 2, 1)),
    ],
)
def test_batches_as_a_person_would_choose_them(wanted: int, images: int, limit: int, batch: tuple[int, ...]) -> None:
    assert fit_batch(wanted, images, limit) == batch


@pytest.mark.parametrize("limit", [0, 1])
def test_too_little_memory_for_two_images_is_said(limit: int) -> None:
    with pytest.raises(JobError, match=r"too little free memory.*--image-size"):
        fit_batch(32, 100, limit)


class Narrow(nn.Module):
    """Runs out of memory above `limit` pictures, as a GPU would."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.layer = nn.Linear(3, 2)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        if len(pixel_values) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return SimpleNamespace(logits=self.layer(pixel_values.mean((2, 3))))


@pytest.mark.parametrize(("limit", "begins", "found"), [(100, 64, 64), (20, 64, 16), (3, 64, 2), (2, 3, 2)])
def test_a_probe_halves_until_a_step_fits(limit: int, begins: int, found: int) -> None:
    assert probe_cuda_batch(Narrow(limit), (8, 8), 2, PLAIN, begins) == found


def test_a_probe_says_when_nothing_fits() -> None:
    with pytest.raises(JobError, match="the GPU has too little free memory"):
        probe_cuda_batch(Narrow(1), (8, 8), 2, PLAIN, 64)


@pytest.mark.gpu
def test_a_probe_finds_a_batch_on_a_real_gpu() -> None:
    device = torch.device("cuda")
    model = vit().to(device)
    precision = Precision("bf16", False, "")
    assert available_memory(device) > 0
    assert training_bytes(model, SIZE, 3, precision).per_image > 0
    assert probe_cuda_batch(model, SIZE, 3, precision, 64) == 64
    ballast = torch.empty(max(0, torch.cuda.mem_get_info()[0] - (256 << 20)), dtype=torch.uint8, device=device)
    found = probe_cuda_batch(model, SIZE, 3, precision, 1 << 16)
    assert 2 <= found < 1 << 16
    del ballast


# ------------------------------------------------------------------ activation checkpointing


def gradients(model: nn.Module, side: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()
    pixels = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(7)  # for dropout
    model(pixel_values=pixels, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def frozen_vit() -> nn.Module:
    model = vit(hidden_dropout_prob=0.3)
    early = [model.vit.embeddings, *model.vit.layers[:2]]
    for part in early:
        part.requires_grad_(False)
    hold_frozen(model, early)
    return model


@pytest.mark.parametrize(
    ("make", "side", "less"),
    [
        (vit, 32, 0.5),
        (lambda: vit(hidden_dropout_prob=0.3), 32, 0.5),
        (frozen_vit, 32, 0.6),
        (timm_vit, 160, 0.5),
        (lambda: timm_model("test_convnext"), 64, 0.9),
    ],
)
def test_checkpointing_takes_less_memory_for_the_same_gradients(make: Any, side: int, less: float) -> None:
    model = make()
    before, kept = gradients(model, side), training_bytes(model, (side, side), 3, PLAIN)
    assert checkpoint_activations(model)
    after, checkpointed = gradients(model, side), training_bytes(model, (side, side), 3, PLAIN)
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, msg=name)
    assert checkpointed.per_image < less * kept.per_image
    assert checkpointed.fixed == pytest.approx(kept.fixed, rel=0.05)


@pytest.mark.parametrize("make", [resnet, convnext, lambda: timm_model("test_resnet")])
def test_checkpointing_is_left_off_where_it_would_not_be_right(make: Callable[[], nn.Module]) -> None:
    model = make()
    before = training_bytes(model, (64, 64), 3, PLAIN)
    assert not checkpoint_activations(model)
    assert training_bytes(model, (64, 64), 3, PLAIN) == before
