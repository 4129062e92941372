"""A frozen training decodes each picture once: features are computed while files are verified, and are the same."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from models import save_resnet
from pictures import make_folder, picture
from PIL import Image
from transformers import ViTImageProcessor

from tl_core import api
from tl_core.api.on_the_way import LEAST_PICTURES, OnTheWay
from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.images import scan
from tl_core.images.collection import Listed
from tl_core.images.decode import decode
from tl_core.images.intake import open_collection
from tl_core.images.looks import LEAST_SIDE, least_size
from tl_core.ml import backbone_pass, onlooking, pixels
from tl_core.ml.backbone_pass import features_key
from tl_core.ml.feature_store import missing_features
from tl_core.ml.onlooking import Onlooking
from tl_core.ml.pixels import PixelReader
from tl_core.settings import Settings


class Decodes:
    """How often files were decoded, to verify them and to compute features."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.verifying = self.computing = 0
        monkeypatch.setattr(scan, "decode", self.verify)
        monkeypatch.setattr(pixels, "decode", self.compute)

    def verify(self, *arguments):
        self.verifying += 1
        return decode(*arguments)

    def compute(self, *arguments):
        self.computing += 1
        return decode(*arguments)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onlooking, "threads_side_by_side", lambda: 2)
    monkeypatch.setattr(backbone_pass, "threads_side_by_side", lambda: 2)  # batches of as many


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Decodes:
    return Decodes(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_resnet(tmp_path / "model", classes=2).path)


def test_each_picture_is_decoded_once(tmp_path: Path, model: str, decodes: Decodes) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 40, "b": 40}, size=(96, 80))
    (photos / "a" / "broken.jpg").write_bytes((photos / "a" / "001.jpg").read_bytes()[:700])
    report = api.train(data=str(photos), model=model)
    assert (decodes.verifying, decodes.computing) == (81, 0)
    assert 0 < report["seconds"]["features"] < report["seconds"]["total"]
    assert [left_out["file"] for left_out in report["data"]["skipped"]] == ["a/broken.jpg"]


def test_features_are_the_same_whoever_has_decoded(
    tmp_path: Path, model: str, decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = str(make_folder(tmp_path / "photos", {"a": 40, "b": 40}, size=(1100, 1300)))
    at_once = api.train(data=photos, model=model)
    assert decodes.computing == 0
    monkeypatch.setenv("TL_HOME", str(tmp_path / "another home"))
    api.check(photos)
    later = api.train(data=photos, model=model)
    assert decodes.computing == 80
    assert later["predictions"] == at_once["predictions"] and later["training"] == at_once["training"]
    assert later["precision"] == at_once["precision"]


def test_few_pictures_are_verified_first(tmp_path: Path, model: str, decodes: Decodes) -> None:
    few = make_folder(tmp_path / "few", {"a": LEAST_PICTURES // 2 - 1, "b": LEAST_PICTURES // 2})
    api.train(data=str(few), model=model)
    assert decodes.computing == LEAST_PICTURES - 1


@pytest.mark.parametrize("strategy", ["lp-ft", "full", "auto", "scratch"])
def test_nobody_looks_on_for_another_strategy(tmp_path: Path, settings: Settings, strategy: str) -> None:
    source = save_resnet(tmp_path / "model")
    frozen = TrainConfig.parse({"data": "x"})
    assert OnTheWay(frozen, settings).invite(source) is not None
    assert OnTheWay(frozen.model_copy(update={"strategy": strategy}), settings).invite(source) is None


@pytest.mark.parametrize(("name", "value"), [("MOST_SECONDS", 0.0), ("threads_side_by_side", lambda: 1)])
def test_what_takes_long_and_a_single_thread_are_left_to_the_run(
    tmp_path: Path, model: str, decodes: Decodes, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(onlooking, name, value)
    monkeypatch.setenv("TL_WORKERS", "2")
    photos = make_folder(tmp_path / "photos", {"a": 40, "b": 40})
    api.train(data=str(photos), model=model)
    assert decodes.computing == 80


def test_a_class_without_a_readable_picture_costs_no_feature(tmp_path: Path, model: str, decodes: Decodes) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 40, "b": 40})
    (photos / "c").mkdir()
    (photos / "c" / "not.png").write_text("a picture of nothing")
    report = api.train(data=str(photos), model=model)
    assert decodes.computing == 0
    assert [row["label"] for row in report["metrics"]["per_class"]] == ["a", "b"]


def test_values_that_are_not_finite_are_not_kept(tmp_path: Path, settings: Settings) -> None:
    config = TrainConfig.parse({"data": "x", "model": str(tmp_path / "model")})
    listed = [Listed(tmp_path / f"{label}.png", f"{label}.png", label) for label in "ab"]
    looking = Onlooking(config, save_resnet(tmp_path / "model"), settings)
    with looking.look_on(listed, 2) as onlooker:
        assert onlooker is not None
        onlooker.keep((["one", "two"], np.array([[1.0, 2.0], [np.nan, 3.0]], np.float32)))
        onlooker.keep((["three"], np.array([[4.0, np.inf]], np.float32)))
        onlooker.keep(onlooker.compute({}))
    assert looking.backbone is not None and looking.prepared is not None
    assert looking.backbone.labels == ["a", "b"]
    key = features_key(looking.backbone, looking.prepared.precision)
    assert missing_features(settings.features_dir, key, ["one", "two", "three"]) == ["two", "three"]


def test_an_onlooker_may_end_verification_and_what_was_done_is_kept(tmp_path: Path, settings: Settings) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 5, "b": 5})

    class Refusing:
        portion, workers = 4, 2

        def threads(self):
            return ThreadPoolExecutor(2)

        def place(self, decoded):
            return decoded.size

        def compute(self, placed):
            if len(placed) < 4:
                raise JobError("too few")
            return len(placed)

        def keep(self, computed):
            kept.append(computed)

    @contextmanager
    def invite(listed, fresh):
        asked.append((len(listed), fresh))
        yield Refusing()

    kept: list[int] = []
    asked: list[tuple[int, int]] = []
    with pytest.raises(JobError, match="too few"):
        open_collection(str(photos), settings, invite=invite)
    assert kept == [4, 4]
    with pytest.raises(JobError, match="too few"):
        open_collection(str(photos), settings, invite=invite)
    assert asked == [(10, 10), (10, 2)]  # what was verified before that need not be again


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("size", [(40, 300), (511, 700), (1025, 1023), (1200, 1300), (3001, 2103)])
def test_a_reader_takes_what_it_would_have_read(tmp_path: Path, size: tuple[int, int], turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = tmp_path / f"picture.{kind.lower()}"
    picture(0.3, sum(size), size).save(file, kind, exif=exif)
    decoded = decode(io.BytesIO(file.read_bytes()), 10**8, least_size)
    for side in (64, 224, 256, 384):
        processor = ViTImageProcessor(size={"height": side, "width": side})
        reader = PixelReader(processor, 10**8)
        taken = reader.take(decoded)
        assert taken is not None or 2 * side > LEAST_SIDE
        assert taken is None or torch.equal(taken, reader.read(file))
        if (side, kind, size) == (384, "JPEG", (1200, 1300)):  # half of it is verified, and too little
            assert taken is None
        assert PixelReader(processor, 10**8, mirrored=True).take(decoded) is None
