"""The data that comes with the project: what it holds, that it is always the same, and that it can be learnt."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tl_core.errors import DataError
from tl_core.images.samples import sample_folder
from tl_core.settings import Settings


def counts(folder: Path) -> dict[str, int]:
    return {inner.name: len(list(inner.iterdir())) for inner in sorted(folder.iterdir())}


def test_digits_are_those_of_scikit_learn(settings: Settings) -> None:
    folder = sample_folder("digits", settings)
    digits = load_digits()
    assert counts(folder) == {str(digit): int((digits.target == digit).sum()) for digit in range(10)}
    for number in (0, 1000, 1796):
        (path,) = folder.glob(f"*/{number:04}.png")
        assert path.parent.name == str(digits.target[number])
        with Image.open(path) as image:
            image.load()
        assert (image.mode, image.size) == ("L", (32, 32))
        shrunk = np.asarray(image.resize((8, 8), Image.Resampling.BOX), dtype=float) / 255 * 16
        assert np.corrcoef(shrunk.ravel(), digits.images[number].ravel())[0, 1] > 0.98


def test_shapes_are_six_classes_of_sixty_different_drawings(settings: Settings) -> None:
    folder = sample_folder("shapes", settings)
    assert counts(folder) == dict.fromkeys(["circle", "cross", "ring", "square", "star", "triangle"], 60)
    contents = {path.read_bytes() for path in folder.rglob("*.png")}
    assert len(contents) == 360
    with Image.open(folder / "ring/00.png") as image:
        assert (image.mode, image.size) == ("RGB", (96, 96))


def test_a_sample_is_written_once(settings: Settings) -> None:
    folder = sample_folder("shapes", settings)
    (folder / "mark").touch()
    assert sample_folder("shapes", settings) == folder
    assert (folder / "mark").exists()
    assert folder.parent == settings.data_dir


def test_shapes_are_the_same_everywhere(settings: Settings, tmp_path: Path) -> None:
    first, second = (
        sample_folder("shapes", settings),
        sample_folder("shapes", replace(settings, home=tmp_path / "other")),
    )
    assert first != second
    for path in first.rglob("*0.png"):
        ours, theirs = Image.open(path), Image.open(second / path.relative_to(first))
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    # As drawn when the sample was made; a little play for another Pillow's edges.
    means_when_made = [149.2, 143.5]
    means = [np.asarray(Image.open(first / label / "07.png"), dtype=float).mean() for label in ("circle", "star")]
    assert means == pytest.approx(means_when_made, abs=0.5)


def test_an_unknown_sample_is_answered_with_the_nearest_and_all(settings: Settings) -> None:
    all_of_them = "; the samples are sample:digits and sample:shapes"
    for name, message in (
        ("shape", "there is no sample 'shape' (did you mean sample:shapes?)"),
        ("", "there is no sample ''"),
    ):
        with pytest.raises(DataError) as caught:
            sample_folder(name, settings)
        assert caught.value.message == message + all_of_them
    assert not settings.home.exists()
