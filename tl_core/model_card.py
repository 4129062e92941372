"""The card of a trained model: from a run's report to the README.md that is saved, and published, beside the weights.

All prose is in `templates/model_card.md`. Whatever that prints is escaped, so that a class or a folder may have any
name. Must not know how the report came about, nor the Hub.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, Template

from tl_core import catalogue
from tl_core.config import options

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"

# With fewer pictures the 95 % interval (Wilson) of a class's recall can be wider than ± 25 points.
FEW_PICTURES = 12
MISTAKES_SHOWN = 5
RARE_SHOWN = 10

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


class Markdown(str):
    """Text that is Markdown already and must not be escaped."""


def render_card(
    report: Mapping[str, Any], config: Mapping[str, Any], *, name: str | None = None, model: str = "path/to/this/folder"
) -> str:
    """The card as Markdown with YAML front matter. Keys that `report` or `config` lacks are left out of the card.

    `name` is the title, `model` what a person passes to transformers: a folder or a Hub id.
    """
    data, metrics, backbone = (report.get(key) or {} for key in ("data", "metrics", "backbone"))
    splits = data.get("splits") or {}
    precision = report.get("precision")
    text = _template().render(
        front_matter=Markdown(_front_matter(report, backbone)),
        title=name or config.get("name") or "Image classifier",
        classes=data.get("classes") or {},
        data=data,
        metrics=metrics,
        mistakes=_mistakes(metrics),
        rare=[row["label"] for row in metrics.get("per_class") or [] if row["support"] < FEW_PICTURES],
        few=FEW_PICTURES,
        rare_shown=RARE_SHOWN,
        usage=_fenced("python", usage(model)),
        made=bool(report or config),
        backbone=backbone,
        strategy=report.get("strategy"),
        teacher=report.get("teacher") or {},
        choice=report.get("choice"),
        control=report.get("control") or {},
        warnings=report.get("warnings") or [],
        refit=report.get("refit"),
        precision=precision if isinstance(precision, str) else (precision or {}).get("dtype"),
        splits={split: images for split, images in splits.items() if type(images) is int and images},
        tables={
            "Setting": _settings(config),
            "Found on the way": _plain_values(report.get("head") or report.get("training") or {}),
            "Seconds": {part: f"{value:,.1f}" for part, value in (report.get("seconds") or {}).items() if value},
            "Version": report.get("versions") or {},
        },
        command=_fenced("bash", str(report["command"])) if report.get("command") else None,
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def usage(model: str) -> str:
    """Three lines of Python that use a model, a folder or a Hub id, with plain transformers."""
    return (
        "from transformers import pipeline\n"
        f'classify = pipeline("image-classification", model={json.dumps(model, ensure_ascii=False)})\n'
        'print(classify("photo.jpg"))'
    )


def escape_markdown(value: object) -> str:
    """`value` as one line that shows literally in Markdown, inside a table too."""
    text = _MARKDOWN.sub(r"\\\1", _one_line(value))
    return "".join(_HTML.get(character, character) for character in text)


def _one_line(value: object) -> str:
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in str(value))


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=False,  # HTML's rules are not enough for Markdown: finalize escapes whatever is printed
        finalize=lambda value: value if isinstance(value, Markdown) else escape_markdown(value),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _front_matter(report: Mapping[str, Any], backbone: Mapping[str, Any]) -> str:
    matter: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "vision"],
        "metrics": ["accuracy", "f1"],
    }
    if report.get("strategy") not in (None, "scratch"):
        matter["tags"].append("transfer-learning")
    known = catalogue.find(str(backbone.get("id")))
    licence = backbone.get("licence") or (known.licence if known else None)
    if licence:
        matter["license"] = licence if _LICENCE.fullmatch(licence) else "other"
    if backbone.get("revision") and report.get("strategy") != "scratch":  # only what is on the Hub has a revision
        matter["base_model"] = _one_line(backbone["id"])
    # JSON is YAML too, and quotes whatever needs it.
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in matter.items())


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The options of the run under the names that the command line and the page use."""
    labels = {option.name: option.label for option in options()}
    return {labels.get(key, key): str(value) for key, value in config.items() if value is not None}


def _plain_values(values: Mapping[str, Any]) -> dict[str, str]:
    plain = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
    return {
        key.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else str(value)
        for key, value in plain.items()
    }


def _mistakes(metrics: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """(true class, answer, how often), the most frequent first."""
    matrix, labels = metrics.get("confusion_matrix") or [], metrics.get("labels") or []
    wrong = [
        (labels[truth], labels[answer], times)
        for truth, row in enumerate(matrix)
        for answer, times in enumerate(row)
        if truth != answer and times
    ]
    return sorted(wrong, key=lambda mistake: -mistake[2])[:MISTAKES_SHOWN]


def _fenced(language: str, code: str) -> Markdown:
    """A code block that no run of backticks inside it can end."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{language}\n{code}\n{fence}")
