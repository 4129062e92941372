"""What must simply work, the whole way from odd files and odd names to a saved model that knows them."""

import json
from pathlib import Path

import numpy as np
import pytest
from models import save_resnet
from pictures import make_folder, picture
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from tl_core.cli import main

ODD_LABELS = ["日本語", "a/b", "train station", "🦊", "x" * 200, "None", "1.0", "<b>bold</b>", "a|b", "test"]


def train(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main(["train", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def names_in(model_dir: str) -> list[str]:
    config = AutoModelForImageClassification.from_pretrained(model_dir).config
    return [config.id2label[index] for index in range(config.num_labels)]


def test_any_label_comes_through_a_table_into_the_saved_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number, label in enumerate(ODD_LABELS):
        for copy in range(6):
            name = f"{number}-{copy}.png"
            picture(number / len(ODD_LABELS), seed=100 * number + copy, size=(40, 30)).save(tmp_path / name)
            rows.append({"file": name, "label": label})
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    model = save_resnet(tmp_path / "model").path
    report = train(capsys, "--data", tmp_path / "list.jsonl", "--model", model)
    assert sorted(names_in(report["model_dir"])) == sorted(ODD_LABELS)
    answers = pipeline("image-classification", model=report["model_dir"])(str(tmp_path / "0-0.png"), top_k=10)
    assert sorted(answer["label"] for answer in answers) == sorted(ODD_LABELS)
    assert report["parity"]["passed"]


def test_any_folder_name_is_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["日本語", "train station", "🦊", "None", "test", "Validation of parking"]
    make_folder(tmp_path / "photos", dict.fromkeys(labels, 8))
    report = train(capsys, "--data", tmp_path / "photos", "--model", save_resnet(tmp_path / "model").path)
    assert sorted(names_in(report["model_dir"])) == sorted(labels)


def test_broken_files_among_good_ones_are_listed_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    make_folder(photos, {"a": 12, "b": 12})
    whole = next((photos / "a").iterdir()).read_bytes()
    (photos / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "a" / "empty.png").write_bytes(b"")
    (photos / "b" / "text.jpg").write_text("hello")
    (photos / "b" / "notes.txt").write_text("hello")
    report = train(capsys, "--data", photos, "--model", save_resnet(tmp_path / "model").path)
    skipped = {entry["file"]: entry["reason"] for entry in report["data"]["skipped"]}
    assert set(skipped) == {"a/cut.jpg", "a/empty.png", "b/text.jpg", "b/notes.txt"}
    assert all(skipped.values())
    assert report["data"]["images"] == 24


def test_every_kind_of_picture_is_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    make_folder(photos, {"a": 12, "b": 12})
    kinds = photos / "a"
    base = picture(0.5, seed=7, size=(48, 32))
    base.convert("L").save(kinds / "grey.png")
    base.convert("P").save(kinds / "palette.gif")
    base.convert("CMYK").save(kinds / "cmyk.jpg")
    base.convert("RGBA").save(kinds / "alpha.png")
    base.save(kinds / "animated.gif", save_all=True, append_images=[picture(0.1, seed=1, size=(48, 32))])
    Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257).save(kinds / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    base.save(kinds / "turned.jpg", exif=exif)
    report = train(capsys, "--data", photos, "--model", save_resnet(tmp_path / "model").path)
    assert report["data"]["skipped"] == []
    assert report["data"]["images"] == 24 + 7
    assert report["parity"]["passed"]


@pytest.mark.slow
def test_a_thousand_classes_of_five_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    make_folder(photos, {f"class {number}": 5 for number in range(1000)}, size=(32, 32))
    report = train(capsys, "--data", photos, "--model", save_resnet(tmp_path / "model").path)
    assert len(names_in(report["model_dir"])) == 1000
    assert report["metrics"]["top_k"]["k"] == 5
    assert len(report["metrics"]["per_class"]) == 1000


def test_two_images_of_each_class_are_enough_to_say_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "photos", {"a": 2, "b": 2})
    for solver in ("exact", "trainer"):
        model = save_resnet(tmp_path / solver).path
        report = train(capsys, "--data", tmp_path / "photos", "--model", model, "--head-solver", solver)
        assert report["metrics"]["images"] == 4


def test_one_image_of_each_class_is_too_little_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "photos", {"a": 1, "b": 1})
    model = save_resnet(tmp_path / "model").path
    assert main(["train", "--data", str(tmp_path / "photos"), "--model", str(model)]) == 2
    assert "nothing is left to test on" in capsys.readouterr().err
