"""A demo of one trained model: the files of a Gradio Space that asks it about pictures.

The program lies in `spaces_config/demo/` and is copied unchanged; what it has to know of a model it reads from
figures.json beside it. It needs gradio, transformers and torch, and nothing of this project. Must not know runs, nor
how a Space comes to the Hub.
"""

import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from PIL import Image

from tl_core import __version__
from tl_core.card_metadata import PROJECT, PROJECT_TAG, one_line, project_address
from tl_core.errors import ConfigError, DataError
from tl_core.hub.names import page_of
from tl_core.hub.repository import endpoint
from tl_core.images.decode import open_upright
from tl_core.model_card import escape_markdown
from tl_core.settings import Settings

TEMPLATES = Path(__file__).parent.parent / "spaces_config" / "demo"
# Examples are published no larger than they are shown: more than any backbone of the catalogue looks at.
EXAMPLE_SIDE = 512
EXAMPLE_QUALITY = 95  # Pillow's highest that is meant for use; above it files grow, and nothing else
# Beginnings of the names of architectures that transformers has through timm, or prepares pictures for by torchvision.
_NEED_TIMM = ("TimmWrapper", "PPLCNet")
_JUDGED = {
    "held-out": "pictures that it had not seen",
    "k-fold": "pictures, each judged by a model that had not seen it",
}


def demo_files(
    *,
    repo_id: str,
    title: str,
    report: Mapping[str, Any],
    examples: Mapping[str, bytes] | None = None,
    settings: Settings,
    revision: str | None = None,
) -> dict[str, bytes]:
    """Path in the Space -> content: README.md, app.py and style.css, requirements.txt, figures.json, examples/.

    The demo asks the model `repo_id`, at `revision` where one is given, and shows the figures of `report`. `examples`
    are image files by their names, which are not published; of the files only the pixels are, no more than
    EXAMPLE_SIDE a side. It links to where this project can be found: `settings.project_url`, or the Space that this
    runs on; where there is neither, to the Hub's list of models with the project's tag, and says that it is one.
    Raises DataError for an example that cannot be read, ConfigError where the templates are missing.
    """
    facts = _facts(repo_id, title, report, revision, project_address(settings))
    pictures = [_bare(name, content, settings) for name, content in (examples or {}).items()]
    requirements = _template("requirements.txt")
    if report["backbone"]["architecture"].startswith(_NEED_TIMM):
        requirements += _template("requirements-timm.txt")
    return {
        "README.md": _readme(facts, has_examples=bool(pictures)).encode(),
        "app.py": _template("app.py").encode(),
        "style.css": _template("style.css").encode(),
        "requirements.txt": requirements.encode(),
        "figures.json": (json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        **{f"examples/{number:03}.jpg": picture for number, picture in enumerate(pictures, 1)},
    }


def _facts(
    repo_id: str, title: str, report: Mapping[str, Any], revision: str | None, project_url: str | None
) -> dict[str, Any]:
    """What the demo's program reads. Accuracy and interval are fractions from 0 to 1; the table has percent, the
    worst class first."""
    metrics = report["metrics"]
    return {
        "title": one_line(title).strip() or repo_id,
        "model": repo_id,
        "revision": revision,
        "url": page_of("model", repo_id),
        "made_with": [f"{PROJECT} {__version__}", project_url],
        "more": None if project_url else [f"Models tagged {PROJECT_TAG}", f"{endpoint()}/models?other={PROJECT_TAG}"],
        "classes": len(metrics["labels"]),
        "accuracy": metrics["accuracy"],
        "interval": metrics["accuracy_ci"],
        "images": metrics["images"],
        "judged": _JUDGED[metrics["method"]],
        "warnings": list(report["warnings"]),
        "columns": ["Class", "Precision %", "Recall %", "Pictures"],
        "per_class": [
            [row["label"], round(100 * row["precision"], 1), round(100 * row["recall"], 1), row["support"]]
            for row in sorted(metrics["per_class"], key=lambda row: row["f1"])
            if row["support"]
        ],
    }


def _readme(facts: Mapping[str, Any], *, has_examples: bool) -> str:
    """The template's own front matter, with what only this Space has, above its prose."""
    _, matter, prose = _template("README.md").split("---\n", 2)
    found = {
        "title": facts["title"],
        **yaml.safe_load(matter),
        "sdk_version": version("gradio"),  # with which this was tested; requirements.txt has the range
        "short_description": f"Tells {facts['classes']:,} classes of pictures apart",
        "models": [facts["model"]],
    }
    made_with, project_url = facts["made_with"]
    render = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(prose).render
    body = render(
        {
            **facts,
            "title": escape_markdown(facts["title"]),
            "made_with": f"[{made_with}]({project_url})" if project_url else made_with,
            "more": "[{}]({})".format(*facts["more"]) if facts["more"] else "",
            "has_examples": has_examples,
        }
    )
    return f"---\n{yaml.safe_dump(found, allow_unicode=True, sort_keys=False, width=1000)}---\n{body}"


def _bare(name: str, content: bytes, settings: Settings) -> bytes:
    """The pixels of an image file as a JPEG: upright, small enough, and without anything that came with them."""
    try:
        picture = open_upright(io.BytesIO(content), settings.max_pixels)
    except DataError as failure:
        raise DataError(f"the example {name!r} cannot be shown: {failure.message}") from failure
    picture.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
    bare = Image.new("RGB", picture.size)  # a picture takes its file's comments and profiles along when it is saved
    bare.paste(picture)
    written = io.BytesIO()
    bare.save(written, "JPEG", quality=EXAMPLE_QUALITY, subsampling=0)
    return written.getvalue()


def _template(name: str) -> str:
    try:
        return (TEMPLATES / name).read_text(encoding="utf-8")
    except OSError as failure:
        raise ConfigError(
            f"{TEMPLATES / name}, which demos are made from, cannot be read: {failure.strerror or failure}; run "
            "this from the project's own folder"
        ) from failure
