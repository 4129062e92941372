"""A model whose download breaks off in the middle: it goes on from there, and what is not whole is not taken for it."""

from types import SimpleNamespace

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from hub_server import Hub, Repo

from tl_core.errors import HubError
from tl_core.hub import fetch_model
from tl_core.settings import Settings

WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b'{"model_type": "resnet"}', "model.safetensors": WEIGHTS}
NAME = "owner/net"
CHUNK_BYTES = 1000


@pytest.fixture
def hub(hub: Hub) -> Hub:
    hub.repos[NAME] = Repo(dict(FILES))
    return hub


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client waited before each further try; no time passes. What has arrived counts in small chunks."""
    waited: list[float] = []
    monkeypatch.setattr(huggingface_hub.file_download, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", CHUNK_BYTES)
    return waited


def first_bytes_asked_for(hub: Hub) -> list[int]:
    """Of each request for a part of the weights."""
    assert all(path.endswith("/model.safetensors") and wanted.endswith("-") for path, wanted in hub.ranges)
    return [int(wanted.removeprefix("bytes=").removesuffix("-")) for _, wanted in hub.ranges]


def test_a_download_that_breaks_off_goes_on_from_there(hub: Hub, settings: Settings, pauses: list[float]) -> None:
    hub.fail("GET", "/resolve/.*safetensors", 1, "half")
    fetched = fetch_model(NAME, settings)
    assert (fetched.path / "model.safetensors").read_bytes() == WEIGHTS
    (begun,) = first_bytes_asked_for(hub)
    # What had arrived is not sent again, but for the chunk that was being filled.
    assert len(WEIGHTS) // 2 - CHUNK_BYTES < begun <= len(WEIGHTS) // 2
    assert len(pauses) == 1


def test_a_download_that_breaks_off_again_and_again_arrives_whole(
    hub: Hub, settings: Settings, pauses: list[float]
) -> None:
    hub.fail("GET", "/resolve/.*safetensors", 4, "half")
    assert (fetch_model(NAME, settings).path / "model.safetensors").read_bytes() == WEIGHTS
    begun = first_bytes_asked_for(hub)
    assert len(begun) == 4 and begun == sorted(set(begun))


def test_a_download_that_never_ends_is_one_sentence_and_no_model(
    hub: Hub, settings: Settings, offline: Settings, pauses: list[float]
) -> None:
    hub.fail("GET", "/resolve/.*safetensors", 999, "half")
    with pytest.raises(HubError, match=rf"the model {NAME} .*check the connection") as caught:
        fetch_model(NAME, settings)
    assert "\n" not in caught.value.message
    with pytest.raises(HubError, match="is not on this machine"):  # what came does not pass for a whole model
        fetch_model(NAME, offline)
    hub.faults.clear()
    assert (fetch_model(NAME, settings).path / "model.safetensors").read_bytes() == WEIGHTS
