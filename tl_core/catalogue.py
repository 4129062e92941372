"""Curated backbones: which ones to start from, how big they are, under which licence, and when to take which.

Embedded backbones are found in `backbones/`, one folder each, and described by what lies in it; the others are ids of
repositories on the Hugging Face Hub, chosen because their weights are safetensors. Any other Hub id or folder works as
well: the catalogue advises, it does not restrict.
This module must not know how a backbone is fetched, loaded or trained: no Hub client, no torch.
"""

import json
import math
import struct
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tl_core.errors import ModelError

DEFAULT_MODEL = "tiny-resnet"
BACKBONES_DIR = Path(__file__).parent / "backbones"
_MOST_OF_CARD = 1_000_000  # characters that are read for what stands at its head

# The safetensors format's own limit (https://huggingface.co/docs/safetensors): a longer header is a damaged file.
_MAX_HEADER_BYTES = 100_000_000
# Batch normalisation's running figures are stored among the weights but are not learned.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Backbone:
    """One entry. `image_size` is the side in pixels that the network sees; `parameters` counts the checkpoint's
    learned numbers, its own classifier included; `licence` is an identifier as on the Hub, "other" where it is none of
    the standard ones or its sources disagree."""

    id: str
    family: str
    parameters: int
    image_size: int
    licence: str
    summary: str
    has_head: bool = True  # False: `train` gives it a head, `predict` has nothing to say yet
    embedded: bool = False
    default: bool = False
    path: Path | None = None  # the folder of an embedded backbone

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path) if self.path else None}


HUB_BACKBONES = (
    Backbone(
        "microsoft/resnet-18",
        "ResNet",
        11_689_512,
        224,
        "apache-2.0",
        "A small, quick all-rounder for a computer without a graphics card.",
    ),
    Backbone(
        "microsoft/resnet-50",
        "ResNet",
        25_557_032,
        224,
        "apache-2.0",
        "The classic that most published results are compared with.",
    ),
    Backbone(
        "WinKawaks/vit-small-patch16-224",
        "ViT",
        22_050_664,
        224,
        "apache-2.0",
        "A vision transformer of ResNet-50's size, for photos of everyday things.",
    ),
    Backbone(
        "google/vit-base-patch16-224",
        "ViT",
        86_567_656,
        224,
        "apache-2.0",
        "The standard vision transformer, when there is a graphics card or time.",
    ),
    Backbone(
        "google/vit-base-patch16-224-in21k",
        "ViT",
        86_389_248,
        224,
        "apache-2.0",
        "The same transformer before it was narrowed to 1,000 classes: better for subjects unlike those, say plants.",
        has_head=False,
    ),
    Backbone(
        "timm/convnext_tiny.fb_in22k_ft_in1k",
        "ConvNeXt",
        28_589_128,
        224,
        "apache-2.0",
        "A modern convolutional network: usually more accurate than ResNet-50 at the same cost.",
    ),
    Backbone(
        "facebook/convnextv2-tiny-22k-224",
        "ConvNeXt",
        28_635_496,
        224,
        "other",
        "ConvNeXt's second version, when its licence suits: the card says Apache-2.0, its authors say non-commercial.",
    ),
    Backbone(
        "microsoft/swin-tiny-patch4-window7-224",
        "Swin",
        28_288_354,
        224,
        "apache-2.0",
        "A transformer that looks closely at neighbourhoods: good where small details decide.",
    ),
    Backbone(
        "facebook/dinov2-small",
        "DINOv2",
        22_056_576,
        224,
        "apache-2.0",
        "The first choice for frozen mode with few images: learned without labels, so it favours no subject.",
        has_head=False,
    ),
    Backbone(
        "facebook/dinov2-base",
        "DINOv2",
        86_580_480,
        224,
        "apache-2.0",
        "The most accurate here on few images, at four times the time of dinov2-small.",
        has_head=False,
    ),
    Backbone(
        "timm/efficientnet_b0.ra_in1k",
        "EfficientNet",
        5_288_548,
        224,
        "apache-2.0",
        "Accurate for its size, when the trained model must be a small file.",
    ),
    Backbone(
        "google/mobilenet_v2_1.0_224",
        "MobileNet",
        3_506_153,
        224,
        "other",
        "The lightest here, for a phone or a small board; its card names no standard licence.",
    ),
    Backbone(
        "timm/mobilenetv3_large_100.ra_in1k",
        "MobileNet",
        5_483_032,
        224,
        "apache-2.0",
        "For a phone when accuracy matters a little more than size.",
    ),
    Backbone(
        "timm/mobilenetv4_conv_small.e2400_r224_in1k",
        "MobileNet",
        3_774_024,
        224,
        "apache-2.0",
        "The newest of its family, for live pictures on a phone or without a graphics card.",
    ),
    Backbone(
        "timm/vgg16_bn.tv_in1k",
        "VGG",
        138_365_992,
        224,
        "bsd-3-clause",
        "For comparison with older work and for style features; large and slow for its accuracy.",
    ),
    Backbone(
        "timm/inception_v3.tv_in1k",
        "Inception",
        23_834_568,
        299,
        "apache-2.0",
        "For comparison with older work, and for larger pictures whose objects differ much in size.",
    ),
)


