"""The ranking in the page: whose backbones and images it takes, what it shows, and what a press on a row sends."""

import secrets
from types import SimpleNamespace
from typing import Any

import pytest
from models import save_resnet, save_vit
from pictures import make_folder

from tl_core.drafts import create_draft
from tl_core.errors import ConfigError, DataError, JobError, ModelError
from tl_core.settings import read_settings
from tl_core.ui.panels import rank
from tl_core.ui.ranked import draw_ranking
from tl_core.ui.session import draft_word, owner_of

HOSTILE = "<img src=x onerror=alert(1)>"


def silent(*_: Any, **__: Any) -> None:
    """Progress that nobody watches."""


def entry(name: str, score: float, *, behind: float = 0.0, distinguishable: bool = False) -> dict[str, Any]:
    return {
        "id": name,
        "kind": "folder",
        "score": score,
        "score_ci": (score - 0.04, min(1.0, score + 0.04)),
        "difference": behind,
        "difference_ci": (behind - 0.02, behind + 0.02),
        "distinguishable": distinguishable,
        "neighbours": 0.7,
        "logme": 0.123,
        "seconds_per_image": 0.0042,
        "parameters": 2_801_450,
        "size": 5_726_828,
        "input_size": (64, 48),
        "features": 256,
    }


def value(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    chosen = {"id": rows[0]["id"], "reason": f"{rows[0]['id']} is it."}
    return {
        "backbones": list(rows),
        "failed": [],
        "judged": 600,
        "notes": ["Judged on a sample."],
        "recommendation": {"accuracy": chosen, "speed": {**chosen, "id": rows[-1]["id"]}},
        **more,
    }


def test_each_backbone_has_a_bar_an_interval_and_a_button() -> None:
    markup = draw_ranking(value(entry("tiny-vit", 0.9), entry("tiny-resnet", 0.8, behind=0.1, distinguishable=True)))
    assert markup.count("<em ") == markup.count('<button type="button"') == 2
    assert 'style="width:90.0%"' in markup and 'style="left:86.0%;width:8.0%"' in markup
    assert 'aria-label="90.0%, 95 % interval 86.0% to 94.0%"' in markup
    assert 'data-pick="tiny-resnet"' in markup and 'aria-label="Take tiny-resnet"' in markup
    assert markup.index('data-pick="tiny-vit"') < markup.index('data-pick="tiny-resnet"')
    assert "4.2 ms a picture" in markup and "5.7 MB" in markup and "48 × 64 px" in markup and "2.8 M" in markup
    assert "10.0 points (+8.0 to +12.0)" in markup
    assert markup.count("<mark>") == 2 and "600 pictures were judged" in markup


def test_what_cannot_be_told_apart_is_said_so() -> None:
    markup = draw_ranking(value(entry("a", 0.9), entry("b", 0.89, behind=0.01), entry("c", 0.5, distinguishable=True)))
    assert markup.count("not distinguishable from the first") == 1


def test_a_backbone_that_failed_is_named_with_its_reason() -> None:
    failed = [{"id": "someone/thing", "reason": "it is not on this machine"}]
    assert "Someone/thing could not be asked: it is not on this machine." in draw_ranking(
        value(entry("a", 0.9), failed=failed)
    )


def test_names_are_never_markup() -> None:
    markup = draw_ranking(value(entry(HOSTILE, 0.9), failed=[{"id": HOSTILE, "reason": HOSTILE}], notes=[HOSTILE]))
    assert "<img" not in markup and 'data-pick="&lt;img' in markup


def test_the_persons_own_images_are_ranked(tmp_path, draft) -> None:
    photos = make_folder(tmp_path / "photos", {"red": 12, "blue": 12})
    own = create_draft(read_settings(), owner_of(""), str(photos))
    models = [str(save_resnet(tmp_path / "seeing").path), str(save_vit(tmp_path / "other").path), "tiny-resnt"]
    markup = rank.ranking_of(models, draft_word(own), "", 0, silent)
    assert "For accuracy: " in markup and "For speed: " in markup
    assert f'data-pick="{models[0]}"' in markup and f'data-pick="{models[1]}"' in markup
    assert "could not be asked: there is no embedded backbone" in markup
    with pytest.raises(DataError):
        rank.ranking_of(models, "", "", 0, silent)


def test_too_many_or_no_backbones_are_refused(draft) -> None:
    with pytest.raises(ConfigError, match="no backbone is chosen"):
        rank.ranking_of([], draft_word(draft), "", 0, silent)
    with pytest.raises(ConfigError, match="choose up to"):
        rank.ranking_of(["tiny-resnet"] * (rank.MOST_BACKBONES + 1), draft_word(draft), "", 0, silent)


def test_in_shared_mode_folders_and_others_images_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    mine, theirs = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    own = draft_word(create_draft(read_settings(), owner_of(mine), "sample:shapes"))
    with pytest.raises(ModelError, match="cannot be used here"):
        rank.ranking_of([str(save_resnet(tmp_path / "model").path)], own, mine, 0, silent)
    with pytest.raises(ModelError, match="compares only backbones that are"):
        rank.ranking_of(["tiny-resnet", "somebody/a-large-model"], own, mine, 0, silent)
    with pytest.raises(DataError):
        rank.ranking_of(["tiny-resnet"], own, theirs, 0, silent)
    with pytest.raises(ModelError):
        rank.picked_model(SimpleNamespace(picked=str(tmp_path)), mine)


def test_the_seed_of_the_form_is_that_of_the_ranking(monkeypatch) -> None:
    own = draft_word(create_draft(read_settings(), owner_of(""), "sample:shapes"))
    asked: list[int] = []

    def ranked(data: str, *, seed: int, **_: Any) -> dict[str, Any]:
        asked.append(seed)
        return value(entry("tiny-resnet", 0.9))

    monkeypatch.setattr(rank.api, "rank", ranked)
    for seed in (7, 7.0, 0, None):
        rank.ranking_of(["tiny-resnet"], own, "", seed, silent)
    assert asked == [7, 7, 0, 0]
    with pytest.raises(ConfigError, match="Seed"):
        rank.ranking_of(["tiny-resnet"], own, "", 1.5, silent)


def test_a_comparison_can_be_ended_by_who_asked_for_it(monkeypatch) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    mine, theirs = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    own = draft_word(create_draft(read_settings(), owner_of(mine), "sample:shapes"))
    said: list[str] = []

    def watch(progress: Any, desc: str) -> None:
        said.append(desc)
        with pytest.raises(JobError, match="nothing is being compared"):
            rank.end(theirs)
        if "computing features" in desc:
            rank.end(mine)

    with pytest.raises(rank.Unwanted):
        rank.ranking_of(["tiny-resnet"], own, mine, 0, watch)
    assert "computing features" in said[-1] and sum("computing features" in words for words in said) == 1
    with pytest.raises(JobError, match="nothing is being compared"):
        rank.end(mine)


def test_a_press_on_a_row_is_checked_like_any_other_word() -> None:
    assert rank.picked_model(SimpleNamespace(picked="tiny-resnet"), "") == "tiny-resnet"
    with pytest.raises(ModelError, match="no model is chosen"):
        rank.picked_model(SimpleNamespace(), "")
