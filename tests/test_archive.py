"""Unpacking zips: what is refused before anything is written, what is left out, and that it happens once."""

import errno
import os
import stat
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE

from tl_core.errors import DataError
from tl_core.images.archive import unpack
from tl_core.images.unpacked import Unpacking, explained_storage_errors, make_once
from tl_core.settings import Settings


def make_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_are_unpacked_without_clutter(tmp_path: Path, settings: Settings) -> None:
    members = {
        "cats/1.JPG": b"one",
        "cats/.DS_Store": b"x",
        "__MACOSX/cats/._1.JPG": b"x",
        "Thumbs.db": b"x",
        "desktop.ini": b"x",
        ".hidden/2.jpg": b"x",
        "dogs/deep/2.jpg": b"two",
        "empty/": b"",
    }
    folder = unpack(make_zip(tmp_path / "my photos.zip", members), settings)
    assert files_below(folder) == ["cats/1.JPG", "dogs/deep/2.jpg"]
    assert (folder / "dogs/deep/2.jpg").read_bytes() == b"two"
    assert folder.parent == settings.data_dir
    assert folder.name.startswith("my-photos-")


def test_an_unchanged_zip_is_unpacked_once_and_a_changed_one_again(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/1.png": b"1"})
    first = unpack(path, settings)
    (first / "mark").touch()
    assert unpack(path, settings) == first
    assert (first / "mark").exists()
    make_zip(path, {"x/1.png": b"1", "x/2.png": b"2"})
    second = unpack(path, settings)
    assert second != first
    assert files_below(second) == ["x/1.png", "x/2.png"]


def test_two_zips_of_one_name_do_not_mix(tmp_path: Path, settings: Settings) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    first = unpack(make_zip(tmp_path / "a" / "z.zip", {"x/1": b"1"}), settings)
    second = unpack(make_zip(tmp_path / "b" / "z.zip", {"x/1": b"2"}), settings)
    assert (first / "x/1").read_bytes() == b"1"
    assert (second / "x/1").read_bytes() == b"2"


def member(name: str, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (member("../x.png"), "points outside the archive"),
        (member("a/../../x.png"), "points outside the archive"),
        (member("a\\..\\..\\x.png"), "points outside the archive"),
        (member(".hidden/../../x.png"), "points outside the archive"),
        (member("/etc/x.png"), "has an absolute path"),
        (member("C:\\x.png"), "has an absolute path"),
        (member("c:x.png"), "has an absolute path"),
        (member("\\\\server\\share\\x.png"), "has an absolute path"),
        (member("a/link.png", stat.S_IFLNK), "is a symbolic link"),
        (member("a/pipe.png", stat.S_IFIFO), "is neither a file nor a folder"),
    ],
)
def test_an_unsafe_member_refuses_the_whole_zip(
    tmp_path: Path, settings: Settings, info: zipfile.ZipInfo, reason: str
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fine/1.png", b"1")
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(DataError, match=reason):
        unpack(path, settings)
    assert not settings.home.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_an_encrypted_zip_is_refused(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/1.png": b"1"})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the general purpose flags
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        unpack(path, settings)


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04 but cut off"])
def test_what_is_not_a_zip_is_refused(tmp_path: Path, settings: Settings, content: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a zip archive that can be read"):
        unpack(path, settings)
    assert not settings.home.exists()


def test_a_damaged_member_leaves_nothing_behind(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x/1.png", b"intact" * 100)
        archive.writestr("x/2.png", b"harmed" * 100)
    path.write_bytes(path.read_bytes().replace(b"harmedharmed", b"harmedHARMED", 1))
    with pytest.raises(DataError, match="Bad CRC"):
        unpack(path, settings)
    assert list(settings.data_dir.iterdir()) == []


def test_too_many_entries_are_refused(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {f"x/{number}": b"" for number in range(11)})
    with pytest.raises(DataError, match=r"has 11 entries; at most 10 are taken \(set TL_MAX_FILES to allow more\)"):
        unpack(path, replace(settings, max_files=10))


def test_a_bomb_is_refused_by_its_declared_size(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/1": bytes(100_000), "x/2": bytes(100_000)})
    with pytest.raises(DataError, match=r"expands to 200,000 bytes; at most 150,000"):
        unpack(path, replace(settings, max_unpacked_bytes=150_000))
    assert not settings.home.exists()


def test_a_bomb_that_lies_about_its_size_is_refused_too(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/1": bytes(3_000_000)})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (10).to_bytes(4, "little")  # the uncompressed size it claims
    path.write_bytes(content)
    with pytest.raises(DataError):
        unpack(path, replace(settings, max_unpacked_bytes=1_000_000))
    assert not settings.data_dir.exists() or list(settings.data_dir.iterdir()) == []


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"x": b"1", "x/1.png": b"1"})
    with pytest.raises(DataError, match="is also a file"):
        unpack(path, settings)


def test_names_in_any_language_come_through(tmp_path: Path, settings: Settings) -> None:
    names = ["日本語/1.png", "Füße/ß.png", "🐱/1.png", "train station/1.png"]
    folder = unpack(make_zip(tmp_path / "a.zip", dict.fromkeys(names, b"1")), settings)
    assert files_below(folder) == sorted(names)


def test_utf8_names_that_are_not_marked_as_such_are_repaired(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"日本語/1.png": b"1"})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):  # without the flag that names are UTF-8
        content[content.index(signature) + offset] &= ~0x08
    path.write_bytes(content)
    assert files_below(unpack(path, settings)) == ["日本語/1.png"]


def test_names_with_backslashes_make_folders(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"cats\\1.png": b"1"})
    assert files_below(unpack(path, settings)) == ["cats/1.png"]


def test_a_disk_without_room_is_said_before_unpacking(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/1.png": b"1"})
    with pytest.raises(DataError, match=r"has .* MB free; unpacking needs .*make room or set TL_HOME"):
        unpack(path, replace(settings, min_free_bytes=10**18))
    assert list(settings.data_dir.iterdir()) == []


@pytest.mark.parametrize("place", ["taken", "taken/below", "/proc/below", "x" * 300])
def test_an_unwritable_home_is_said_in_a_sentence(tmp_path: Path, settings: Settings, place: str) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/1.png": b"1"})
    (tmp_path / "taken").write_text("a file where the home folder should be")
    home = tmp_path / place
    with pytest.raises(DataError, match=r"cannot be written to .*set TL_HOME") as caught:
        unpack(path, replace(settings, home=home))
    assert caught.value.message.startswith(f"the home folder {home} cannot")
    assert "room" not in caught.value.message
    assert "a.zip" not in caught.value.message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_without_permission_is_said_in_a_sentence(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/1.png": b"1"})
    (tmp_path / "locked").mkdir(mode=0o000)
    for home in (tmp_path / "locked", tmp_path / "locked/below"):
        with pytest.raises(DataError, match=r"the home folder .* cannot be written to \(permission denied\)"):
            unpack(path, replace(settings, home=home))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EIO])
def test_only_a_full_disk_is_answered_with_making_room(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(DataError, match=f"the home folder {tmp_path} cannot .*set TL_HOME") as caught,
        explained_storage_errors(tmp_path),
    ):
        raise OSError(number, os.strerror(number), str(tmp_path))
    assert "room" not in caught.value.message
    for full in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(DataError, match="is full; make room"), explained_storage_errors(tmp_path, tmp_path / "x"):
            raise OSError(full, os.strerror(full))


def test_while_a_folder_is_filled_its_source_is_not_the_homes_fault(tmp_path: Path) -> None:
    folder = tmp_path / "home/data/x"
    with pytest.raises(PermissionError), explained_storage_errors(tmp_path / "home", filling=folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "photos.zip"))
    for filename in (None, str(folder / "1.png")):
        with (
            pytest.raises(DataError, match="the home folder"),
            explained_storage_errors(tmp_path / "home", filling=folder),
        ):
            raise PermissionError(errno.EACCES, "Permission denied", filename)


