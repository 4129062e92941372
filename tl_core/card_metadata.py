"""The metadata of a model's card: the YAML that the Hub reads, and whether the Hub would take it.

Made and parsed by huggingface_hub's own classes, without a network. Must not know the card's prose.
"""

import math
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core import catalogue
from tl_core.errors import HubError
from tl_core.hub.names import page_of
from tl_core.hub.repository import endpoint
from tl_core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

TASK = "image-classification"
# What a reader finds this project by: its name, and the tag by which the Hub lists the models that it has made.
PROJECT = "Teach an image classifier"
PROJECT_TAG = "tl_core"
# What the Hub calls a dataset of images in folders that is no dataset of its own (`datasets`' loader of that name).
LOCAL_DATASET = "imagefolder"
# The Hub's word for a licence that is not in its list; name and link then say which one.
OTHER_LICENCE = "other"

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_ENDS_OF_LINE = {"Cc", "Zl", "Zp"}
# They turn the direction of writing, for whatever follows too.
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def front_matter(report: Mapping[str, Any], config: Mapping[str, Any], title: str) -> str:
    """The YAML of a card, without its lines of dashes. What `report` or `config` lacks is left out."""
    from huggingface_hub import ModelCardData

    backbone = report.get("backbone") or {}
    transferred = report.get("strategy") not in (None, "scratch")
    licence, dataset = licence_fields(report), hub_dataset(report, config)
    results = _results(report, config)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK,
        tags=[TASK, "vision", *(["transfer-learning"] if transferred else []), PROJECT_TAG],
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        base_model=backbone_hub_id(backbone) if transferred else None,
        datasets=[dataset] if dataset else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=one_line(title) if results else None,
        eval_results=results or None,
    )
    return data.to_yaml(line_break="\n") + "\n"


def check_card(text: str) -> None:
    """Whether the Hub can take this card, as far as can be known without asking it. Raises HubError with every reason.

    The Hub's own answer (`/api/validate-yaml`) comes with the upload, which huggingface_hub never begins without it.
    """
    import yaml
    from huggingface_hub import ModelCard, ModelCardData

    try:
        data = ModelCard(text).data
        assert isinstance(data, ModelCardData)
        again = ModelCard(f"---\n{data.to_yaml()}\n---\n").data
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as failure:
        raise HubError(
            "the metadata of the card cannot be read; see to it that README.md begins with valid YAML", [str(failure)]
        ) from failure
    if not data.to_dict():
        raise HubError("the card has no metadata: README.md must begin with YAML between two lines of ---")
    problems = [*_problems(data), *([] if again.to_dict() == data.to_dict() else ["it changes when it is written"])]
    if problems:
        raise HubError("the Hub would refuse the metadata of the card", problems)


def backbone_hub_id(backbone: Mapping[str, Any]) -> str | None:
    """The Hub id of a backbone, None for one that came from anywhere else. Only what is on the Hub has a revision."""
    named = str(backbone.get("id") or "")
    return named if backbone.get("revision") and is_repository(named) else None


def hub_dataset(report: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The Hub id of the dataset, None for images from anywhere else.

    A run names a folder or file by its absolute path, or by its bare name once it is handed on: owner/name is neither.
    """
    word = str((report.get("data") or {}).get("source") or config.get("data") or "")
    return word if word.count("/") == 1 and is_repository(word) else None


def is_repository(text: str) -> bool:
    """Whether huggingface_hub takes `text` as a repository's id."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented there

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def licence_fields(report: Mapping[str, Any]) -> dict[str, str]:
    """The licence as the card's metadata has it; nothing where it is not known.

    Weights that began as a backbone's are under its licence; random ones are not.
    """
    backbone = report.get("backbone") or {}
    if report.get("strategy") == "scratch":
        return {}
    known = catalogue.find(str(backbone.get("id")))
    licence = known.licence if known else backbone.get("licence")
    if not licence:
        return {}
    if licence != OTHER_LICENCE and _LICENCE.fullmatch(licence):
        return {"license": licence}
    base = backbone_hub_id(backbone)
    named = {"license_name": "as-the-backbone", "license_link": f"{endpoint()}/{base}"} if base else {}
    return {"license": OTHER_LICENCE, **named}


def licence_beside(model: Path) -> str | None:
    """The licence that the card in a model's folder names; None where it names none that can be read."""
    try:
        licence = catalogue.read_front_matter(model / "README.md").get("license")
    except (OSError, ValueError, RecursionError):
        return None
    return licence.strip().lower() or None if isinstance(licence, str) else None


def project_address(settings: Settings) -> str | None:
    """Where this project can be found, as far as that is known: its own address, or the Space that this runs on."""
    own = page_of("space", os.environ["SPACE_ID"]) if settings.on_space and "SPACE_ID" in os.environ else None
    return settings.project_url or own


def without_folder(word: object) -> str:
    """What a person named, without the folders of their computer."""
    text = str(word)
    return Path(text).name if Path(text).is_absolute() else text


def one_line(value: object) -> str:
    """`value` on one line, without half characters and without what turns the direction of writing."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.bidirectional(letter) in _TURNS or unicodedata.category(letter) == "Cs"
        else " "
        if unicodedata.category(letter) in _ENDS_OF_LINE
        else letter
        for letter in str(value)
    )


def _results(report: Mapping[str, Any], config: Mapping[str, Any]) -> "list[EvalResult]":
    """The test figures as the card's `model-index` has them."""
    from huggingface_hub import EvalResult

    metrics, data = report.get("metrics") or {}, report.get("data") or {}
    on_hub = hub_dataset(report, config)
    named = one_line(without_folder(data.get("source") or config.get("data") or LOCAL_DATASET))
    judged_by_folds = metrics.get("method") == "k-fold"
    figures = (
        ("accuracy", "Accuracy", metrics.get("accuracy"), None),
        ("f1", "Macro-F1", metrics.get("macro_f1"), {"average": "macro"}),
    )
    return [
        EvalResult(
            task_type=TASK,
            task_name="Image Classification",
            dataset_type=on_hub or LOCAL_DATASET,
            dataset_name=named,
            dataset_revision=data.get("revision") if on_hub else None,
            dataset_split=None if judged_by_folds or not metrics.get("split") else one_line(metrics["split"]),
            metric_type=kind,
            metric_name=title,
            metric_value=round(value, 4),
            metric_args=arguments,
        )
        for kind, title, value, arguments in figures
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def _problems(data: "ModelCardData") -> list[str]:
    """What the Hub verifies: licence, ids, task, figures (https://github.com/huggingface/hub-docs, modelcard.md)."""
    found = []
    for field in ("base_model", "datasets"):
        ids = data.get(field, [])
        for each in [ids] if isinstance(ids, str) else ids:
            if not isinstance(each, str) or not is_repository(each):
                found.append(f"{field} has {each!r}, which is no id on the Hub such as owner/name")
    licence = data.get("license")
    if licence is not None and not (isinstance(licence, str) and _LICENCE.fullmatch(licence)):
        found.append(f"license is {licence!r}, which is no identifier such as apache-2.0")
    if data.get("pipeline_tag", TASK) != TASK:
        found.append(f"pipeline_tag is {data.get('pipeline_tag')!r} and must be {TASK}")
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        found.append("tags must be words")
    for result in data.eval_results or []:
        value = result.metric_value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            found.append(f"model-index gives {result.metric_type!r} as {value!r}, which is no number")
    return found
