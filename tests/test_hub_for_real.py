"""The way there and back on the real Hub: `TL_TEST_HUB_TOKEN=hf_… pytest -m hub tests/test_hub_for_real.py`.

The token needs the role write. A private model and two private Spaces are made in its owner's name, and deleted at the
end. The same way is gone on the Hub of these tests, without a token of anybody's.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Person
from journey import app_of, demo_of, go_there_and_back

# HF_TOKEN is taken away from all tests, so that none uses it by mistake.
TOKEN = os.environ.get("TL_TEST_HUB_TOKEN")


@pytest.fixture
def name() -> Iterator[str]:
    """Of a repository that is not there yet, and is no more afterwards."""
    from huggingface_hub import HfApi

    api = HfApi(token=TOKEN)
    repo_id = f"{api.whoami()['name']}/tl-core-test-{secrets.token_hex(6)}"
    yield repo_id
    for kind, made in (("model", repo_id), ("space", demo_of(repo_id)), ("space", app_of(repo_id))):
        api.delete_repo(made, repo_type=kind, missing_ok=True)


@pytest.mark.hub
@pytest.mark.skipif(not TOKEN, reason="TL_TEST_HUB_TOKEN holds no access token")
def test_a_model_goes_to_the_hub_and_comes_back(name: str, home: Path, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    go_there_and_back(name, TOKEN or "", home, tmp_path)
    assert HfApi(token=TOKEN).model_info(name).pipeline_tag == "image-classification"  # the Hub has read the card


@pytest.mark.slow
def test_the_same_way_on_the_hub_of_these_tests(hub: Hub, home: Path, tmp_path: Path) -> None:
    token = "hf_MayWriteForMe"
    hub.people[token] = Person("me")
    go_there_and_back("me/leaves", token, home, tmp_path)
    assert {name for name, repo in hub.repos.items() if repo.private} == {
        "me/leaves",
        f"spaces/{demo_of('me/leaves')}",
        f"spaces/{app_of('me/leaves')}",
    }
