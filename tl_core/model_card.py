"""The card of a trained model: from a run's report to the README.md that is saved, and published, beside the weights.

All prose is in `templates/model_card.md`, the metadata in `card_metadata.py`. Whatever a name prints is escaped, so
that a class or a folder may have any. Must not know how the report came about, nor how the card is published.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from jinja2 import ChainableUndefined, Environment, Template

from tl_core.card_metadata import (
    PROJECT,
    backbone_hub_id,
    check_card,
    front_matter,
    hub_dataset,
    is_repository,
    licence_fields,
    one_line,
    without_folder,
)
from tl_core.config import options
from tl_core.hub.repository import endpoint

__all__ = ["check_card", "escape_markdown", "render_card", "usage"]

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
UNNAMED = "Image classifier"

# With fewer pictures the 95 % interval (Wilson) of a class's recall can be wider than ± 25 points.
FEW_PICTURES = 12
MISTAKES_SHOWN = 5
RARE_SHOWN = 10
# Longer tables are folded away: what comes after them is worth reading too.
ROWS_IN_SIGHT = 30

_FOLDERS = ("data", "model", "teacher")  # settings that may name a folder of somebody's computer

_ESCAPES: dict[str, str | int | None] = {
    **{letter: f"\\{letter}" for letter in "`*_{}[]#|~"},
    **{"&": "&amp;", "<": "&lt;", ">": "&gt;"},
    # The Hub takes what is between $$ for a formula, and between two backslashes and a bracket, escaped or not.
    **{"\\": "&#92;", "$": "&#36;"},
}


class Markdown(str):
    """Text that is Markdown already and must not be escaped."""


def render_card(
    report: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    name: str | None = None,
    model: str = "path/to/this/folder",
    pictures: Mapping[str, str] | None = None,
    project_url: str | None = None,
) -> str:
    """The card as Markdown with YAML front matter. Keys that `report` or `config` lacks are left out of the card.

    `name` is the title (else the run's name, else the repository's), `model` what a person passes to transformers: a
    folder or a Hub id. `pictures` are those that lie beside the card, {place in the repository: what it shows}; what
    those of `result_pictures` and `recall_chart` show is known. `project_url` is where a reader finds this project.
    Raises ValueError for a place outside of the repository.
    """
    data, metrics, backbone = (report.get(key) or {} for key in ("data", "metrics", "backbone"))
    title = name or config.get("name") or _repository_name(model) or UNNAMED
    precision = report.get("precision")
    beside = {PurePosixPath(path).stem: (_place(path), caption) for path, caption in (pictures or {}).items()}
    known = ("confusion-matrix", "recall-by-class", "training-curves")
    matrix, recalls, curves = (beside.pop(stem, (None, ""))[0] for stem in known)
    text = _template().render(
        front_matter=Markdown(front_matter(report, config, title)),
        title=title,
        classes=data.get("classes") or {},
        data=data,
        source=_source(report, config),
        metrics=metrics,
        recall_intervals=any("recall_ci" in row for row in metrics.get("per_class") or []),
        mistakes=_mistakes(metrics),
        rare=[row["label"] for row in metrics.get("per_class") or [] if row["support"] < FEW_PICTURES],
        few=FEW_PICTURES,
        rare_shown=RARE_SHOWN,
        in_sight=ROWS_IN_SIGHT,
        matrix=matrix,
        recalls=recalls,
        curves=curves,
        other_pictures=beside.values(),
        usage=_fenced("python", usage(model)),
        made=bool(report or config),
        stopped=report.get("stopped"),
        backbone=backbone,
        backbone_named=_model_named(backbone),
        on_hub=backbone_hub_id(backbone) is not None,
        project=_link(PROJECT, project_url) if project_url else PROJECT,
        licence=licence_fields(report),
        strategy=report.get("strategy"),
        teacher=report.get("teacher") or {},
        teacher_named=_model_named(report.get("teacher") or {}),
        choice=report.get("choice") or {},
        control=report.get("control") or {},
        parity=report.get("parity") or {},
        warnings=report.get("warnings") or [],
        refit=report.get("refit"),
        precision=precision if isinstance(precision, str) else (precision or {}).get("dtype"),
        precision_reason=report.get("precision_reason"),
        splits={part: n for part, n in (data.get("splits") or {}).items() if type(n) is int and n},
        seconds={part: value for part, value in (report.get("seconds") or {}).items() if value},
        machine=report.get("machine") or {},
        seed=report.get("seed"),
        settings=_settings(config),
        found=list(_found(report.get("training") or {})),
        versions=report.get("versions") or {},
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
    return one_line(value).translate(str.maketrans(_ESCAPES))


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
    environment.filters["interval"] = lambda ends: f"{100 * ends[0]:.1f} % to {100 * ends[1]:.1f} %" if ends else ""
    environment.filters["points"] = lambda share: f"{100 * share:.1f}"
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["seconds"] = lambda value: f"{value:,.1f} s"
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _repository_name(model: str) -> str | None:
    return model.split("/")[1] if model.count("/") == 1 and is_repository(model) else None


def _source(report: Mapping[str, Any], config: Mapping[str, Any]) -> object:
    """Where the images are from: a link for a dataset on the Hub, else a name without folders."""
    dataset = hub_dataset(report, config)
    if dataset:
        return _link(dataset, f"{endpoint()}/datasets/{dataset}")
    named = (report.get("data") or {}).get("source")
    return named and without_folder(named)


def _model_named(described: Mapping[str, Any]) -> object:
    """A backbone or teacher: a link at its revision where it has a Hub id, else its name."""
    on_hub = backbone_hub_id(described)
    if on_hub:
        return _link(on_hub, f"{endpoint()}/{on_hub}/tree/{quote(str(described['revision']), safe='')}")
    return described.get("id") and without_folder(described["id"])


def _link(text: str, address: str) -> Markdown:
    return Markdown(f"[{escape_markdown(text)}]({address})")


def _place(path: str) -> Markdown:
    """A picture's address in the card."""
    place = PurePosixPath(path)
    if not path or place.is_absolute() or ".." in place.parts or ":" in path:
        raise ValueError(f"{path!r} is no place in a repository; give one such as results/confusion-matrix.png")
    return Markdown(quote(str(place)))


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Every option of the run under the name that the command line and the page use."""
    known = {option.name: option for option in options()}

    def said(key: str, value: Any) -> str:
        if value is None:
            return "derived" if key in known and known[key].derived else "not given"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return without_folder(value) if key in _FOLDERS else str(value)

    return {known[key].label if key in known else key: said(key, value) for key, value in config.items()}


def _found(training: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, value, why) of everything that the run derived or found on its way, nested values too."""
    reasons = training.get("reasons") or {}
    for key, value in training.items():
        if key == "reasons":
            continue
        nested = value if isinstance(value, Mapping) else {}
        reason = reasons.get(key) or nested.get("reason") or ""
        rows = {f"{key}: {part}": each for part, each in nested.items() if part != "reason"} or {key: value}
        for name, each in rows.items():
            if isinstance(each, str | int | float):
                yield name.replace("_", " "), _plain(each), reason
                reason = ""  # once


def _plain(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


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
    """A code block that no run of backticks inside it can end. Half characters, which no file may hold, become "?"."""
    code = code.encode(errors="replace").decode()
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{language}\n{code}\n{fence}")
