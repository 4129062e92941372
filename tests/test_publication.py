"""What goes out when a run is published: nothing of this computer, and no picture that nobody has agreed to."""

import json
from pathlib import Path
from typing import Any

import pytest
from hub_server import CLOSED, UseHub
from hub_state import contents_of

from tl_core import api
from tl_core.errors import ConfigError, DataError, JobError
from tl_core.files import write_json
from tl_core.publication import choose_examples, files_of
from tl_core.runs import Run
from tl_core.sharing import rehearse

NAME = "me/tomatoes"


@pytest.fixture
def held_out(run: Run) -> Run:
    """The run, as if its test pictures had been kept from its model."""
    report = run.report()
    assert report is not None
    report["metrics"]["method"] = "held-out"
    write_json(run.report_path, report)
    return run


def content_of(run: Run) -> dict[str, bytes]:
    return contents_of(files_of(run, NAME))


def change(run: Run, **parts: Any) -> None:
    """Of the run's report."""
    write_json(run.report_path, {**(run.report() or {}), **parts})


def test_no_folder_and_no_picture_of_this_computer_is_named(run: Run, trained: tuple[Path, str]) -> None:
    report = run.report() or {}
    pictures = {Path(row["path"]).name for row in report["predictions"]}
    folders = {str(trained[0].parent), str(run.dir), str(Path.home()) + "/"}
    for name, content in content_of(run).items():
        if name.endswith((".md", ".json")):
            text = content.decode()
            assert not [word for word in {*pictures, *folders} if word in text], name


def test_what_went_wrong_here_is_not_told_everywhere(run: Run) -> None:
    reason = "cannot read /home/ada/secret: no room"
    report = run.report() or {}
    data = report["data"]
    leak = [[{"file": "ada.jpg", "split": "train"}, {"file": "ada2.jpg", "split": "test"}]]
    data |= {"leakage": {"images": 1, "exact": leak, "near": [], "more": 0}, "notes": [reason], "warnings": [reason]}
    data["duplicates"] |= {"conflicts": [{"kind": "exact", "files": [{"file": "ada.jpg", "label": "a"}]}]}
    backbone = {**report["backbone"], "id": "/home/ada/nets/mine", "kind": "folder"}
    change(run, control={"stopped": False, "failed": reason}, data=data, backbone=backbone, added_later=reason)
    (run.model_dir / "training_config.json").write_text('{"model": "/home/ada/nets/mine"}')
    content = content_of(run)
    told = json.loads(content["report.json"])
    assert told["control"] == {"stopped": False, "failed": True}
    assert told["data"]["leakage"] == {"images": 1}
    assert told["data"]["classes"] == data["classes"] and told["metrics"] == report["metrics"]
    assert told["backbone"]["id"] == "mine"
    assert "that failed." in content["README.md"].decode()
    words = [b"/home/ada", b"ada.jpg", b"ada2.jpg", b"secret"]
    assert not [name for name, told in content.items() if any(word in told for word in words)]


def test_what_an_operating_system_puts_beside_a_model_is_not_published(run: Run, tmp_path: Path) -> None:
    before = set(files_of(run, NAME))
    (run.model_dir / ".DS_Store").write_bytes(b"x")
    (run.model_dir / ".cache").mkdir()
    (run.model_dir / ".cache" / "x.json").write_bytes(b"x")
    (tmp_path / "diary.txt").write_text("secret")
    (run.model_dir / "notes.txt").symlink_to(tmp_path / "diary.txt")
    (run.model_dir / "more").symlink_to(tmp_path)
    assert set(files_of(run, NAME)) == before


@pytest.mark.parametrize("missing", ["warnings", "accuracy_ci"])
def test_a_run_of_an_older_version_has_no_demo_and_says_so(run: Run, missing: str) -> None:
    report = run.report() or {}
    report.pop(missing, None)
    report["metrics"].pop(missing, None)
    write_json(run.report_path, report)
    assert rehearse(run, NAME)["bytes"]
    said = (
        rf"written by an older version of this program and has no '{missing}'; publish it without a demo, or train it"
    )
    with pytest.raises(JobError, match=said):
        rehearse(run, NAME, space=True)


# The pictures of a demo


def test_examples_are_test_pictures_one_of_each_class(held_out: Run) -> None:
    examples = choose_examples(held_out)
    rows = {row["path"]: row["label"] for row in (held_out.report() or {})["predictions"]}
    labels = [rows[str(path)] for path in examples]
    assert len(labels) == len(set(labels)) == len(set(rows.values()))


def test_without_consent_no_picture_is_published(held_out: Run) -> None:
    for planned in (api.push(held_out.id, NAME, space=True, dry_run=True), rehearse(held_out, NAME, space=True)):
        assert not [row for row in planned["space"]["files"] if row["path"].endswith((".jpg", ".png"))]
    shown = api.push(held_out.id, NAME, space=True, examples=True, dry_run=True)["space"]["files"]
    assert len([row for row in shown if row["path"].startswith("examples/")]) == len(choose_examples(held_out))


def test_a_picture_that_taught_the_model_is_no_example(held_out: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be a test picture .* and mine\.png is not"):
        rehearse(held_out, NAME, space=True, examples=[tmp_path / "mine.png"])


def test_a_model_that_was_taught_every_picture_has_no_examples(run: Run) -> None:
    with pytest.raises(DataError, match="no test pictures that its model was not taught"):
        choose_examples(run)


def test_a_picture_that_has_changed_since_the_test_is_not_shown(held_out: Run, trained: tuple[Path, str]) -> None:
    first, *rest = choose_examples(held_out)
    content = first.read_bytes()
    try:
        first.write_bytes(content + b"another")
        assert first not in choose_examples(held_out)
        with pytest.raises(
            DataError, match=rf"the example {first.name} has changed since run {held_out.id} was tested"
        ):
            rehearse(held_out, NAME, space=True, examples=[first, *rest])
    finally:
        first.write_bytes(content)
    assert first in choose_examples(held_out)


def test_examples_without_a_demo_are_a_mistake(held_out: Run, use_hub: UseHub) -> None:
    use_hub(CLOSED)
    with pytest.raises(ConfigError, match="add --space, or leave them out"):
        api.push(held_out.id, NAME, examples=True, dry_run=True)
