"""The YAML of a model's card: what it claims, and that what the Hub would refuse is found before it is asked."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard

from tests.cards import a_report, front_matter
from tl_core.card_metadata import licence_beside
from tl_core.errors import HubError
from tl_core.model_card import check_card, render_card


@pytest.fixture(autouse=True)
def _the_hub_of_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT")  # nothing is asked of it


def test_links_lead_to_the_hub_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org/")
    card = render_card(a_report(["cat", "dog"]), {})
    assert "(https://hub.example.org/owner/net/tree/c0ffee)" in card and "huggingface.co" not in card


def test_the_front_matter_is_what_the_hub_expects() -> None:
    card = render_card(a_report(["cat", "dog"]), {}, name="Leaves")
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "vision", "transfer-learning", "tl_core"],
        "metrics": ["accuracy", "f1"],
        "license": "apache-2.0",
        "base_model": "owner/net",
        "model-index": [
            {
                "name": "Leaves",
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image Classification"},
                        "dataset": {"type": "imagefolder", "name": "photos", "split": "test"},
                        "metrics": [
                            {"type": "accuracy", "name": "Accuracy", "value": 0.875},
                            {"type": "f1", "name": "Macro-F1", "value": 0.861, "args": {"average": "macro"}},
                        ],
                    }
                ],
            }
        ],
    }
    parsed = ModelCard(card).data
    assert parsed.to_dict() == front_matter(card)
    assert [type(result) for result in parsed.eval_results] == [EvalResult, EvalResult]
    check_card(card)


@pytest.mark.parametrize(
    ("backbone", "base_model", "named"),
    [
        ({"id": "owner/net", "revision": "c0ffee"}, "owner/net", "[owner/net](https://huggingface.co/owner/net/tree/c0ffee)"),
        ({"id": "tiny-resnet", "revision": None, "fingerprint": "abc1"}, None, "tiny-resnet (hash of its weights and"),
        ({"id": "/home/me/nets/mine", "kind": "run", "fingerprint": "abc1"}, None, "The backbone is mine (hash"),
        ({"id": "no id!", "revision": "c0ffee", "fingerprint": "abc1"}, None, "The backbone is no id!, at revision"),
    ],
)  # fmt: skip
def test_only_a_backbone_with_a_hub_id_is_a_base_model(
    backbone: dict[str, Any], base_model: str | None, named: str
) -> None:
    card = render_card(a_report(["cat", "dog"], backbone=backbone), {})
    assert front_matter(card).get("base_model") == base_model
    assert named in card
    assert ("abc1" in card) is (base_model is None)
    assert "/home" not in card


@pytest.mark.parametrize("source", ["photos", "/home/me/owner/photos", "sample:digits", "imdb", "two words/x"])
def test_images_that_are_no_hub_dataset_are_not_claimed_to_be_one(source: str) -> None:
    report = a_report(["cat", "dog"])
    report["data"]["source"] = source
    card = render_card(report, {"data": source})
    matter = front_matter(card)
    assert "datasets" not in matter
    assert matter["model-index"][0]["results"][0]["dataset"]["type"] == "imagefolder"
    assert "/home" not in card
    check_card(card)


def test_a_hub_dataset_is_named_and_linked() -> None:
    report = a_report(["cat", "dog"])
    report["data"] |= {"source": "owner/leaves", "revision": "beef"}
    card = render_card(report, {})
    assert front_matter(card)["datasets"] == ["owner/leaves"]
    dataset = front_matter(card)["model-index"][0]["results"][0]["dataset"]
    assert dataset == {"type": "owner/leaves", "name": "owner/leaves", "split": "test", "revision": "beef"}
    assert "from [owner/leaves](https://huggingface.co/datasets/owner/leaves), at revision beef." in card


def test_a_model_from_scratch_claims_no_base_and_no_transfer() -> None:
    matter = front_matter(render_card(a_report(["cat", "dog"], strategy="scratch"), {}))
    assert "base_model" not in matter
    assert "transfer-learning" not in matter["tags"]


@pytest.mark.parametrize(
    ("backbone", "licence"),
    [
        ({"id": "microsoft/resnet-18", "revision": "c0"}, "apache-2.0"),
        ({"id": "someone/net", "revision": "c0"}, None),
        ({"id": "my folder", "licence": "ask: me\n"}, "other"),
        ({"id": "google/mobilenet_v2_1.0_224", "revision": "c0"}, "other"),
        (
            {"id": "google/mobilenet_v2_1.0_224", "revision": "c0", "licence": "mit"},
            "other",
        ),  # the catalogue knows more
    ],
)
def test_the_licence_is_given_where_it_is_known(backbone: dict[str, str], licence: str | None) -> None:
    assert front_matter(render_card(a_report(["cat", "dog"], backbone=backbone), {})).get("license") == licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (b"---\nlicense: Apache-2.0\ntags: [a]\n---\n# A net", "apache-2.0"),
        (b"---\r\nlicense: mit\r\n---\r\n", "mit"),
        (b"---\nlicense: [mit, gpl]\n---\n", None),
        (b"---\n- license\n---\n", None),
        (b"---\nlicense: [\n---\n", None),
        (b"license: mit", None),
        (b"\xff\xfe", None),
        (b"", None),
        (None, None),
    ],
)
def test_the_licence_is_read_from_the_card_beside_a_model(
    tmp_path: Path, card: bytes | None, licence: str | None
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_bytes(card)
    assert licence_beside(tmp_path) == licence


@pytest.mark.parametrize(
    ("matter", "problem"),
    [
        ("license: [", "cannot be read"),
        ("tags: 5", "cannot be read"),
        ("model-index:\n- name: x\n  results:\n  - task: {type: t}", "cannot be read"),
        ("base_model: my net", "base_model"),
        ("datasets: [photos of mine]", "datasets"),
        ("license: Apache License", "license"),
        ("pipeline_tag: text-generation", "pipeline_tag"),
        (
            "model-index:\n- name: x\n  results:\n  - task: {type: t}\n    dataset: {type: d, name: d}\n"
            "    metrics: [{type: accuracy, value: .nan}]",
            "no number",
        ),
    ],
)
def test_metadata_that_the_hub_would_refuse_is_found_here(matter: str, problem: str) -> None:
    with pytest.raises(HubError) as failure:
        check_card(f"---\nlibrary_name: transformers\n{matter}\n---\n# Mine\n")
    assert problem in " ".join([failure.value.message, *failure.value.details])


@pytest.mark.parametrize("text", ["# Mine\n", "---\njust text\n---\n", "---\nlicense: mit\n", ""])
def test_a_card_without_metadata_is_refused(text: str) -> None:
    with pytest.raises(HubError):
        check_card(text)


def test_a_card_is_made_and_checked_without_a_network() -> None:
    """Every way out is closed, and nothing is asked for."""
    code = (
        "import socket\n"
        "def closed(*_, **__): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = closed\n"
        "from tl_core.model_card import check_card, render_card\n"
        "check_card(render_card({'metrics': {'accuracy': 0.5}}, {'data': 'owner/name'}, model='owner/net'))\n"
    )
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent, env=environment)
