"""Verification: facts about each picture, broken files with reasons, and results that are remembered."""

import hashlib
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import make_folder, picture
from PIL import Image

from tl_core.errors import JobError
from tl_core.images.collection import Listed
from tl_core.images.decode import open_upright
from tl_core.images.looks import describe_looks
from tl_core.images.scan import verify
from tl_core.images.verified import FILE_NAME
from tl_core.settings import Settings


def listed(root: Path) -> list[Listed]:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return [Listed(path, path.relative_to(root).as_posix(), path.parent.name, "train") for path in paths]


def bits_apart(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_a_picture_is_described(tmp_path: Path, settings: Settings) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "d" / "turned.jpg"
    path.parent.mkdir()
    picture(0.2, 1, (128, 64)).save(path, exif=exif)
    (found,), skipped, notes = verify([Listed(path, "shown", "cat", "test")], settings)
    assert (found.path, found.name, found.label, found.split) == (path, "shown", "cat", "test")
    assert (found.width, found.height, found.mode, found.special) == (64, 128, "RGB", "")
    assert found.digest == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert 0 < found.phash < 2**64
    upright = Image.open(path).transpose(Image.Transpose.ROTATE_270).convert("L").resize((16, 16), Image.Resampling.BOX)
    assert np.abs(np.frombuffer(found.grey, np.uint8).astype(int) - np.asarray(upright).ravel()).max() <= 2
    assert (skipped, notes) == ([], [])


def test_broken_files_are_left_out_and_the_order_is_kept(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"a": 40, "b": 40})
    (root / "a/000.png").write_bytes(b"")
    (root / "a/003.jpg").write_bytes((root / "a/001.jpg").read_bytes()[:-40])
    (root / "b/000.png").write_text("not a picture " * 50)
    files = listed(root)
    gone = Listed(root / "b/gone.png", "b/gone.png", "b")
    pictures, skipped, _ = verify([*files, gone], settings)
    assert [p.name for p in pictures] == [
        f.name for f in files if f.name not in {"a/000.png", "a/003.jpg", "b/000.png"}
    ]
    assert {s.name: s.reason.split(":")[0] for s in skipped} == {
        "a/000.png": "empty file",
        "a/003.jpg": "truncated or damaged",
        "b/000.png": "not an image",
        "b/gone.png": "cannot be opened",
    }


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_counts_every_file_once(tmp_path: Path, settings: Settings, workers: int) -> None:
    root = make_folder(tmp_path / "d", {"a": 50})
    (root / "a/000.png").write_bytes(b"")
    calls: list[tuple[int, int]] = []
    verify(listed(root), replace(settings, workers=workers), lambda done, total: calls.append((done, total)))
    assert calls == [(done, 50) for done in range(51)]


def test_an_unchanged_file_is_not_decoded_again_and_a_changed_one_is(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"a": 4})
    files = listed(root)
    first, _, _ = verify(files, settings)
    changed, damaged = files[0].path, files[1].path
    stat = damaged.stat()
    damaged.write_bytes(b"\0" * stat.st_size)  # only who reads the file can notice
    os.utime(damaged, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    picture(0.9, 99, (50, 50)).save(changed)
    second, skipped, _ = verify(files, settings)
    assert skipped == []
    assert second[1:] == first[1:]
    assert second[0].width == 50


def test_what_is_remembered_takes_the_name_and_label_of_today(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"a": 1})
    path = root / "a/000.png"
    verify([Listed(path, "old", "old")], settings)
    found, _, _ = verify([Listed(path, "x", "cat", "test"), Listed(path, "y", "dog")], settings)
    assert [(p.name, p.label, p.split) for p in found] == [("x", "cat", "test"), ("y", "dog", None)]


def test_a_picture_beyond_the_limit_is_left_out_also_when_it_is_remembered(tmp_path: Path, settings: Settings) -> None:
    files = listed(make_folder(tmp_path / "d", {"a": 2}))
    strict = replace(settings, max_pixels=1000)
    for _ in range(2):
        assert [s.reason for s in verify(files, strict)[1]] == [
            "too large: 32 × 32 pixels; at most 1,000 are read (TL_MAX_PIXELS)"
        ] * 2
        assert len(verify(files, settings)[0]) == 2


def test_a_damaged_cache_is_said_and_does_no_harm(tmp_path: Path, settings: Settings) -> None:
    files = listed(make_folder(tmp_path / "d", {"a": 3}))
    settings.cache_dir.mkdir(parents=True)
    (settings.cache_dir / FILE_NAME).write_bytes(b"not a database" * 100)
    pictures, skipped, notes = verify(files, settings)
    assert (len(pictures), skipped) == (3, [])
    assert len(notes) == 1
    assert "file is not a database" in notes[0]


