"""Small copies to look at: upright, kept, bounded in number, and made anew where the kept one is damaged."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pictures import picture
from PIL import Image

from tl_core.errors import DataError
from tl_core.images import thumbnails
from tl_core.images.thumbnails import mosaic, thumbnail
from tl_core.settings import Settings

DIGEST = "ab" * 16


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    pairs = zip(one.convert("RGB").tobytes(), other.convert("RGB").tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / (3 * one.width * one.height)


def kept(settings: Settings) -> list[Path]:
    return sorted(path for path in (settings.cache_dir / "thumbnails").rglob("*") if path.is_file())


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "gif"])
def test_a_thumbnail_fits_and_looks_like_the_picture(ending: str, settings: Settings, tmp_path: Path) -> None:
    drawn = picture(0.3, 1, (800, 400))
    drawn.save(tmp_path / f"p.{ending}")
    first = thumbnail(tmp_path / f"p.{ending}", DIGEST, 100, settings)
    assert (first.size, first.mode) == ((100, 50), "RGB")
    assert mean_difference(first, drawn.resize((100, 50))) < 6
    again = thumbnail(tmp_path / f"p.{ending}", DIGEST, 100, settings)
    assert mean_difference(first, again) < 4
    assert [path.name for path in kept(settings)] == [f"{DIGEST}-100.jpg"]


def test_the_kept_copy_is_used(settings: Settings, tmp_path: Path) -> None:
    picture(0.3, 1, (300, 300)).save(tmp_path / "p.png")
    thumbnail(tmp_path / "p.png", DIGEST, 64, settings)
    (tmp_path / "p.png").unlink()
    assert thumbnail(tmp_path / "p.png", DIGEST, 64, settings).size == (64, 64)
    with pytest.raises(DataError):
        thumbnail(tmp_path / "p.png", DIGEST, 65, settings)


def test_a_damaged_copy_is_made_anew(settings: Settings, tmp_path: Path) -> None:
    picture(0.3, 1, (300, 300)).save(tmp_path / "p.png")
    first = thumbnail(tmp_path / "p.png", DIGEST, 64, settings)
    (copy,) = kept(settings)
    for content in (b"", b"nonsense", copy.read_bytes()[:200]):
        copy.write_bytes(content)
        assert mean_difference(thumbnail(tmp_path / "p.png", DIGEST, 64, settings), first) < 4


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_it_is_upright(ending: str, settings: Settings, tmp_path: Path) -> None:
    lying = Image.new("RGB", (400, 200), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / f"p.{ending}", exif=exif)
    assert thumbnail(tmp_path / f"p.{ending}", DIGEST, 100, settings).size == (50, 100)


def test_tiny_pictures_are_not_enlarged(settings: Settings, tmp_path: Path) -> None:
    picture(0.3, 1, (8, 8)).save(tmp_path / "p.png")
    assert thumbnail(tmp_path / "p.png", DIGEST, 100, settings).size == (8, 8)


def test_odd_modes_and_wrong_endings(settings: Settings, tmp_path: Path) -> None:
    drawn = picture(0.3, 1, (200, 200))
    for number, mode in enumerate(("CMYK", "L", "RGB")):
        drawn.convert(mode).save(tmp_path / "p.png", "JPEG")
        assert thumbnail(tmp_path / "p.png", f"{number:032x}", 50, settings).mode == "RGB"
    drawn.convert("RGBA").save(tmp_path / "q.jpg", "PNG")
    assert thumbnail(tmp_path / "q.jpg", DIGEST, 50, settings).mode == "RGB"


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 cut", b"<html>"])
def test_what_cannot_be_read_says_so(content: bytes, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(content)
    with pytest.raises(DataError):
        thumbnail(tmp_path / "p.jpg", DIGEST, 50, settings)
    assert kept(settings) == []


def test_too_many_pixels_are_refused_before_decoding(settings: Settings, tmp_path: Path) -> None:
    for ending in ("jpg", "png"):
        picture(0.3, 1, (200, 200)).save(tmp_path / f"p.{ending}")
        with pytest.raises(DataError, match="too large"):
            thumbnail(tmp_path / f"p.{ending}", DIGEST, 50, replace(settings, max_pixels=1000))


def test_a_cut_off_photograph_is_refused(settings: Settings, tmp_path: Path) -> None:
    picture(0.3, 1, (900, 900)).save(tmp_path / "p.jpg")
    content = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="truncated"):
        thumbnail(tmp_path / "p.jpg", DIGEST, 50, settings)


def test_the_cache_is_bounded(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "KEPT_PER_FOLDER", 10)
    picture(0.3, 1).save(tmp_path / "p.png")
    for number in range(35):
        thumbnail(tmp_path / "p.png", f"ab{number:030x}", 16, settings)
        newest = settings.cache_dir / "thumbnails" / "ab" / f"ab{number:030x}-16.jpg"
        os.utime(newest, (number, number))
    assert 1 <= len(kept(settings)) <= 10
    assert kept(settings)[-1] == newest


def test_without_a_cache_folder_it_works_all_the_same(settings: Settings, tmp_path: Path) -> None:
    settings.home.mkdir()
    settings.cache_dir.write_text("in the way")
    picture(0.3, 1).save(tmp_path / "p.png")
    assert thumbnail(tmp_path / "p.png", DIGEST, 16, settings).size == (16, 16)


def test_large_photographs_are_shrunk_while_they_are_decoded(settings: Settings, tmp_path: Path) -> None:
    picture(0.3, 1, (4000, 3000)).save(tmp_path / "p.jpg", quality=90)
    picture(0.3, 1, (4000, 3000)).save(tmp_path / "p.png", compress_level=0)
    spent = {}
    for ending in ("jpg", "png"):
        begun = time.process_time()
        thumbnail(tmp_path / f"p.{ending}", ending.encode().hex().ljust(32, "0"), 128, settings)
        spent[ending] = time.process_time() - begun
    assert spent["jpg"] < 3 * spent["png"], "all rows of a JPEG would cost several times as much as uncompressed ones"


def test_four_pictures_as_one() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 0, 0)]
    whole = mosaic([Image.new("RGB", (30 + 10 * n, 50), colour) for n, colour in enumerate(colours)], 101)
    assert whole.size == (101, 101)
    assert [whole.getpixel(place) for place in ((10, 10), (90, 10), (10, 90), (100, 100))] == colours[:4]
    assert mosaic([Image.new("RGB", (9, 5), "red")] * 3, 40).getpixel((39, 39)) == (255, 0, 0)
    assert mosaic([], 40).size == (40, 40)
