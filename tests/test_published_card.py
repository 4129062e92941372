"""The card of a run that is published: refused here before anything is created, and true for who follows it."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, Person
from markdown_it import MarkdownIt

from tl_core import api, publication, sharing
from tl_core.config import TrainConfig
from tl_core.errors import HubError
from tl_core.model_card import render_card
from tl_core.runs import Run
from tl_core.settings import Settings
from tl_core.sharing import check_push, published, push_run

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
NAME = "me/tomatoes"


@pytest.fixture
def mine(hub: Hub) -> Hub:
    """A Hub that knows the token, and takes any card."""
    hub.people[TOKEN] = Person("me")
    return hub


def with_a_wrong_licence(*given: Any, **named: Any) -> str:
    """A card whose licence is none of those the Hub knows."""
    opening, *rest = render_card(*given, **named).splitlines(keepends=True)
    return "".join([opening, "license: free for all\n", *(line for line in rest if not line.startswith("license:"))])


def push(run: Run, settings: Settings) -> None:
    push_run(run, NAME, TOKEN, settings)


def foresee_training(run: Run, settings: Settings) -> None:
    check_push(TrainConfig.parse({"data": "photos"}), NAME, TOKEN, settings)


@pytest.mark.parametrize(("module", "begin"), [(publication, push), (sharing, foresee_training)])
def test_a_card_that_the_hub_would_refuse_is_found_before_anything_is_created(
    run: Run,
    mine: Hub,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    begin: Callable[[Run, Settings], None],
) -> None:
    begin(run, settings)  # nothing else is in the way
    mine.repos.clear()
    mine.requests.clear()
    (run.dir / "published.json").unlink(missing_ok=True)
    monkeypatch.setattr(module, "render_card", with_a_wrong_licence)
    with pytest.raises(HubError, match="would refuse the metadata of the card") as refused:
        begin(run, settings)
    assert "free for all" in str(refused.value.details)
    assert mine.repos == {} and mine.requests == [] and published(run) == []


@pytest.mark.slow
def test_the_three_lines_of_the_card_name_the_class_that_the_run_names(
    run: Run, mine: Hub, settings: Settings, tmp_path: Path
) -> None:
    """In a process that knows nothing of this project, with a picture of the name that the lines have."""
    row = (run.report() or {})["predictions"][0]
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(Path(row["path"]).read_bytes())
    ours = api.predict(run.id, [photo])["predictions"][0]["labels"][0]
    push(run, settings)
    tokens = MarkdownIt("commonmark").parse(mine.repos[NAME].files["README.md"].decode())
    (lines,) = [token.content for token in tokens if token.info == "python"]
    assert len(lines.splitlines()) == 3
    environment = {"HF_ENDPOINT": mine.url, "HF_HOME": str(tmp_path / "theirs"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", lines],
        **{"capture_output": True, "text": True, "check": True, "cwd": tmp_path, "env": environment},
    )
    first = ast.literal_eval(asked.stdout)[0]
    assert (first["label"], first["score"]) == (ours["label"], pytest.approx(ours["score"], abs=1e-5))
    assert any(f"/{NAME}/resolve/" in request for request in mine.requests)