def embedded(folder: Path = BACKBONES_DIR) -> list[Backbone]:
    """The backbones that come with this project, the default first. Raises ModelError where one is damaged."""
    complete = [file.parent for file in folder.glob("*/model.safetensors") if (file.parent / "config.json").is_file()]
    return sorted((_describe(path) for path in complete), key=lambda backbone: (not backbone.default, backbone.id))


def list_backbones() -> list[Backbone]:
    """The whole catalogue: embedded backbones first."""
    return embedded() + list(HUB_BACKBONES)


def find(model_id: str) -> Backbone | None:
    """The entry with exactly this id, or None: most ids on the Hub are not in the catalogue."""
    return next((backbone for backbone in list_backbones() if backbone.id == model_id), None)


def nearest(model_id: str) -> str | None:
    """The catalogue's id that a misspelt one probably means."""
    ids = {backbone.id.lower(): backbone.id for backbone in list_backbones()}
    near = get_close_matches(model_id.lower(), ids, n=1, cutoff=0.8)
    return ids[near[0]] if near else None


def count_parameters(weights: Path) -> int:
    """Learned numbers in a safetensors file, from its header alone: 8 bytes of length, then JSON of names and shapes.

    Raises ValueError where the file is no safetensors file.
    """
    with weights.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= _MAX_HEADER_BYTES:
            raise ValueError(f"{weights.name} is not a safetensors file")
        header = json.loads(file.read(length))
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in header.items()
        if name != "__metadata__" and name.rpartition(".")[2] not in _BUFFERS
    )


def _describe(folder: Path) -> Backbone:
    """Family, licence and summary stand at the head of the card; the rest follows from the checkpoint itself."""
    try:
        card = read_front_matter(folder / "README.md")
        processor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        return Backbone(
            id=folder.name,
            family=str(card["family"]),
            parameters=count_parameters(folder / "model.safetensors"),
            image_size=_image_size(processor),
            licence=str(card["license"]),
            summary=str(card["summary"]),
            embedded=True,
            default=folder.name == DEFAULT_MODEL,
            path=folder,
        )
    except (OSError, ValueError, KeyError) as fault:
        raise ModelError(
            f"the embedded backbone {folder.name} is damaged ({type(fault).__name__}: {fault}); install it again"
        ) from fault


def read_front_matter(card: Path) -> dict[str, Any]:
    """The YAML between the first two lines of dashes of a card. Raises ValueError where there is none, OSError."""
    import yaml  # most commands never read a card

    with card.open(encoding="utf-8") as stream:
        parts = stream.read(_MOST_OF_CARD).split("---\n", 2)
    try:
        value = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError as fault:
        raise ValueError(f"{card.name} has a front matter that is not YAML") from fault
    if not isinstance(value, dict):
        raise ValueError(f"{card.name} has no front matter")
    return value


def _image_size(processor: dict[str, Any]) -> int:
    """Side in pixels of what the processor hands to the network: the crop where it crops, else the resized picture."""
    size = processor["crop_size"] if processor.get("do_center_crop") else processor["size"]
    if isinstance(size, int):
        return size
    return int(size.get("height") or size["shortest_edge"])
