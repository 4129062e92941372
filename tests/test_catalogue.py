"""The catalogue of backbones: what is embedded is read from disk, what is on the Hub is written down and checked."""

import json
import struct
from pathlib import Path

import pytest
import yaml

from tl_core import catalogue
from tl_core.catalogue import HUB_BACKBONES, Backbone
from tl_core.errors import ModelError
from tl_core.hub import fetch_model, is_hub_id
from tl_core.settings import read_settings

FAMILIES = {"ViT", "ResNet", "ConvNeXt", "Swin", "DINOv2", "EfficientNet", "MobileNet", "VGG", "Inception"}


def write_backbone(folder: Path, card: dict[str, str], tensors: dict[str, list[int]], processor: object) -> Path:
    """A backbone's folder with a real safetensors header and no weights behind it."""
    folder.mkdir(parents=True)
    header = json.dumps(
        {"__metadata__": {"format": "pt"}}
        | {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# A backbone\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


CARD = {"family": "ResNet", "license": "apache-2.0", "summary": "To begin with."}
TENSORS = {
    "a.weight": [3, 4, 5],
    "a.norm.running_mean": [7],
    "a.norm.running_var": [7],
    "a.norm.num_batches_tracked": [],
    "scale": [],
}


def test_an_embedded_backbone_is_described_by_its_folder(tmp_path: Path) -> None:
    folder = write_backbone(tmp_path / "tiny-resnet", CARD, TENSORS, {"size": {"shortest_edge": 64}})
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.json").write_text("{}")
    (found,) = catalogue.embedded(tmp_path)
    assert found == Backbone(
        "tiny-resnet", "ResNet", 61, 64, "apache-2.0", "To begin with.", embedded=True, default=True, path=folder
    )
    assert json.loads(json.dumps(found.to_json()))["path"] == str(folder)


def test_the_default_comes_first(tmp_path: Path) -> None:
    for name in ("aaa", "tiny-resnet", "zzz"):
        write_backbone(tmp_path / name, CARD, TENSORS, {"size": 64})
    assert [backbone.id for backbone in catalogue.embedded(tmp_path)] == ["tiny-resnet", "aaa", "zzz"]
    assert [backbone.default for backbone in catalogue.embedded(tmp_path)] == [True, False, False]


@pytest.mark.parametrize(
    ("processor", "side"),
    [
        ({"size": {"height": 96, "width": 96}}, 96),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}, 224),
        ({"size": {"shortest_edge": 64}, "crop_size": {"height": 224, "width": 224}}, 64),
    ],
)
def test_the_image_size_is_what_the_network_sees(tmp_path: Path, processor: object, side: int) -> None:
    write_backbone(tmp_path / "any", CARD, TENSORS, processor)
    assert catalogue.embedded(tmp_path)[0].image_size == side


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("README.md", "# no front matter", "no front matter"),
        ("README.md", "---\nfamily: [\n---\n", "not YAML"),
        ("README.md", "---\nfamily: ResNet\n---\n", "KeyError"),
        ("model.safetensors", "PK not safetensors", "is not a safetensors file"),
        ("model.safetensors", "short", "is not a safetensors file"),
        ("preprocessor_config.json", "{}", "KeyError"),
    ],
)
def test_a_damaged_backbone_is_named(tmp_path: Path, file: str, content: str, said: str) -> None:
    (write_backbone(tmp_path / "any", CARD, TENSORS, {"size": 64}) / file).write_text(content)
    with pytest.raises(ModelError, match=f"the embedded backbone any is damaged .*{said}.*install it again"):
        catalogue.embedded(tmp_path)


def test_what_is_embedded_is_whole_and_lists_before_the_rest() -> None:
    listed = catalogue.list_backbones()
    assert [backbone.embedded for backbone in listed] == sorted((b.embedded for b in listed), reverse=True)
    for backbone in catalogue.embedded():
        assert backbone.path is not None
        assert (backbone.path / "README.md").is_file()
        assert backbone.parameters > 0
        assert backbone.summary
        assert "/" not in backbone.id
        assert catalogue.find(backbone.id) == backbone


def test_the_hub_part_covers_every_family_with_complete_entries() -> None:
    assert {backbone.family for backbone in HUB_BACKBONES} == FAMILIES
    assert len({backbone.id for backbone in HUB_BACKBONES}) == len(HUB_BACKBONES)
    for backbone in HUB_BACKBONES:
        assert is_hub_id(backbone.id)
        assert backbone.parameters > 1_000_000
        assert backbone.image_size in (224, 299)
        assert backbone.licence
        assert backbone.summary.endswith(".")
        assert not backbone.embedded
        assert not backbone.default


def test_an_entry_is_found_by_its_exact_id_and_a_misspelt_one_guessed() -> None:
    found = catalogue.find("microsoft/resnet-18")
    assert found is not None
    assert found.family == "ResNet"
    assert catalogue.find("microsoft/resnet18") is None
    assert catalogue.nearest("Microsoft/resnet18") == "microsoft/resnet-18"
    assert catalogue.nearest("someone/else") is None


@pytest.mark.hub
@pytest.mark.parametrize("backbone", HUB_BACKBONES, ids=lambda backbone: backbone.id)
def test_a_hub_backbone_loads_and_is_as_described(backbone: Backbone) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

    fetched = fetch_model(backbone.id, read_settings())
    loader = AutoModelForImageClassification if backbone.has_head else AutoModel
    model, loading = loader.from_pretrained(
        fetched.path, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) == backbone.parameters
    processor = AutoImageProcessor.from_pretrained(fetched.path)
    if backbone.id.startswith("timm/"):
        assert model.config.pretrained_cfg["input_size"][-1] == backbone.image_size
    else:
        side = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
        assert (side.get("height") or side["shortest_edge"]) == backbone.image_size
