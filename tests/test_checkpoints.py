"""What a training keeps: its weights come back bit for bit, its looks up to where it resumes."""

from pathlib import Path

import torch
from torch import nn

from tl_core.ml.checkpoints import best_step, keep_looks, kept_looks, load_best, save_best
from tl_core.ml.steering import Look


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4))
    layers[4].weight = layers[3].weight  # weights that are shared, as in language models
    return layers.to(memory_format=torch.channels_last)


def test_what_was_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    kept, other = network(0), network(1)
    save_best(kept, 7, tmp_path / "new folder")
    load_best(other, tmp_path / "new folder")
    for name, value in kept.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert other[4].weight is other[3].weight
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert best_step(tmp_path / "new folder") == 7
    assert [file.name for file in (tmp_path / "new folder").iterdir()] == ["best.safetensors"]


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert best_step(tmp_path) is None
    assert kept_looks(tmp_path, 100) == []


def test_a_process_that_resumes_looks_again_at_what_comes_after(tmp_path: Path) -> None:
    looks = [Look(0, 1 / 3, 1.5), Look(10, 0.5, float("inf")), Look(20, 0.9, 0.1)]
    keep_looks(looks, tmp_path)
    assert kept_looks(tmp_path, 19) == looks[:2]
    assert kept_looks(tmp_path, 20) == looks
