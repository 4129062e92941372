"""Drafts: put together, edited by several at once, killed in the middle, and read by the core like any other data."""

import io
import json
import os
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from pictures import make_folder, picture
from PIL import Image

import tl_core
from tl_core.drafts import Draft, create_draft, find_draft, list_drafts
from tl_core.errors import DataError
from tl_core.images.labels import LONGEST_CLASS_NAME
from tl_core.settings import Settings
from tl_core.sources import open_data
from tl_core.survey import survey

ME = "local"


def photos(folder: Path, number: int, hue: float = 0.1, seed: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{place}.png" for place in range(number)]
    for place, file in enumerate(files):
        picture(hue, seed + place).save(file)
    return files


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as target:
        for file in sorted(folder.rglob("*")):
            target.write(file, file.relative_to(folder))
    return archive


def bomb() -> bytes:
    """A small PNG file that says it has 50,000 × 50,000 pixels."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(100_000))]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def contents(draft: Draft) -> dict[str, int]:
    found = survey(draft, draft.settings).collection
    return {name: sum(picture.label == name for picture in found.pictures) for name in found.classes}


def test_class_boxes_become_data_that_the_core_reads(draft: Draft, tmp_path: Path) -> None:
    assert draft.classes() == {}
    draft.add_class("  red \n ones ")
    assert draft.classes() == {"red ones": 0}
    assert draft.add_pictures("red ones", photos(tmp_path / "a", 3)) == {"added": 3, "skipped": []}
    assert draft.add_pictures("blue", photos(tmp_path / "b", 2, 0.6, 50))["added"] == 2
    assert draft.classes() == {"red ones": 3, "blue": 2}
    assert draft.version == 4
    assert draft.words == str(draft.dir)
    collection = open_data(draft.words, draft.settings)
    assert {(p.name, p.label) for p in collection.pictures} == {(row.file, row.label) for row in draft.rows()}
    assert {p.name: p.digest for p in collection.pictures} == {row.file: row.digest for row in draft.rows()}
    assert tl_core.check(draft.words).to_json() == survey(draft, draft.settings).report.to_json()


def test_too_little_to_tell_apart_is_said_in_words_of_the_page(draft: Draft, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images yet: name a class"):
        survey(draft, draft.settings)
    draft.add_pictures("cat", photos(tmp_path, 2))
    with pytest.raises(DataError, match="only the class 'cat' has images; add a second"):
        survey(draft, draft.settings)


@pytest.mark.parametrize(
    "name",
    [
        "猫", "кошка", "قطة", "👩‍👩‍👧", "a/b\\c", "../../etc/passwd", ".hidden", "pictures", "labels.jsonl", "train",
        "<script>alert(1)</script>", "it's \"quoted\", twice;", "null", "-1", "3.50", "NaN", "\u2028 x\u2028y", "=1+1",
    ],
)  # fmt: skip
def test_a_class_may_be_called_anything(name: str, draft: Draft, tmp_path: Path) -> None:
    spelled = draft.add_class(name)
    draft.add_pictures(name, photos(tmp_path / "a", 2))
    draft.add_pictures("another", photos(tmp_path / "b", 2, 0.6, 9))
    assert contents(draft) == {spelled: 2, "another": 2}
    draft.rename_class(name, "plain")
    assert draft.classes() == {"plain": 2, "another": 2}


@pytest.mark.parametrize("name", ["", "   ", "\0\x07", "\u202e", "x" * (LONGEST_CLASS_NAME + 1), "x" * 300, None])
def test_a_class_needs_a_name_of_bearable_length(name: str, draft: Draft, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the class has no name|at most 100"):
        draft.add_class(name)
    with pytest.raises(DataError):
        draft.add_pictures(name, photos(tmp_path, 1))
    assert draft.classes() == {} and not (draft.dir / "pictures").exists()


def test_one_class_however_it_is_typed(draft: Draft) -> None:
    assert draft.add_class("e\u0301cole  maternelle") == "\u00e9cole maternelle"
    assert draft.add_class("\u00e9cole maternelle ") == "\u00e9cole maternelle"
    assert draft.add_class("\u00c9cole maternelle") == "\u00c9cole maternelle"
    assert len(draft.classes()) == 2


def test_files_that_are_no_pictures_are_skipped_with_their_reasons(draft: Draft, tmp_path: Path) -> None:
    (whole,) = photos(tmp_path / "a", 1)
    names = {
        "cut off.png": whole.read_bytes()[:-40],
        "empty.jpg": b"",
        "page.jpg": b"<html><script>alert(1)</script>",
        "bomb.png": bomb(),
        "../x;rm -rf <b>.png".replace("/", "\u2215"): whole.read_bytes(),
        "n" * 200 + ".png": picture(0.3, 77).tobytes(),
    }
    files: list[str | Path] = [whole]
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
        files.append(str(tmp_path / name))
    os.mkfifo(tmp_path / "pipe.png")
    files += [tmp_path / "pipe.png", tmp_path / "missing.png", tmp_path, "zero\0byte.png"]
    answer = draft.add_pictures("a", files)
    assert answer["added"] == 1
    reasons = {entry["file"]: entry["reason"] for entry in answer["skipped"]}
    assert len(reasons) == len(files) - 1
    assert "truncated" in reasons["cut off.png"]
    assert reasons["empty.jpg"] == "empty file"
    assert "HTML" in reasons["page.jpg"]
    assert "too large" in reasons["bomb.png"]
    assert "has this image already" in reasons["..\u2215x;rm -rf <b>.png"]
    assert reasons["pipe.png"] == "not a file"
    assert "No such file" in reasons["missing.png"]
    (kept,) = (draft.dir / "pictures").iterdir()
    assert f"pictures/{kept.name}" == draft.rows()[0].file
    assert kept.name.replace("-", "").removesuffix(".png").isalnum(), "a name of our own making"


def test_copies_are_skipped_within_a_class_only(draft: Draft, tmp_path: Path) -> None:
    files = photos(tmp_path, 2)
    draft.add_pictures("a", files)
    again = draft.add_pictures("a", [*files, *photos(tmp_path / "new", 1, 0.4, 70)])
    assert again["added"] == 1 and len(again["skipped"]) == 2
    assert draft.add_pictures("b", files)["added"] == 2
    assert len({row.file for row in draft.rows()}) == 5, "a name means one picture"
    assert survey(draft, draft.settings).report.duplicates["conflicting"] == 4


def test_frames_of_a_webcam(draft: Draft) -> None:
    frame = picture(0.2, 1, (640, 480))
    assert draft.add_frame("me", frame)["added"] == 1
    assert draft.add_frame("me", frame)["skipped"][0]["reason"].endswith("has this image already")
    assert draft.add_frame("me", picture(0.2, 2).convert("RGBA"))["added"] == 1
    assert draft.add_frame("not me", picture(0.7, 3).convert("P"))["added"] == 1
    assert contents(draft) == {"me": 2, "not me": 1}
    with Image.open(draft.dir / draft.rows()[0].file) as kept:
        assert (kept.format, kept.size) == ("JPEG", (640, 480))
    for impossible in (Image.new("RGB", (0, 5)), Image.new("RGB", (70_000, 1))):
        with pytest.raises(DataError, match="cannot be kept"):
            draft.add_frame("me", impossible)
    few = Draft(draft.dir, replace(draft.settings, max_pixels=1000))
    with pytest.raises(DataError, match="too large"):
        few.add_frame("me", frame)


def test_an_upload_is_read_where_it_lies_and_adopted_by_the_first_edit(draft: Draft, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "p", {"train/cat": 3, "train/dog": 4, "test/cat": 2, "test/dog": 2})
    archive = zipped(folder, tmp_path / "my <b> photos.zip")
    draft.take_upload([archive])
    assert Path(draft.words).parent.parent == draft.dir / ".uploads"
    before = survey(draft, draft.settings)
    archive.unlink()
    name = next(p.name for p in before.collection.pictures if p.label == "cat" and p.split == "test")
    assert draft.remove_pictures([name]) == 1
    assert draft.words == str(draft.dir)
    after = survey(draft, draft.settings)
    assert after.collection.skipped == []
    kept = {(p.digest, p.label, p.split) for p in before.collection.pictures if p.name != name}
    assert {(p.digest, p.label, p.split) for p in after.collection.pictures} == kept
    assert after.division.given
    with pytest.raises(DataError, match="holds images already"):
        draft.take_upload([zipped(folder, tmp_path / "other.zip")])


def test_adopting_links_and_changes_no_original(settings: Settings, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "p", {"cat": 3, "dog": 3})
    (folder / "dog" / "link.png").symlink_to(photos(tmp_path / "elsewhere", 1, 0.5, 90)[0])
    stamps = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*.*g")}
    draft = create_draft(settings, ME, str(folder))
    draft.rename_class("cat", "tiger")
    draft.remove_class("dog")
    draft.add_pictures("bird", photos(tmp_path / "b", 2, 0.9, 30))
    assert contents(draft) == {"bird": 2, "tiger": 3}
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*.*g")} == stamps
    linked = [file for file in (draft.dir / "pictures").iterdir() if file.stat().st_nlink == 2]
    assert len(linked) == 7 and not any(file.is_symlink() for file in linked)


def test_what_is_adopted_need_not_be_verified_again(settings: Settings, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "p", {"cat": 3, "dog": 3})
    draft = create_draft(settings, ME, str(folder))
    draft.add_class("bird")
    seen: list[tuple[int, int]] = []
    survey(draft, settings, lambda _, done, total: seen.append((done, total)))
    assert seen == [(6, 6)], "the first thing that is told is that all are known"


def test_a_folder_with_a_name_of_two_lines_can_be_adopted(settings: Settings, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "p", {"two\nlines": 2, "x" * 200: 2, "tab\there": 2})
    draft = create_draft(settings, ME, str(folder))
    draft.add_class("new")
    assert contents(draft) == {"two lines": 2, "x" * 200: 2, "tab here": 2}


def test_classes_are_merged_moved_and_removed(draft: Draft, tmp_path: Path) -> None:
    for position, name in enumerate("abc"):
        draft.add_pictures(name, photos(tmp_path / name, 3, position / 3, 20 * position))
    names = [row.file for row in draft.rows()]
    assert draft.rename_class("b", "a") == "a"
    assert draft.classes() == {"a": 6, "c": 3}
    assert draft.move_pictures([names[0], names[-1]], "new") == 2
    assert draft.classes() == {"a": 5, "c": 2, "new": 2}
    assert draft.rename_class("a", "A") == "A"
    assert draft.remove_class("c") == 2
    assert draft.remove_pictures([names[0], "pictures/gone.png"]) == 1
    assert draft.classes() == {"A": 5, "new": 1}
    for refused in (
        lambda: draft.remove_class("zebra"),
        lambda: draft.rename_class("A", " "),
        lambda: draft.remove_pictures(["../../../etc/passwd"]),
        lambda: draft.move_pictures([names[0]], ""),
    ):
        version = draft.version
        with pytest.raises(DataError):
            refused()
        assert draft.version == version
    assert contents(draft) == {"A": 5, "new": 1}


def test_uploads_that_are_refused_leave_nothing(draft: Draft, tmp_path: Path) -> None:
    images = photos(tmp_path, 2)
    folder = make_folder(tmp_path / "p", {"a": 2, "b": 2})
    archive = zipped(folder, tmp_path / "a.zip")
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    for files, words in (
        (images, "2 images have no class: name a class"),
        ([archive, archive], "2 files were given; one zip"),
        ([archive, images[0]], "2 files were given"),
        ([], "0 files"),
        ([tmp_path / "notes.pdf"], "neither a zip archive nor a table"),
        ([tmp_path / "missing.zip"], "missing.zip: cannot be opened"),
    ):
        with pytest.raises(DataError, match=words):
            draft.take_upload(files)
    for limits in ({"max_upload_bytes": 100}, {"max_draft_bytes": 300}):
        with pytest.raises(DataError, match=r"a\.zip: (too large|the collection is full)"):
            Draft(draft.dir, replace(draft.settings, **limits)).take_upload([archive])
    assert draft.version == 1 and not list((draft.dir / ".uploads").glob("*"))


def test_a_zip_bomb_is_refused_by_the_survey(draft: Draft, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/1.png", "b/1.png"):
            archive.writestr(name, bytes(3_000_000))
    draft.take_upload([tmp_path / "bomb.zip"])
    narrow = replace(draft.settings, max_unpacked_bytes=1_000_000)
    with pytest.raises(DataError, match="expands to 6,000,000 bytes"):
        survey(draft, narrow)
    with pytest.raises(DataError, match="expands to"):
        Draft(draft.dir, narrow).add_class("c")
    assert draft.version == 2 and not (draft.dir / "labels.jsonl").exists()


def test_a_discarded_draft_is_gone_for_everybody_with_its_pictures_but_not_their_originals(
    settings: Settings, tmp_path: Path
) -> None:
    source = make_folder(tmp_path / "p", {"a": 2, "b": 2})
    draft = create_draft(settings, ME, str(source))
    draft.add_class("c")
    for _ in range(2):
        draft.discard()
        assert not draft.dir.exists() and list_drafts(settings, ME) == []
    with pytest.raises(DataError, match="of yours"):
        draft.add_class("d")
    assert sum(file.is_file() for file in source.rglob("*")) == 4


def test_limits_on_what_a_draft_holds(draft: Draft, tmp_path: Path) -> None:
    files = photos(tmp_path, 6)
    size = max(file.stat().st_size for file in files)
    small = Draft(draft.dir, replace(draft.settings, max_draft_bytes=3 * size + 1000))
    answer = small.add_pictures("a", files)
    assert 2 <= answer["added"] <= 4
    assert all("the collection is full" in left["reason"] for left in answer["skipped"])
    with pytest.raises(DataError, match="may hold 8 files"):
        Draft(draft.dir, replace(draft.settings, max_files=8)).add_pictures("a", files)
    tiny = Draft(draft.dir, replace(draft.settings, max_upload_bytes=50)).add_pictures("b", files[:1])
    assert "a file may have 50" in tiny["skipped"][0]["reason"]
    assert "b" not in draft.classes()


def test_a_draft_is_its_owners(settings: Settings) -> None:
    mine, theirs = create_draft(settings, "me"), create_draft(settings, "them")
    assert find_draft(mine.id, settings, "me") == mine
    assert [found.id for found in list_drafts(settings, "me")] == [mine.id]
    with pytest.raises(DataError) as foreign:
        find_draft(theirs.id, settings, "me")
    with pytest.raises(DataError) as missing:
        find_draft("draft-" + "0" * 16, settings, "me")
    assert foreign.value.message.replace(theirs.id, "") == missing.value.message.replace("draft-" + "0" * 16, "")
    for word in ("", "..", "../runs", mine.id + "/", str(mine.dir), mine.id + "\n", None, 3):
        with pytest.raises(DataError):
            find_draft(word, settings, "me")


def test_in_shared_mode_nobody_names_files_of_the_machine(settings: Settings, tmp_path: Path) -> None:
    shared = replace(settings, shared=True)
    make_folder(tmp_path / "p", {"a": 1, "b": 1})
    for source in (str(tmp_path / "p"), "/etc", "~", "photos", "../x", str(tmp_path / "none.zip")):
        with pytest.raises(DataError, match="neither a sample nor a dataset on the Hub"):
            create_draft(shared, "me", source)
    assert create_draft(shared, "me", "sample:shapes").words == "sample:shapes"
    assert create_draft(shared, "me", "owner/name").words == "owner/name"
    assert create_draft(settings, "me", str(tmp_path / "p")).words == str(tmp_path / "p")


def test_pinned_words_keep_their_meaning_when_the_draft_is_edited(draft: Draft, tmp_path: Path) -> None:
    draft.add_pictures("a", photos(tmp_path / "a", 3))
    draft.add_pictures("b", photos(tmp_path / "b", 3, 0.6, 40))
    pinned = draft.pinned()
    assert draft.pinned() == pinned
    draft.remove_pictures([draft.rows()[0].file])
    draft.rename_class("b", "c")
    assert draft.pinned() != pinned
    collection = open_data(pinned, draft.settings)
    assert (len(collection.pictures), collection.classes) == (6, ["a", "b"])
    assert contents(draft) == {"a": 2, "c": 3}, "the other tables in the folder do not count"


def test_what_was_taken_out_makes_room_when_it_is_needed(
    draft: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = photos(tmp_path, 6)
    draft.add_pictures("a", files[:4])
    pinned_row = draft.rows()[0]
    draft.pinned()
    draft.remove_pictures([row.file for row in draft.rows()[:1]])
    gone = draft.add_pictures("b", files[4:5])
    draft.remove_class("b")
    assert gone["added"] == 1 and len(list((draft.dir / "pictures").iterdir())) == 5
    monkeypatch.setattr("tl_core.images.store._SPARED_SECONDS", -1)
    full = replace(draft.settings, max_draft_bytes=sum(f.stat().st_size for f in draft.dir.rglob("*") if f.is_file()))
    assert Draft(draft.dir, full).add_pictures("c", files[4:5])["added"] == 1
    kept = {f"pictures/{file.name}" for file in (draft.dir / "pictures").iterdir()}
    assert kept == {row.file for row in draft.rows()} | {pinned_row.file}


def test_surveys_of_drafts_are_remembered_until_the_next_edit(draft: Draft, tmp_path: Path) -> None:
    draft.add_pictures("a", photos(tmp_path / "a", 2))
    draft.add_pictures("b", photos(tmp_path / "b", 2, 0.6, 40))
    first = survey(draft, draft.settings)
    assert survey(draft, draft.settings) is first
    draft.add_class("c")
    assert survey(draft, draft.settings) is not first
    folder = str(make_folder(tmp_path / "p", {"a": 2, "b": 2}))
    assert len(survey(folder, draft.settings).collection.pictures) == 4
    make_folder(tmp_path / "p", {"c": 2}, seed=5)
    assert len(survey(folder, draft.settings).collection.pictures) == 6, "words are looked through anew"


def test_a_table_of_the_draft_that_was_damaged_is_an_error_that_says_so(draft: Draft, tmp_path: Path) -> None:
    draft.add_pictures("a", photos(tmp_path, 1))
    (draft.dir / "labels.jsonl").write_text('{"file": "x"\n')
    with pytest.raises(DataError, match="damaged by another program"):
        draft.classes()


def test_an_uploaded_table_of_images(draft: Draft, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for place in range(8):
        stream = io.BytesIO()
        picture(place % 2 / 2, place).save(stream, "PNG")
        rows.append({"image": {"bytes": stream.getvalue(), "path": None}, "label": "ab"[place % 2]})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    draft.take_upload([str(tmp_path / "t.parquet")])
    assert contents(draft) == {"a": 4, "b": 4}
    first = survey(draft, draft.settings).collection.pictures[0]
    draft.move_pictures([first.name], "c")
    assert contents(draft) == {"a": 3, "b": 4, "c": 1}
    assert json.loads((draft.dir / "labels.jsonl").read_text().split("\n")[0])["label"] == "c"
