"""Reduced pictures: the same whether kept or read, for every process, and never at the price of a training."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tl_core.errors import DataError
from tl_core.images.collection import Picture
from tl_core.images.decode import open_upright
from tl_core.ml import picture_cache
from tl_core.ml.picture_cache import KEPT_SIDES, PictureCache, read_reduced, reduced_size
from tl_core.ml.transforms import CROP_RATIO, CROP_SCALE

TARGET = (24, 24)
LEAST = KEPT_SIDES * 24
LIMIT = 10**8


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """Large soft patches, as photographs have them, all different."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, picture: Image.Image, **options: object) -> Picture:
    picture.save(path, **options)
    width, height = open_upright(path, LIMIT).size
    return Picture(path, path.name, "a", None, width, height, picture.mode, path.name, 0, b"")


def several(folder: Path) -> list[Picture]:
    return [
        save(folder / "large.jpg", scene(400, 300, 1), quality=90),
        save(folder / "large.png", scene(300, 200, 2)),
        save(folder / "small.png", scene(20, 30, 3)),
        save(folder / "turned.jpg", scene(400, 300, 4), exif=orientation(6)),
    ]


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def pixels(pictures: list[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


def read_all(pictures: list[Picture]) -> list[bytes]:
    return pixels([read_reduced(picture.path, TARGET, LIMIT) for picture in pictures])


def remove_all(pictures: list[Picture]) -> None:
    for picture in pictures:
        picture.path.unlink()


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


def test_the_narrowest_crop_of_a_reduced_square_has_the_pixels_of_the_target() -> None:
    width = KEPT_SIDES * (CROP_SCALE[0] * CROP_RATIO[0]) ** 0.5
    height = KEPT_SIDES * (CROP_SCALE[0] / CROP_RATIO[1]) ** 0.5
    assert min(width, height) >= 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((400, 300), (64, LEAST)),
        ((300, 400), (LEAST, 64)),
        ((LEAST, 1000), (LEAST, 1000)),
        ((10, 7), (10, 7)),
        ((LEAST + 1, LEAST + 1), (LEAST, LEAST)),
    ],
)
def test_the_short_side_is_reduced_to_twice_the_target_and_never_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert reduced_size(*size, TARGET) == expected


def test_the_longer_side_of_an_oblong_target_counts() -> None:
    assert reduced_size(900, 600, (10, 50)) == (150, 100)


def test_a_small_picture_is_kept_as_it_is(tmp_path: Path) -> None:
    picture = save(tmp_path / "small.jpg", scene(40, 30))
    assert read_reduced(picture.path, TARGET, LIMIT).tobytes() == open_upright(picture.path, LIMIT).tobytes()


@pytest.mark.parametrize("name", ["jpeg.jpg", "png.png"])
@pytest.mark.parametrize("side", [60, 97, 150, 420, 1000])
def test_a_reduced_picture_looks_like_the_whole_one(tmp_path: Path, name: str, side: int) -> None:
    picture = save(tmp_path / name, scene(side + 30, side))
    whole = open_upright(picture.path, LIMIT)
    reduced = read_reduced(picture.path, TARGET, LIMIT)
    assert reduced.size == reduced_size(*whole.size, TARGET)
    assert difference(reduced, whole.resize(reduced.size, Image.Resampling.BICUBIC)) < 1.5


@pytest.mark.parametrize("number", range(1, 9))
def test_a_large_photograph_is_turned_as_its_camera_says(tmp_path: Path, number: int) -> None:
    picture = save(tmp_path / "turned.jpg", scene(430, 310), exif=orientation(number))
    reduced = read_reduced(picture.path, TARGET, LIMIT)
    assert reduced.size == reduced_size(picture.width, picture.height, TARGET)
    whole = open_upright(picture.path, LIMIT).resize(reduced.size, Image.Resampling.BICUBIC)
    assert difference(reduced, whole) < 1.5


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_large_photograph_of_other_colours_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = save(tmp_path / "colours.jpg", scene(400, 300).convert(mode))
    reduced = read_reduced(picture.path, TARGET, LIMIT)
    assert reduced.mode == "RGB"
    assert difference(reduced, open_upright(picture.path, LIMIT).resize(reduced.size)) < 2


