"""Everything a person can get wrong: exit code 2, one line `error: …`, no traceback, nothing half-written."""

import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from models import save_resnet
from pictures import make_folder
from PIL import Image

from tl_core.cli import main
from tl_core.config import TrainConfig
from tl_core.runs import create_run, list_runs
from tl_core.settings import read_settings


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    make_folder(folder, {"cat": 6, "dog": 6})
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], home: Path):
    """Run a command that must be refused; gives the one error line, then its details."""

    def run(*arguments: str | Path) -> tuple[str, list[str]]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        lines = err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert code == 2, err
        assert len(errors) == 1, err
        assert "Traceback" not in err
        assert out == ""
        details = lines[lines.index(errors[0]) + 1 :]
        assert all(line.startswith("  ") for line in details), err
        assert list_runs(read_settings()) == []
        assert not [path for path in home.rglob("*") if path.name.startswith(".")], "something half-written"
        return errors[0], [line.strip() for line in details]

    return run


def test_no_such_path(refused, tmp_path: Path, photos: Path) -> None:
    line, _ = refused("train", "--data", tmp_path / "photo")
    assert "photo" in line and "photos" in line


@pytest.mark.parametrize("word", ["~nobody/x", "x" * 300, "a\0b", "/dev/null"])
def test_a_word_that_can_name_nothing(refused, word: str) -> None:
    refused("check", word)
    refused("predict", word, "x.jpg")
    refused("predict", "tiny-resnet", word)


def test_a_slip_of_the_pen_inside_a_folder_is_not_taken_for_a_hub_id(
    refused, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line, _ = refused("check", "photos/cats.zip")
    assert "there is no photos/cats.zip" in line


def test_a_name_cannot_forge_an_error_or_steer_the_terminal(refused, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "odd" / label).mkdir(parents=True)
        (tmp_path / "odd" / label / "x\nerror: forged\x1b[31m.jpg").write_bytes(b"")
    _, details = refused("check", tmp_path / "odd")
    assert not any("\x1b" in line for line in details)


def test_an_empty_folder(refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line, _ = refused("check", tmp_path / "empty")
    assert "empty" in line


def test_one_class(refused, tmp_path: Path) -> None:
    make_folder(tmp_path / "one", {"cat": 5})
    line, _ = refused("train", "--data", tmp_path / "one")
    assert "cat" in line and ("two" in line or "2" in line)


def test_only_broken_images(refused, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "broken" / label).mkdir(parents=True)
        (tmp_path / "broken" / label / "x.jpg").write_bytes(b"")
        (tmp_path / "broken" / label / "y.png").write_text("not an image")
    _, details = refused("train", "--data", tmp_path / "broken")
    assert len(details) >= 2


def make_zip(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        if link:
            member = zipfile.ZipInfo(link)
            member.create_system = 3
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, "/etc/passwd")
    return path


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "a\\..\\..\\x.png"])
def test_a_zip_that_would_write_outside(refused, tmp_path: Path, name: str) -> None:
    archive = make_zip(tmp_path / "bad.zip", {"cat/1.png": b"1", name: b"2"})
    refused("check", archive)
    assert not (tmp_path / "x.png").exists()


def test_a_zip_with_a_link(refused, tmp_path: Path) -> None:
    line, _ = refused("check", make_zip(tmp_path / "bad.zip", {"cat/1.png": b"1"}, link="cat/2.png"))
    assert "link" in line


