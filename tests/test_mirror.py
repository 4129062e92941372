"""Mirror images are allowed where they are shown to keep their class, and nowhere else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models import save_levit, save_resnet
from tests.pictures import make_folder
from tl_core.config import TrainConfig
from tl_core.images.collection import Collection
from tl_core.images.intake import open_collection
from tl_core.ml import mirror
from tl_core.ml.backbone import load_backbone
from tl_core.ml.mirror import CLASS_MARGIN, MIN_IMAGES, MirrorVerdict, judge_mirror, measure_mirror
from tl_core.ml.precision import Precision
from tl_core.recorder import Recorder, StopRequested
from tl_core.runs import create_run
from tl_core.settings import Settings
from tl_core.sources import ModelSource

FP32 = Precision("fp32", False, "")
LETTERS = ["b", "d", "o", "x"]


def answers(targets: np.ndarray, wrong: dict[int, int]) -> np.ndarray:
    """Right everywhere but at some places, where another class is answered."""
    given = targets.copy()
    for place, label in wrong.items():
        given[place] = label
    return given


def letters(each: int) -> np.ndarray:
    return np.repeat(np.arange(4), each)


def test_classes_that_stay_what_they_are_are_mirrored() -> None:
    targets = letters(50)
    as_is = answers(targets, {0: 1, 60: 2, 120: 3})
    mirrored = answers(targets, {0: 1, 70: 2, 121: 3, 199: 0})
    verdict = judge_mirror(targets, as_is, mirrored, LETTERS)
    assert verdict.keeps
    assert verdict.reason == "mirror images: 98 % of 200 images are still recognised mirrored, against 98 %"
    assert (verdict.images, verdict.accuracy, verdict.mirrored_accuracy) == (200, 197 / 200, 196 / 200)
    assert 0.005 < verdict.most_lost < 0.05


def test_classes_that_become_each_other_are_named() -> None:
    targets = letters(50)
    mirrored = targets.copy()
    mirrored[:45] = 1
    mirrored[50:94] = 0
    verdict = judge_mirror(targets, targets, mirrored, LETTERS)
    assert not verdict.keeps
    assert verdict.reason == (
        "no mirror images: mirrored 'b' is taken for 'd'; "
        "56 % of 200 images are still recognised mirrored, against 100 %"
    )


def test_one_class_of_many_that_becomes_another_is_enough() -> None:
    labels = [f"flower {number}" for number in range(38)] + ["left shoe", "right shoe"]
    targets = np.repeat(np.arange(40), 25)
    mirrored = targets.copy()
    mirrored[targets == 38] = 39
    verdict = judge_mirror(targets, targets, mirrored, labels)
    assert verdict.most_lost < 0.05  # which alone would do
    assert not verdict.keeps
    assert "mirrored 'left shoe' is taken for 'right shoe'" in verdict.reason


def test_a_class_that_loses_surely_but_little_is_no_other_class() -> None:
    targets = letters(500)
    lost = int(500 * CLASS_MARGIN * 0.5)
    verdict = judge_mirror(targets, targets, answers(targets, dict.fromkeys(range(lost), 2)), LETTERS)
    assert verdict.keeps


def test_a_loss_in_all_classes_alike_is_a_no() -> None:
    targets = letters(100)
    mirrored = answers(targets, {place: int((targets[place] + 1) % 4) for place in range(0, 400, 6)})
    verdict = judge_mirror(targets, targets, mirrored, LETTERS)
    assert not verdict.keeps
    assert verdict.reason == ("no mirror images: only 83 % of 400 images are still recognised mirrored, against 100 %")


def test_a_gain_is_no_objection() -> None:
    targets = letters(50)
    as_is = answers(targets, {place: int((targets[place] + 1) % 4) for place in range(0, 200, 5)})
    assert judge_mirror(targets, as_is, targets, LETTERS).keeps


def test_few_images_show_nothing() -> None:
    targets = letters(5)
    verdict = judge_mirror(targets, targets, targets, LETTERS)
    assert not verdict.keeps
    assert "too few images to be sure" in verdict.reason


@pytest.mark.parametrize("classes", [2, 4, 100])
def test_below_the_least_number_of_images_not_even_agreement_would_do(classes: int) -> None:
    targets = np.arange(MIN_IMAGES - 1) % classes
    labels = [str(number) for number in range(classes)]
    assert not judge_mirror(targets, targets, targets, labels).keeps


def test_a_head_that_knows_hardly_anything_tells_nothing() -> None:
    random = np.random.default_rng(0)
    targets = letters(500)
    as_is = np.where(random.random(2000) < 0.1, targets, random.integers(0, 4, 2000))
    verdict = judge_mirror(targets, as_is, as_is, LETTERS)
    assert not verdict.keeps
    assert "too little beyond chance to see what mirroring does" in verdict.reason


def test_always_saying_the_commonest_class_is_no_knowledge() -> None:
    targets = np.repeat([0, 1], [950, 50])
    same = np.zeros(1000, int)
    assert "too little beyond chance" in judge_mirror(targets, same, same, ["usual", "rare"]).reason


def test_nothing_is_allowed_for_classes_that_are_not_recognised_at_all() -> None:
    targets = np.repeat(np.arange(10), 60)
    as_is = targets.copy()
    as_is[targets >= 8] = np.arange((targets >= 8).sum()) % 8
    verdict = judge_mirror(targets, as_is, as_is, [str(number) for number in range(10)])
    assert not verdict.keeps
    assert "of some classes are recognised at all" in verdict.reason


def test_no_answers_are_a_no() -> None:
    nothing = np.array([], int)
    assert judge_mirror(nothing, nothing, nothing, LETTERS).keeps is False


def test_pictures_that_keep_their_class_are_rarely_refused_and_others_never_allowed() -> None:
    random = np.random.default_rng(3)
    targets = np.repeat(np.arange(10), 40)
    labels = [str(number) for number in range(10)]
    kept = []
    for _ in range(200):
        as_is = np.where(random.random(400) < 0.9, targets, random.integers(0, 10, 400))
        changed = random.random(400) < 0.05
        still = np.where(changed, np.where(random.random(400) < 0.9, targets, random.integers(0, 10, 400)), as_is)
        kept.append(judge_mirror(targets, as_is, still, labels).keeps)
        swapped = np.where(targets == 3, np.where(random.random(400) < 0.8, 4, as_is), still)
        assert not judge_mirror(targets, as_is, swapped, labels).keeps
    assert np.mean(kept) > 0.95


def recorder(settings: Settings) -> Recorder:
    return Recorder(create_run(TrainConfig.parse({"data": "x"}), settings))


def measured(
    collection: Collection,
    source: ModelSource,
    settings: Settings,
    *,
    pretrained: bool = True,
    groups: list[int] | None = None,
) -> MirrorVerdict:
    backbone = load_backbone(source, collection.classes, pretrained=pretrained)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    groups = groups or list(range(len(collection.pictures)))
    verdict = measure_mirror(backbone, collection.pictures, groups, FP32, 0, settings, recorder(settings))
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert not backbone.model.training
    return verdict


def make_ramps(root: Path, each: int) -> Path:
    """Pictures that are brighter on the left or on the right, of any colour and contrast."""
    for label in ("left", "right"):
        (root / label).mkdir(parents=True)
        for number in range(each):
            random = np.random.default_rng([number, label == "left"])
            ramp = np.linspace(random.uniform(0.6, 1), random.uniform(0, 0.2), 32)
            ramp = ramp if label == "left" else ramp[::-1]
            shown = ramp[None, :, None] * random.uniform(0.7, 1, 3) + random.normal(0, 0.02, (32, 32, 3))
            Image.fromarray((255 * np.clip(shown, 0, 1)).astype(np.uint8)).save(root / label / f"{number}.png")
    return root


@pytest.mark.parametrize("pretrained", [True, False])
def test_colours_may_be_mirrored(tmp_path: Path, settings: Settings, pretrained: bool) -> None:
    collection = open_collection(str(make_folder(tmp_path / "p", {"red": 25, "green": 25, "blue": 25})), settings)
    verdict = measured(collection, save_resnet(tmp_path / "m"), settings, pretrained=pretrained)
    assert verdict.keeps, verdict.reason
    assert verdict.images == 75
    assert verdict.accuracy > 0.9


@pytest.mark.parametrize("pretrained", [True, False])
def test_left_and_right_may_not(tmp_path: Path, settings: Settings, pretrained: bool) -> None:
    collection = open_collection(str(make_ramps(tmp_path / "p", 30)), settings)
    verdict = measured(collection, save_resnet(tmp_path / "m"), settings, pretrained=pretrained)
    assert not verdict.keeps
    assert verdict.accuracy > 0.9
    assert verdict.mirrored_accuracy < 0.5
    assert "is taken for" in verdict.reason


def test_the_answer_is_the_same_each_time_and_costs_one_pass(tmp_path: Path, settings: Settings) -> None:
    collection = open_collection(str(make_folder(tmp_path / "p", {"red": 20, "green": 20})), settings)
    source = save_resnet(tmp_path / "m")
    first = measured(collection, source, settings)
    for picture in collection.pictures:
        picture.path.unlink()  # all features, also of the mirror images, are known
    assert measured(collection, source, settings) == first


def test_few_pictures_are_not_even_looked_at(tmp_path: Path, settings: Settings) -> None:
    collection = open_collection(str(make_folder(tmp_path / "p", {"red": 20, "green": 20})), settings)
    for picture in collection.pictures:
        picture.path.unlink()
    groups = [number % (MIN_IMAGES - 1) for number in range(40)]  # most are copies
    verdict = measured(collection, save_resnet(tmp_path / "m"), settings, groups=groups)
    assert not verdict.keeps
    assert verdict.reason == (
        "no mirror images: 24 different images are too few to tell whether mirror images keep their class"
    )


def test_of_a_large_set_as_many_of_each_class_are_asked_about(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "MAX_IMAGES", 40)
    collection = open_collection(str(make_folder(tmp_path / "p", {"red": 60, "green": 30})), settings)
    assert measured(collection, save_resnet(tmp_path / "m"), settings).images == 40
    chosen = mirror._choose(collection.pictures, range(90), 0)
    assert [collection.pictures[index].label for index in chosen].count("red") == 20
    assert chosen == sorted(chosen) != mirror._choose(collection.pictures, range(90), 1)


def test_classes_of_single_pictures_tell_nothing(tmp_path: Path, settings: Settings) -> None:
    collection = open_collection(str(make_folder(tmp_path / "p", {f"class {n}": 1 for n in range(30)})), settings)
    verdict = measured(collection, save_resnet(tmp_path / "m"), settings)
    assert verdict.reason.startswith("no mirror images: no class has enough different images")


def test_a_model_with_two_classifiers_is_not_asked(tmp_path: Path, settings: Settings) -> None:
    collection = open_collection(str(make_folder(tmp_path / "p", {"red": 20, "green": 20})), settings)
    verdict = measured(collection, save_levit(tmp_path / "m"), settings, pretrained=False)
    assert not verdict.keeps
    assert "cannot be measured" in verdict.reason
    assert "no single linear classifier" in verdict.reason


def test_it_stops_when_asked(tmp_path: Path, settings: Settings) -> None:
    collection = open_collection(str(make_folder(tmp_path / "p", {"red": 20, "green": 20})), settings)
    source = save_resnet(tmp_path / "m")
    backbone = load_backbone(source, collection.classes)
    pen = recorder(settings)
    pen.run.request_stop()
    with pytest.raises(StopRequested):
        measure_mirror(backbone, collection.pictures, range(40), FP32, 0, settings, pen)


def test_a_mirrored_picture_is_prepared_as_any_other(tmp_path: Path, settings: Settings) -> None:
    """Features of the mirror images are those of files that hold them."""
    collection = open_collection(str(make_ramps(tmp_path / "p", 15)), settings)
    source = save_resnet(tmp_path / "m")
    backbone = load_backbone(source, collection.classes)
    head = backbone.head
    made = mirror.backbone_features(
        backbone, head, collection.pictures, FP32, settings, recorder(settings), mirrored=True
    )
    saved = []
    for picture in collection.pictures:
        path = tmp_path / f"{picture.digest}.png"
        Image.open(picture.path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
        saved.append(replace(picture, path=path, digest=f"mirrored {picture.digest}"))
    expected = mirror.backbone_features(backbone, head, saved, FP32, settings, recorder(settings))
    np.testing.assert_allclose(made, expected, atol=1e-5)