def test_a_photograph_with_a_second_picture_in_it_is_read_by_its_first(tmp_path: Path) -> None:
    path = tmp_path / "two.jpg"
    scene(400, 300, 1).save(path, format="MPO", save_all=True, append_images=[scene(400, 300, 2)])
    reduced = read_reduced(path, TARGET, LIMIT)
    assert difference(reduced, open_upright(path, LIMIT).resize(reduced.size)) < 2


def test_a_photograph_whose_exif_is_broken_is_read_all_the_same(tmp_path: Path) -> None:
    picture = save(tmp_path / "broken.jpg", scene(400, 300), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03")
    reduced = read_reduced(picture.path, TARGET, LIMIT)
    assert difference(reduced, open_upright(picture.path, LIMIT).resize(reduced.size)) < 2


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 not really", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    picture = save(tmp_path / "cut.jpg", scene(400, 300))
    picture.path.write_bytes(picture.path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(DataError, match=r"cut\.jpg: "):
        read_reduced(picture.path, TARGET, LIMIT)


def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    picture = save(tmp_path / "large.jpg", scene(400, 300))
    with pytest.raises(DataError, match=r"large\.jpg: too large: "):
        read_reduced(picture.path, TARGET, 10_000)


def test_a_kept_picture_is_the_one_that_was_read_and_is_not_read_again(tmp_path: Path) -> None:
    pictures = several(tmp_path)
    expected = read_all(pictures)
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        assert pixels(cache.get([0, 1, 2, 3])) == expected
        remove_all(pictures)
        assert pixels(cache.get([3, 0, 1, 2, 0])) == [expected[index] for index in (3, 0, 1, 2, 0)]
        assert cache.trouble == ""


def test_a_black_picture_is_not_taken_for_an_empty_slot(tmp_path: Path) -> None:
    pictures = [save(tmp_path / "black.png", Image.new("RGB", (9, 9)))]
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        cache.get([0])
        remove_all(pictures)
        assert cache.get([0])[0].getextrema() == ((0, 0),) * 3


def test_the_file_takes_no_room_before_it_is_filled_and_is_removed_at_the_end(tmp_path: Path) -> None:
    pictures = [save(tmp_path / f"{number}.png", scene(200, 200, number)) for number in range(20)]
    with PictureCache(tmp_path / "new folder" / "cache", pictures, TARGET, LIMIT) as cache:
        length = cache.path.stat().st_size
        assert length >= 20 * 3 * LEAST * LEAST
        if sys.platform == "linux":
            assert cache.path.stat().st_blocks * 512 < length / 4
    assert not cache.path.exists()
    cache.close()


def test_a_closed_cache_still_reads(tmp_path: Path) -> None:
    pictures = several(tmp_path)
    cache = PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT)
    cache.close()
    assert pixels(cache.get([0, 1])) == read_all(pictures[:2])


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    pictures = several(tmp_path)
    (tmp_path / "cache").write_bytes(b"\1" * 100_000)
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        assert pixels(cache.get([0, 1, 2, 3])) == read_all(pictures)
        assert not cache.trouble


def test_a_cache_sent_elsewhere_finds_no_file_of_another_training(tmp_path: Path) -> None:
    pictures = several(tmp_path)
    early = PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT)
    sent = pickle.dumps(early)
    late = PictureCache(tmp_path / "cache", pictures[::-1], TARGET, LIMIT)
    late.get([0, 1, 2, 3])
    assert pixels(pickle.loads(sent).get([0, 1, 2, 3])) == read_all(pictures)
    late.close()
    early.close()


@pytest.mark.parametrize("place", [20, -3], ids=["a pixel", "the checksum"])
def test_a_damaged_slot_is_read_anew(tmp_path: Path, place: int) -> None:
    pictures = several(tmp_path)[1:2]
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        cache.get([0])
        with cache.path.open("r+b") as file:
            file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 255]))
        assert pixels(cache.get([0])) == read_all(pictures)


