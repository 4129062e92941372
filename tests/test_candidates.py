"""Backbones at hand are found and opened without the network; those that are named may come over it."""

from pathlib import Path

import pytest
from hub_server import Hub, Repo
from models import save_resnet

from tl_core.ml import candidates
from tl_core.settings import Settings


@pytest.fixture
def fetched(tmp_path: Path, hub: Hub, settings: Settings) -> str:
    """A backbone of the catalogue that was fetched from the Hub before."""
    word = "microsoft/resnet-18"
    folder = save_resnet(tmp_path / "model").path
    hub.repos[word] = Repo({file.name: file.read_bytes() for file in folder.iterdir()})
    candidates.open_candidates([word], settings)
    hub.requests.clear()
    return word


def test_what_is_at_hand_is_opened_without_the_network(fetched: str, hub: Hub, settings: Settings) -> None:
    opened = candidates.open_candidates(None, settings)
    assert fetched in [source.named for source in opened.sources] and not opened.failed
    assert hub.requests == []


def test_what_is_named_is_looked_up(fetched: str, hub: Hub, settings: Settings) -> None:
    candidates.open_candidates([fetched], settings)
    assert hub.requests
