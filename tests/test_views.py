"""Varied versions of pictures for a frozen head: what they are, that they are kept, and that they judge nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import save_resnet
from pictures import make_folder

import tl_core
from tl_core.config import TrainConfig
from tl_core.errors import ConfigError
from tl_core.images.intake import open_collection
from tl_core.images.splits import Division
from tl_core.ml.head_fitting import HeadFitting
from tl_core.ml.preprocessing import preprocess
from tl_core.ml.views import View, ViewReader, views_of
from tl_core.recorder import Recorder
from tl_core.runs import Run
from tl_core.settings import Settings

SIZE = (32, 32)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "photos", {"a": 12, "b": 12}, size=(64, 48))


def test_a_version_follows_from_content_and_number_alone(photos: Path, settings: Settings, tmp_path: Path) -> None:
    first, second = open_collection(str(photos), settings).pictures[:2]
    processor = load_processor(tmp_path)

    def made(*views: View, mirror: bool = False) -> torch.Tensor:
        reader = ViewReader(processor, SIZE, settings.max_pixels, mirror=mirror)
        return reader.vary([reader.read(view) for view in views])

    together = made(View(first, 1), View(second, 1), View(first, 2))
    assert together.shape == (3, 3, *SIZE) and together.dtype == torch.float32
    assert torch.equal(together[2], made(View(first, 2))[0])
    assert torch.equal(together[0], made(View(replace(first, name="elsewhere", label="b"), 1))[0])
    assert not torch.equal(together[0], together[2])
    many = [View(first, number) for number in range(1, 9)]
    assert not torch.equal(made(*many), made(*many, mirror=True))
    as_it_is = preprocess(processor, [ViewReader(processor, SIZE, settings.max_pixels, mirror=False).read(many[0])[1]])
    assert (made(*many).mean() - as_it_is.mean()).abs() < 0.5  # the same colours, as the processor makes them


def load_processor(folder: Path) -> object:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(save_resnet(folder / "model").path)


def test_versions_are_named_by_their_picture_and_number(photos: Path, settings: Settings) -> None:
    pictures = open_collection(str(photos), settings).pictures[:2]
    views = views_of(pictures, 2)
    assert [(view.picture.name, view.number) for view in views] == [
        (picture.name, number) for picture in pictures for number in (1, 2)
    ]
    assert len({view.digest for view in views}) == 4 and views_of(pictures, 0) == []


def fitting(views: int, tmp_path: Path, **options: object) -> HeadFitting:
    random = np.random.default_rng(0)
    targets = np.arange(30) % 3
    features = (np.eye(3)[targets] + 0.1 * random.normal(size=(30, 3))).astype(np.float32)
    varied = np.repeat(features[:, None], views, axis=1)
    varied[:, :, 0] += 5 * np.arange(1, views + 1, dtype=np.float32)
    config = TrainConfig.parse({"data": "?", **options})
    run = Run(tmp_path / "run")
    run.dir.mkdir(exist_ok=True)
    return HeadFitting(features, targets, range(30), 3, config, Recorder(run), varied)


def test_a_head_learns_from_versions_beside_their_pictures(tmp_path: Path) -> None:
    heads = fitting(2, tmp_path)
    features, targets = heads._taught([4, 7])
    assert features.shape == (6, 3) and targets.tolist() == [1, 1, 1, 1, 1, 1]
    assert np.allclose(features[2:4] - features[0], [[5, 0, 0], [10, 0, 0]], atol=1e-5)
    assert np.allclose(features[4:] - features[1], [[5, 0, 0], [10, 0, 0]], atol=1e-5)
    for taught, judged in heads._inner_folds(list(range(30))):
        assert len(judged) and judged.max() < 30  # pictures as they are
        own = {row for row in taught.tolist() if row < 30}
        assert own.isdisjoint(judged.tolist()) and len(taught) == 3 * len(own)
        assert {(row - 30) // 2 for row in taught.tolist() if row >= 30} == own


@pytest.mark.parametrize("options", [{}, {"head_solver": "trainer", "max_steps": 300}], ids=["exact", "by steps"])
def test_both_ways_to_fit_learn_from_versions(tmp_path: Path, options: dict[str, object]) -> None:
    division = Division(list(range(20)), list(range(20, 25)), list(range(25, 30)))

    def right_of_versions(heads: HeadFitting) -> float:
        fitted = heads.hold_out(division)
        assert fitted.tested == division.test and fitted.probabilities.shape == (5, 3)
        versions = fitting(2, tmp_path).varied[division.test].reshape(-1, 3)
        return float((fitted.head.logits(versions).argmax(1) == np.repeat(heads.targets[division.test], 2)).mean())

    assert right_of_versions(fitting(0, tmp_path, **options)) < 0.5  # it looks where versions differ
    heads = fitting(2, tmp_path, **options)
    assert right_of_versions(heads) > 0.8
    folds = heads.cross_validate(Division(list(range(30)), [], [], uses_folds=True))
    assert sorted(folds.tested) == list(range(30))


def test_a_run_with_versions_computes_each_once(photos: Path, tmp_path: Path) -> None:
    model = str(save_resnet(tmp_path / "model").path)
    first = tl_core.train(data=str(photos), model=model, views=3)
    events = [event for event in Run(Path(first["run_dir"])).events() if event.get("name", "").endswith("versions")]
    assert len(events) == 1 and first["metrics"]["images"] == 24
    plan = {"data": str(photos), "model": model, "views": 4}
    assert "and 24 varied versions" in tl_core.preview(plan)["seconds_reason"]  # those of the fourth
    assert "varied" not in tl_core.preview({**plan, "views": 3})["seconds_reason"]
    again = tl_core.train(data=str(photos), model=model, views=3)
    assert again["metrics"]["accuracy"] == first["metrics"]["accuracy"]
    assert "versions" not in tl_core.train(data=str(photos), model=model)["command"]


def test_versions_belong_to_the_frozen_strategy() -> None:
    with pytest.raises(ConfigError, match="--views belongs to --strategy frozen"):
        TrainConfig.parse({"data": "?", "strategy": "full", "views": 4})
    with pytest.raises(ConfigError, match="--mirror cannot be used with --strategy frozen"):
        TrainConfig.parse({"data": "?", "mirror": "yes"})
    assert TrainConfig.parse({"data": "?", "mirror": "yes", "views": 4}).views == 4
    chosen = TrainConfig.parse({"data": "?", "strategy": "auto", "views": 4})
    assert chosen.settled("frozen")[0].views == 4
    assert chosen.settled("full") == (chosen.model_copy(update={"strategy": "full", "views": 0}), ["views"])
