"""One draft edited by many at once, killed in the middle of it, and grown large: it stays whole, and quick."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from test_drafts import ME, contents, photos

from tl_core.drafts import Draft, create_draft, find_draft
from tl_core.images.labels import Row, write_rows
from tl_core.settings import Settings, read_settings

# Real processes that import the package anew, as two workers of a page would be.
PROCESSES = multiprocessing.get_context("spawn")


def test_a_draft_is_not_discarded_in_the_middle_of_an_edit(draft: Draft) -> None:
    with ThreadPoolExecutor(1) as other, filelock.FileLock(draft.dir / "lock"):
        discarded = other.submit(draft.discard)
        with pytest.raises(TimeoutError):
            discarded.result(timeout=0.3)
        assert find_draft(draft.id, draft.settings, ME) == draft
    discarded.result()
    assert not draft.dir.exists()


def edit_many_times(draft_id: str, mark: str, files: list[str]) -> None:
    draft = find_draft(draft_id, read_settings(), ME)
    for number, file in enumerate(files):
        draft.add_class(f"{mark}-{number}")
        draft.add_pictures("common", [file])
        draft.add_pictures(mark, [file])
        draft.remove_pictures([row.file for row in draft.rows() if row.label == mark][:1])


def test_two_processes_edit_one_draft_at_once(draft: Draft, tmp_path: Path) -> None:
    files = [str(file) for file in photos(tmp_path, 8)]
    both = [PROCESSES.Process(target=edit_many_times, args=(draft.id, mark, files)) for mark in ("one", "two")]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    classes = draft.classes()
    assert classes.pop("common") == 8, "a copy is a copy, whoever adds it"
    assert classes == {
        **{f"{mark}-{number}": 0 for mark in ("one", "two") for number in range(8)},
        "one": 0,
        "two": 0,
    }
    assert draft.version == 1 + 2 * 8 * 4
    assert not list(draft.dir.glob(".*.part"))


def rename_for_ever(draft_id: str) -> None:
    draft = find_draft(draft_id, read_settings(), ME)
    while True:
        draft.rename_class("a", "b")
        draft.rename_class("b", "a")


def test_a_kill_in_the_middle_of_an_edit_leaves_a_draft_that_can_be_read_and_edited(settings: Settings) -> None:
    draft = draft_of(settings, 3000, {"a": 0.5, "c": 0.5})
    for moment in range(4):
        process = PROCESSES.Process(target=rename_for_ever, args=(draft.id,))
        version = draft.version
        process.start()
        while draft.version == version:
            time.sleep(0.01)
        time.sleep(0.013 * moment)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        labels = {row.label for row in draft.rows()}
        assert len(draft.rows()) == 3000 and labels in ({"a", "c"}, {"b", "c"})
        draft.rename_class("a" if "a" in labels else "b", "a")
        assert {row.label for row in draft.rows()} == {"a", "c"}
    assert not list(draft.dir.glob(".*.part"))


def test_a_kill_between_table_and_version_is_not_taken_for_the_old_content(draft: Draft, tmp_path: Path) -> None:
    draft.add_pictures("a", photos(tmp_path / "a", 2))
    draft.add_pictures("b", photos(tmp_path / "b", 2, 0.6, 40))
    assert contents(draft) == {"a": 2, "b": 2}
    write_rows(draft.dir / "labels.jsonl", [replace(row, label=row.label.replace("b", "new")) for row in draft.rows()])
    assert contents(draft) == {"a": 2, "new": 2}
    assert draft.classes() == {"a": 2, "b": 0, "new": 2}


def draft_of(settings: Settings, number: int, shares: dict[str, float]) -> Draft:
    """A draft whose table names so many pictures, which are not there: for edits that do not read them."""
    draft = create_draft(settings, ME)
    rows = []
    for label, share in shares.items():
        rows += [Row(f"pictures/{place:032x}-{label}.jpg", label) for place in range(int(share * number))]
    write_rows(draft.dir / "labels.jsonl", rows)
    return draft


def test_fifty_thousand_pictures_are_edited_in_seconds(settings: Settings) -> None:
    draft = draft_of(settings, 50_000, {"a": 0.5, "b": 0.5})
    names = [row.file for row in draft.rows()]
    begun = time.process_time()
    assert draft.remove_pictures(names[::2]) == 25_000
    assert draft.move_pictures(names[1:1000:2], "c") == 500
    assert time.process_time() - begun < 8