def test_a_file_that_was_changed_after_the_listing_is_read_each_time(tmp_path: Path) -> None:
    pictures = several(tmp_path)
    scene(200, 300, 9).save(pictures[1].path)
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        for _ in range(2):
            assert pixels(cache.get([0, 1, 2, 3])) == read_all(pictures)
        assert cache.get([1])[0].size == (LEAST, 72)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_on_a_small_disk_the_first_pictures_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    pictures = several(tmp_path)
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        needed = cache._slot(kept)[0]
    disk = SimpleNamespace(free=needed / picture_cache.MAX_SHARE_OF_FREE)
    monkeypatch.setattr(picture_cache.shutil, "disk_usage", lambda folder: disk)
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        assert cache.kept == kept
        assert f"{kept} of 4 reduced pictures find room" in cache.trouble
        expected = read_all(pictures)
        assert pixels(cache.get([0, 1, 2, 3])) == expected
        assert pixels(cache.get([0, 1, 2, 3])) == expected


def test_a_large_set_is_bounded_whatever_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_cache, "MAX_BYTES", 20_000)
    with PictureCache(tmp_path / "cache", several(tmp_path), TARGET, LIMIT) as cache:
        assert cache.path.stat().st_size <= 20_000
        assert 0 < cache.kept < 4


def test_without_a_place_for_the_file_pictures_are_read(tmp_path: Path) -> None:
    pictures = several(tmp_path)
    (tmp_path / "file").write_text("")
    with PictureCache(tmp_path / "file" / "cache", pictures, TARGET, LIMIT) as cache:
        assert cache.kept == 0
        assert "not kept" in cache.trouble
        assert pixels(cache.get([0, 1, 2, 3])) == read_all(pictures)
    assert (tmp_path / "file").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_costs_time_and_gives_its_room_back(tmp_path: Path) -> None:
    import resource

    pictures = several(tmp_path)
    expected = read_all(pictures)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        other = pickle.loads(pickle.dumps(cache))  # as a loading process has it
        assert pixels(other.get([0])) == expected[:1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (cache._slot(1)[1] - 100, before[1]))
        try:
            made = pixels(cache.get([0, 1, 2]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert made == expected[:3]
        assert cache.path.stat().st_size == 0
        assert pixels(cache.get([0, 1, 2, 3])) == expected
        assert pixels(other.get([0, 1, 2, 3])) == expected
        assert cache.path.stat().st_size == 0
        other.close()
        assert cache.path.exists()
    assert "disk was full" in cache.trouble
    assert not cache.path.exists()


READER = """
import pickle, sys, zlib
cache = pickle.load(sys.stdin.buffer)
print([zlib.crc32(picture.tobytes()) for picture in cache.get([0, 1, 2, 3])])
cache.close()
"""


def test_a_process_that_is_sent_the_cache_reads_and_fills_it(tmp_path: Path) -> None:
    pictures = several(tmp_path)
    expected = read_all(pictures)
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        cache.get([0, 1])
        for picture in pictures[:2]:
            picture.path.unlink()
        command = [sys.executable, "-c", READER]
        answer = subprocess.run(command, input=pickle.dumps(cache), capture_output=True, check=True)
        assert answer.stdout.decode().strip() == str([zlib.crc32(content) for content in expected])
        for picture in pictures[2:]:
            picture.path.unlink()
        assert pixels(cache.get([0, 1, 2, 3])) == expected


FORKS = """
import multiprocessing, pickle, random, sys, zlib

def fill(cache, expected, seed):
    order = random.Random(seed).sample(range(len(expected)), len(expected))
    for _ in range(3):
        for index, picture in zip(order, cache.get(order)):
            assert zlib.crc32(picture.tobytes()) == expected[index]

cache, expected = pickle.load(sys.stdin.buffer)
cache.get([0])  # the file is open here, and its position must not be shared
context = multiprocessing.get_context("fork")
processes = [context.Process(target=fill, args=(cache, expected, seed)) for seed in range(4)]
for process in processes:
    process.start()
fill(cache, expected, 4)
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs to fork")
def test_forked_processes_fill_the_cache_at_once_and_do_not_disturb_each_other(tmp_path: Path) -> None:
    pictures = [save(tmp_path / f"{number:02}.png", scene(90, 70, number)) for number in range(30)]
    expected = read_all(pictures)
    with PictureCache(tmp_path / "cache", pictures, TARGET, LIMIT) as cache:
        given = pickle.dumps((cache, [zlib.crc32(content) for content in expected]))
        command = [sys.executable, "-c", FORKS]
        answer = subprocess.run(command, input=given, capture_output=True, check=True)
        assert answer.stdout.decode().strip() == "[0, 0, 0, 0]"
        remove_all(pictures)
        assert pixels(cache.get(list(range(30)))) == expected