def test_a_disk_that_fills_up_under_a_nested_archive_is_not_its_fault(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"x/1.png": b"1"})
    outer = make_zip(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})
    write = Path.open

    def fill_up(path: Path, mode: str = "r", **options: Any) -> Any:
        if mode == "wb" and path.suffix == ".png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, mode, **options)

    monkeypatch.setattr(Path, "open", fill_up)
    with pytest.raises(DataError, match=f"the disk that holds {settings.home} is full"):
        unpack(outer, settings)


def test_a_second_maker_of_the_same_folder_takes_the_first_ones(tmp_path: Path) -> None:
    both_are_filling = threading.Barrier(2, timeout=PATIENCE)
    results = []

    def fill(folder: Path) -> None:
        both_are_filling.wait()
        (folder / "content").write_text("whole")

    threads = [threading.Thread(target=lambda: results.append(make_once(tmp_path, "x", 1, fill))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert [entry.name for entry in tmp_path.iterdir()] == [results[0].name]
    assert (results[0] / "content").read_text() == "whole"


def test_what_a_killed_process_left_is_not_used_and_later_removed(tmp_path: Path) -> None:
    made = make_once(tmp_path, "x", 1, lambda folder: None)
    made.rmdir()
    fresh, stale = tmp_path / f".{made.name}.aaaa.partial", tmp_path / f".{made.name}.bbbb.partial"
    for left in (fresh, stale):
        left.mkdir()
        (left / "half").touch()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(stale, (two_days_ago, two_days_ago))
    assert list(make_once(tmp_path, "x", 1, lambda folder: None).iterdir()) == []
    assert fresh.exists()
    assert not stale.exists()


def test_a_name_that_is_marked_as_utf8_and_is_not_is_explained(tmp_path: Path, settings: Settings) -> None:
    path = make_zip(tmp_path / "a.zip", {"\u00e9\u00e9/1.png": b"1"})
    path.write_bytes(path.read_bytes().replace("\u00e9\u00e9".encode(), b"\xff\xfe\xfa\xfb"))
    with pytest.raises(DataError, match="is not a zip archive that can be read"):
        unpack(path, settings)


def test_what_is_no_image_leaves_an_empty_file(tmp_path: Path, settings: Settings) -> None:
    members = {"cats/1.png": b"one", "labels.csv": b"two", "cats/film.mp4": b"three", "cats/inner.zip": b"four"}
    folder = unpack(make_zip(tmp_path / "a.zip", members), settings)
    sizes = {name: (folder / name).stat().st_size for name in files_below(folder)}
    assert sizes == {"cats/1.png": 3, "labels.csv": 3, "cats/film.mp4": 0, "cats/inner.zip": 0}


@pytest.mark.parametrize(
    ("members", "found"), [({"a.mp4": b"x", "b.txt": b"x"}, "2 other files, such as a.mp4"), ({}, "nothing")]
)
def test_a_zip_without_images_is_refused_unwritten(
    tmp_path: Path, settings: Settings, members: dict[str, bytes], found: str
) -> None:
    with pytest.raises(DataError, match=f"holds no images but .*{found}"):
        unpack(make_zip(tmp_path / "a.zip", members), settings)
    assert not settings.home.exists()


def zip_bytes(tmp_path: Path, members: Mapping[str, bytes]) -> bytes:
    return make_zip(tmp_path / "inner", members).read_bytes()


def test_archives_in_an_archive_are_unpacked_one_level_deep(tmp_path: Path, settings: Settings) -> None:
    deepest = zip_bytes(tmp_path, {"x.png": b"x"})
    members = {
        "train.zip": zip_bytes(tmp_path, {"train/cat/1.png": b"1", "train/dog/2.png": b"2", "train/deep.zip": deepest}),
        "test.zip": zip_bytes(tmp_path, {"cat/3.png": b"3"}),
        "labels.csv": b"file,label",
    }
    folder = unpack(make_zip(tmp_path / "a.zip", members), settings)
    assert files_below(folder) == [
        "labels.csv",
        "test/cat/3.png",
        "train/cat/1.png",
        "train/deep.zip",
        "train/dog/2.png",
    ]


def test_the_limits_hold_for_nested_archives_together(tmp_path: Path, settings: Settings) -> None:
    inner = zip_bytes(tmp_path, {"1.png": bytes(100_000)})
    path = make_zip(tmp_path / "a.zip", {f"{n}.zip": inner for n in range(3)})
    assert len(files_below(unpack(path, replace(settings, max_unpacked_bytes=310_000)))) == 3
    make_zip(path, {f"{n}.zip": inner for n in range(4)})
    with pytest.raises(DataError, match="expands to"):
        unpack(path, replace(settings, max_unpacked_bytes=310_000))
    with pytest.raises(DataError, match="has 6 entries; at most 5"):
        unpack(path, replace(settings, max_files=5))
    bad = zip_bytes(tmp_path, {"../1.png": b"1"})
    with pytest.raises(DataError, match="points outside"):
        unpack(make_zip(path, {"bad.zip": bad}), settings)
    assert len(list(settings.data_dir.iterdir())) == 1


def test_progress_is_told_in_bytes(tmp_path: Path, settings: Settings) -> None:
    told: list[tuple[int, int]] = []
    path = make_zip(tmp_path / "a.zip", {"x/1.png": bytes(100), "x/2.png": bytes(50)})
    unpack(path, settings, Unpacking(lambda done, total: told.append((done, total))))
    assert told == [(100, 150), (150, 150)]