def test_a_cache_of_another_layout_is_left_alone(tmp_path: Path, settings: Settings) -> None:
    files = listed(make_folder(tmp_path / "d", {"a": 3}))
    settings.cache_dir.mkdir(parents=True)
    with sqlite3.connect(settings.cache_dir / FILE_NAME) as connection:
        connection.execute("CREATE TABLE verified (path BLOB PRIMARY KEY, something TEXT)")
        keys = [(os.fsencode(os.path.abspath(file.path)), "x") for file in files]
        connection.executemany("INSERT INTO verified VALUES (?, ?)", keys)
    connection.close()
    for _ in range(2):
        pictures, _, notes = verify(files, settings)
        assert (len(pictures), notes) == (3, [])


def test_a_home_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path, settings: Settings) -> None:
    files = listed(make_folder(tmp_path / "d", {"a": 3}))
    (tmp_path / "taken").touch()
    with pytest.raises(JobError, match=r"cannot write to .*set TL_HOME"):
        verify(files, replace(settings, home=tmp_path / "taken"))


def test_an_interruption_keeps_what_was_done(tmp_path: Path, settings: Settings) -> None:
    files = listed(make_folder(tmp_path / "d", {"a": 60}))

    def interrupt(done: int, total: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(files, settings, interrupt)
    done: list[int] = []
    verify(files, settings, lambda count, total: done.append(count))
    assert done[0] == 30


def test_names_that_are_not_unicode_are_remembered_too(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"a": 1})
    odd = Path(os.fsdecode(os.fsencode(root) + b"/a/caf\xe9.png"))
    (root / "a/000.png").rename(odd)
    for _ in range(2):
        pictures, _, notes = verify([Listed(odd, "shown", "a")], settings)
        assert (len(pictures), notes) == (1, [])


def looks(image: Image.Image) -> int:
    return describe_looks(image)[0]


def test_the_hash_hardly_changes_when_a_picture_is_resized_or_compressed(tmp_path: Path) -> None:
    for seed in range(10):
        image = picture(0.4, seed, (200, 150))
        image.save(tmp_path / "a.jpg", quality=60)
        assert bits_apart(looks(image), looks(image.resize((100, 75)))) <= 6
        assert bits_apart(looks(image), looks(Image.open(tmp_path / "a.jpg"))) <= 8


@pytest.mark.parametrize("turn", [1, 6, 3])
def test_a_large_jpeg_is_described_from_a_part_of_its_size_as_from_all_of_it(
    tmp_path: Path, settings: Settings, turn: int
) -> None:
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = turn
    for seed, size in enumerate([(500, 375), (375, 501), (1203, 131), (130, 129), (2000, 1500), (64, 800)]):
        picture(0.3, seed, size).save(tmp_path / "a" / f"{seed}.jpg", quality=85, exif=exif)
    found, skipped, _ = verify(listed(tmp_path), settings)
    assert not skipped
    for described in found:
        whole = open_upright(described.path, settings.max_pixels)
        phash, grey = describe_looks(whole)
        assert (described.width, described.height) == whole.size
        assert bits_apart(described.phash, phash) <= 4
        assert np.abs(np.frombuffer(described.grey, np.uint8).astype(int) - np.frombuffer(grey, np.uint8)).max() <= 3


@pytest.mark.parametrize("kept", [0.4, 0.98])
def test_a_large_jpeg_is_read_to_its_last_row(tmp_path: Path, settings: Settings, kept: float) -> None:
    (tmp_path / "a").mkdir()
    picture(0.3, 0, (1000, 750)).save(tmp_path / "a" / "cut.jpg", quality=90)
    content = (tmp_path / "a" / "cut.jpg").read_bytes()
    (tmp_path / "a" / "cut.jpg").write_bytes(content[: int(kept * len(content))])
    found, (left_out,), _ = verify(listed(tmp_path), settings)
    assert not found and "truncated" in left_out.reason


def test_the_hashes_of_different_pictures_are_far_apart() -> None:
    hashes = [looks(picture(0.4, seed, (64, 64))) for seed in range(40)]
    distances = [bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 8
    assert 28 <= np.mean(distances) <= 36


@pytest.mark.parametrize("level", [0, 17, 128, 255])
def test_plain_surfaces_have_one_hash(level: int) -> None:
    phash, grey = describe_looks(Image.new("RGB", (50, 30), (level, level, level)))
    assert (phash, set(grey)) == (0, {level})


def test_tiny_and_narrow_pictures_are_described() -> None:
    for size in [(1, 1), (1, 500), (500, 1), (16, 16), (3, 2000)]:
        assert len(describe_looks(picture(0.5, 1, size))[1]) == 256