def test_a_file_that_is_no_zip(refused, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_text("not a zip")
    line, _ = refused("check", tmp_path / "bad.zip")
    assert "zip" in line


def test_a_zip_with_too_many_entries(refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_MAX_FILES", "10")
    line, _ = refused("check", make_zip(tmp_path / "many.zip", {f"cat/{i}.png": b"x" for i in range(11)}))
    assert "11" in line and "10" in line


def test_a_zip_that_expands_past_the_limit(refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_MAX_UNPACKED_BYTES", "100000")
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", bytes(200_000))
    refused("check", path)


def test_a_gigapixel_image(refused, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_MAX_PIXELS", "1000000")
    Image.new("1", (40_000, 30_000)).save(tmp_path / "huge.png")
    model = save_resnet(tmp_path / "model").path
    line, _ = refused("predict", model, tmp_path / "huge.png")
    assert "1,200,000,000 pixels" in line and "1,000,000" in line


def test_a_table_without_a_label_column(refused, tmp_path: Path, photos: Path) -> None:
    files = sorted(photos.rglob("*.*"))
    (tmp_path / "list.csv").write_text("image\n" + "\n".join(str(file) for file in files))
    line, _ = refused("check", tmp_path / "list.csv")
    assert "label" in line


def test_a_table_whose_files_are_all_missing(refused, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,label\nnowhere/1.png,a\nnowhere/2.png,b\n")
    refused("check", tmp_path / "list.csv")


def test_a_named_column_that_is_not_there(refused, tmp_path: Path, photos: Path) -> None:
    file = next(photos.rglob("*.*"))
    (tmp_path / "list.csv").write_text(f"image,label\n{file},a\n")
    line, _ = refused("check", tmp_path / "list.csv", "--label-column", "lable")
    assert "lable" in line and "label" in line


def test_a_table_that_is_no_text(refused, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(bytes(range(256)) * 10)
    refused("check", tmp_path / "list.csv")


def test_an_unknown_model_offline(refused, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    line, _ = refused("train", "--data", photos, "--model", "no-one/no-such-model")
    assert "no-one/no-such-model" in line


def test_an_unknown_embedded_name(refused, photos: Path) -> None:
    line, _ = refused("train", "--data", photos, "--model", "tiny-resnt")
    assert "tiny-resnet" in line


def test_a_model_that_cannot_classify_images(refused, photos: Path, tmp_path: Path) -> None:
    source = save_resnet(tmp_path / "bert")
    (source.path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    line, _ = refused("train", "--data", photos, "--model", source.path)
    assert "bert" in line


def test_pickled_weights(refused, photos: Path, tmp_path: Path) -> None:
    source = save_resnet(tmp_path / "old")
    (source.path / "model.safetensors").rename(source.path / "pytorch_model.bin")
    line, _ = refused("train", "--data", photos, "--model", source.path)
    assert "pickle" in line


def test_predicting_with_a_backbone_that_has_no_classifier(refused, photos: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = save_resnet(tmp_path / "headless")
    weights = source.path / "model.safetensors"
    kept = {name: value for name, value in load_file(weights).items() if not name.startswith("classifier")}
    save_file(kept, weights, metadata={"format": "pt"})
    line, _ = refused("predict", source.path, next(photos.rglob("*.*")))
    assert "cannot predict yet" in line


def test_an_unknown_option_in_a_file(refused, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"data": str(photos), "bach_size": 3}))
    line, _ = refused("train", "--config", tmp_path / "c.json")
    assert "batch_size" in line


def test_an_unknown_flag(refused, photos: Path) -> None:
    line, _ = refused("train", "--data", photos, "--bach-size", "3")
    assert "--batch-size" in line


def test_several_wrong_options_are_told_together(refused, photos: Path) -> None:
    line, details = refused("train", "--data", photos, "--strategy", "x", "--seed", "-1", "--epochs", "0")
    assert "3 options" in line
    assert len(details) == 3


def test_no_options_at_all(refused) -> None:
    line, _ = refused("train")
    assert "--data" in line


def test_an_unknown_command(refused) -> None:
    refused("trian")


def test_an_unknown_sample(refused) -> None:
    line, _ = refused("check", "sample:digit")
    assert "digits" in line


def test_an_unknown_run(refused) -> None:
    refused("stop", "nothing")
    refused("resume", "nothing")


def test_fp16_without_a_gpu(refused, photos: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    model = save_resnet(tmp_path / "model").path
    line, _ = refused("train", "--data", photos, "--model", model, "--precision", "fp16")
    assert "fp16" in line


def test_a_home_that_is_a_file(refused, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_resnet(tmp_path / "model").path
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TL_HOME", str(tmp_path / "file"))
    line, _ = refused("train", "--data", photos, "--model", model)
    assert "TL_HOME" in line


def test_a_full_disk(refused, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_resnet(tmp_path / "model").path
    monkeypatch.setenv("TL_MIN_FREE_BYTES", str(10**18))
    line, _ = refused("train", "--data", photos, "--model", model)
    assert "free" in line


def test_a_limit_that_is_no_number(refused, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_MAX_FILES", "many")
    code = main(["check", str(photos)])
    assert code == 2


def test_a_missing_picture(refused, tmp_path: Path) -> None:
    model = save_resnet(tmp_path / "model").path
    line, _ = refused("predict", model, tmp_path / "nothing.jpg")
    assert "nothing.jpg" in line


def test_a_picture_that_is_none(refused, tmp_path: Path) -> None:
    model = save_resnet(tmp_path / "model").path
    (tmp_path / "text.jpg").write_text("hello")
    line, _ = refused("predict", model, tmp_path / "text.jpg")
    assert "text.jpg" in line


def test_evaluating_on_classes_the_model_does_not_know(refused, tmp_path: Path, photos: Path) -> None:
    model = save_resnet(tmp_path / "model").path
    line, _ = refused("evaluate", model, photos)
    assert "unknown to the model" in line


def test_resuming_a_run_that_is_being_worked_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_resnet(tmp_path / "model").path
    run = create_run(TrainConfig.parse({"data": str(photos), "model": str(model)}), read_settings())
    before = sorted(file.name for file in run.dir.iterdir())
    with run.hold():
        assert main(["resume", run.id]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "already being worked on" in error
    assert sorted(set(before) | {"lock"}) == sorted(file.name for file in run.dir.iterdir())


def test_resuming_a_run_that_has_ended_well(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_resnet(tmp_path / "model").path
    assert main(["train", "--data", str(photos), "--model", str(model), "--json"]) == 0
    capsys.readouterr()
    assert main(["resume", "last"]) == 2
    assert "is succeeded" in capsys.readouterr().err
    assert main(["stop", "last"]) == 2
    assert "nothing to stop" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="a folder can be taken away under a process on POSIX only")
def test_pictures_that_vanish_before_training(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_resnet(tmp_path / "model").path
    run = create_run(TrainConfig.parse({"data": str(photos), "model": str(model)}), read_settings())
    shutil.rmtree(photos)
    assert main(["resume", run.id]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert run.view().state == "failed"
    assert "photos" in run.view().message
