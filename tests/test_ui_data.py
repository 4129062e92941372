"""The page's images: how they come in, how they are shown and mended, and that nobody sees another's."""

import asyncio
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from pictures import make_folder, picture

from tl_core.drafts import Draft, create_draft, list_drafts
from tl_core.errors import DataError
from tl_core.runs import LOCAL_OWNER
from tl_core.settings import Settings
from tl_core.survey import survey
from tl_core.ui import doors
from tl_core.ui.boxes import Shown, as_pick, boxes_of, draw_boxes, draw_pictures, read_pick, read_picks, turned
from tl_core.ui.found import can_be_trained, copies_in, draw_findings, lead_sentence, surplus
from tl_core.ui.panels import camera, classes, data, findings
from tl_core.ui.session import build_session, draft_word

HOSTILE = '<img src=x onerror="alert(1)">'
TOKENS = ("a" * 43, "b" * 43)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "photos", {"red": 6, "blue": 5})


@pytest.fixture(scope="module")
def handlers() -> dict[str, Callable[..., Any]]:
    """Every handler of the three panels as "panel.handler", with its failures told as in a browser."""

    async def build() -> gr.Blocks:  # outside of a loop Gradio makes loops and never closes them
        with gr.Blocks(analytics_enabled=False) as app:
            session = build_session()
            panels = [(part, part.build()) for part in (data, classes, findings)]
            for part, panel in panels:
                part.bind(panel, session)
        return app

    functions = [block.fn for block in asyncio.run(build()).fns.values()]
    return {f"{each.__module__.rpartition('.')[2]}.{each.__name__}": each for each in functions}


def said(answer: dict[Any, Any]) -> str:
    """All markup of an answer."""
    return " ".join(str(value) for place, value in answer.items() if isinstance(place, gr.HTML))


def word_in(answer: dict[Any, Any]) -> str:
    return next(value for key, value in answer.items() if isinstance(key, gr.BrowserState))


def zipped(folder: Path, place: Path) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return place


def test_a_path_becomes_a_draft_with_a_sentence(folder: Path) -> None:
    draft, sentence = doors.open_words(str(folder), "")
    assert sentence == "Opened: 11 images in 2 classes, 5 to 6 each."
    assert {name: len(there) for name, there in boxes_of(draft, draft.settings).items()} == {"blue": 5, "red": 6}


def test_a_zip_becomes_a_draft(folder: Path, tmp_path: Path) -> None:
    draft, sentence = doors.open_upload([str(zipped(folder, tmp_path / "photos.zip"))], "")
    assert sentence.startswith("Opened: 11 images in 2 classes")
    assert Path(draft.words).is_relative_to(draft.dir)


@pytest.mark.parametrize("content", [b"PK\x03\x04 rubbish", b""])
def test_a_broken_zip_leaves_no_draft_and_names_no_place_of_ours(
    content: bytes, tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "broken.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.zip") as caught:
        doors.open_upload([str(tmp_path / "broken.zip")], "")
    assert str(settings.home) not in caught.value.message
    assert list_drafts(settings, LOCAL_OWNER) == []


def test_a_text_file_and_an_unknown_word_are_refused_in_words(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(DataError, match="neither a zip archive nor a table"):
        doors.open_upload([str(tmp_path / "note.txt")], "")
    with pytest.raises(DataError, match="nothing is named"):
        doors.open_words("  ", "")
    with pytest.raises(DataError):
        doors.open_words(str(tmp_path / "nowhere"), "")
    assert list_drafts(settings, LOCAL_OWNER) == []


def test_in_shared_mode_no_path_can_be_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    with pytest.raises(DataError, match="cannot be used here"):
        doors.open_words(str(folder), TOKENS[0])


def test_loose_pictures_need_a_class(folder: Path, handlers: dict[str, Callable[..., Any]]) -> None:
    files = [str(file) for file in sorted((folder / "red").iterdir())]
    assert doors.are_loose(files) and not doors.are_loose([*files, "x.zip"]) and not doors.are_loose([])
    assert "no class yet" in said(handlers["data.take_files"](files, ""))
    draft, sentence = doors.add_to_class("red", files, "", "")
    assert sentence == "6 pictures added to “red”."
    again = doors.add_to_class("red", files[:1], draft_word(draft), "")
    assert again[0].id == draft.id and "0 pictures added" in again[1] and "1 was left out" in again[1]


def test_a_class_is_named_filled_chosen_renamed_and_removed(
    folder: Path, handlers: dict[str, Callable[..., Any]]
) -> None:
    word = word_in(handlers["classes.name_class"](HOSTILE, "", ""))
    files = [str(file) for file in sorted((folder / "red").iterdir())]
    word = word_in(handlers["classes.add_pictures"](HOSTILE, files, word, ""))
    shown = said(handlers["classes.show"](word, HOSTILE, 1, ""))
    assert "<img src=x" not in shown and "&lt;img src=x" in shown and "6 pictures" in shown
    word = word_in(handlers["classes.rename"](HOSTILE, "red", word, ""))
    names = [each.name for each in _boxes(word)["red"]]
    assert "No pictures are chosen" in said(handlers["classes.remove"]("[]", word, ""))
    word = word_in(handlers["classes.remove"](json.dumps(names[:2]), word, ""))
    assert len(_boxes(word)["red"]) == 4
    word = word_in(handlers["classes.move"](json.dumps(names[2:3]), "blue", word, ""))
    assert {name: len(there) for name, there in _boxes(word).items()} == {"red": 3, "blue": 1}
    word = word_in(handlers["classes.remove_class"]("red", word, ""))
    assert list(_boxes(word)) == ["blue"]


def test_a_burst_of_the_camera_counts_and_ends(
    handlers: dict[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    word, burst = word_in(handlers["classes.name_class"]("cup", "", "")), ""
    for number in range(3):
        answer = handlers["camera.take_frame"](picture(0.3, number), "cup", burst, word, "")
        burst = next(value for value in answer.values() if camera.read_burst(value))
    assert camera.read_burst(burst)[1] == 3 and len(_boxes(word)["cup"]) == 3
    begun = camera.read_burst(burst)[0]
    monkeypatch.setattr(camera, "BURST_SECONDS", -1)
    assert "enough at once" in said(handlers["camera.take_frame"](picture(0.3, 9), "cup", f"{begun} 3", word, ""))
    assert len(_boxes(word)["cup"]) == 3
    ended = handlers["camera.end_burst"](burst, word, "")
    assert word_in(ended) != word and "has stopped" in said(ended)


def test_pages_of_pictures() -> None:
    many = [Shown(str(number), Path("x"), "d") for number in range(130)]
    assert [turned(many, page)[1:] for page in (0, 1, 3, 9, None)] == [(1, 3), (1, 3), (3, 3), (3, 3), (1, 3)]
    assert len(turned(many, 3)[0]) == 10 and turned([], 1) == ([], 1, 1)


def test_what_a_browser_picks_comes_back_as_it_was() -> None:
    for name in (HOSTILE, "a\tb/c\u202e", "日本 'x'"):
        assert read_pick(as_pick(name)) == name and '"' not in as_pick(name) and "<" not in as_pick(name)
    assert read_pick(None) == "" and read_pick(["x"]) == ""
    assert read_picks([as_pick("a/b.png"), 3, None]) == ["a/b.png"] and read_picks("x") == []
    assert camera.read_burst("x y") is None and camera.read_burst("") is None


def test_a_file_that_is_gone_is_said_in_the_grid(folder: Path) -> None:
    draft, _ = doors.open_words(str(folder), "")
    boxes = boxes_of(draft, draft.settings)
    for file in (folder / "red").iterdir():
        file.unlink()
    assert draw_pictures(boxes["red"], draft.settings, version="1").count("cannot be read") == 6
    assert "red" in draw_boxes(boxes, "red", draft.settings)


def test_findings_show_copies_and_doubtful_pairs_and_copies_can_be_thinned(folder: Path) -> None:
    (folder / "red" / "again.png").write_bytes((folder / "red" / "000.png").read_bytes())
    (folder / "blue" / "other.jpg").write_bytes((folder / "red" / "001.jpg").read_bytes())
    (folder / "red" / "note.png").write_text("no picture")
    draft, _ = doors.open_words(str(folder), "")
    found = survey(draft, draft.settings)
    shown = draw_findings(found, draft.settings)
    assert lead_sentence(found.report) == "13 images in 2 classes, 6 to 7 each. 1 file was left out."
    for words in ("The same picture under two labels: 1 group", "Copies: 2 groups", "1 file left out", "overfitting"):
        assert words in shown
    assert "--" not in shown.replace("<!--", "")
    assert len(surplus(found, copies_in(found))) == 1
    assert findings.thin(draft, copies_in) == 1
    assert survey(draft, draft.settings).report.images == 12


def test_what_cannot_be_trained_on_does_not_lead_on(
    folder: Path, settings: Settings, handlers: dict[str, Callable[..., Any]]
) -> None:
    assert "Nothing to look at yet" in said(handlers["findings.show"]("", ""))
    empty = create_draft(settings, LOCAL_OWNER)
    assert "There are no images yet" in said(handlers["findings.show"](draft_word(empty), ""))
    draft, _ = doors.open_words(str(folder), "")
    assert can_be_trained(survey(draft, settings).report)
    for part in folder.iterdir():
        for file in sorted(part.iterdir())[1:]:
            file.unlink()
    assert not can_be_trained(survey(str(folder), settings).report)


def test_nobody_sees_or_changes_the_images_of_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch, handlers: dict[str, Callable[..., Any]]
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    word = word_in(handlers["classes.name_class"]("red", "", TOKENS[0]))
    file = str(folder / "red" / "000.png")
    for name, values in {
        "classes.show": (word, "red", 1),
        "classes.name_class": ("mine", word),
        "classes.add_pictures": ("red", [file], word),
        "camera.take_frame": (picture(0.1, 1), "red", "", word),
        "classes.remove_class": ("red", word),
        "classes.rename": ("red", "x", word),
        "findings.keep_one_copy": (word,),
        "data.open_earlier": (word.partition("@")[0],),
    }.items():
        assert "of yours" in said(handlers[name](*values, TOKENS[1])), name
    assert "red" not in said(handlers["findings.show"](word, TOKENS[1]))
    assert doors.still_there(word, TOKENS[1]) == "" and doors.still_there(word, TOKENS[0]) == word
    assert doors.earlier_choices(TOKENS[1]) == [] and len(doors.earlier_choices(TOKENS[0])) == 1


def _boxes(word: str) -> dict[str, list[Shown]]:
    draft: Draft = doors.own_draft(word, "")
    return boxes_of(draft, draft.settings)


def test_pictures_that_no_class_takes_leave_no_draft_behind(settings: Settings, tmp_path: Path) -> None:
    picture(0.1, 0).save(tmp_path / "one.png")
    with pytest.raises(DataError, match="no name"):
        doors.add_to_class(" ", [str(tmp_path / "one.png")], None, None)
    assert list_drafts(settings, LOCAL_OWNER) == []
    draft, _ = doors.add_to_class("a", [str(tmp_path / "one.png")], None, None)
    with pytest.raises(DataError, match="no name"):
        doors.add_to_class(" ", [str(tmp_path / "one.png")], draft_word(draft), None)
    assert [each.id for each in list_drafts(settings, LOCAL_OWNER)] == [draft.id]
