"""Reports to make model cards of, names that try to break them, and what such a card holds."""

from itertools import pairwise
from typing import Any

import yaml
from markdown_it import MarkdownIt

from tl_core.model_card import FEW_PICTURES

NAMES = [
    "train station", "a/b", "a|b", "a\\|b", "None", "日本語", "🌱", "👩‍🌾 farmer", "x" * 200, "two\nlines", "tab\there",
    "u\u2028v", "<script>alert(1)</script>", "&amp;", "*bold* _under_ `code` ``", "[link](http://e.x)", "![i](u)",
    "# head", "---", "> quote", "- item", "1. one", "~~no~~", "$$x$$", "{{ 7 * 7 }}", "{% endfor %}", "{# c #}", "a: b",
    "'", '"', "<!--", "```", "\\", "\\(x\\)", "$$", "\udcff half", "\u202eturned", "</details>", "null", "- 1", "%",
]  # fmt: skip


def a_report(labels: list[str], **changes: Any) -> dict[str, Any]:
    count = len(labels)
    return {
        "run_id": "r1",
        "metrics": {
            "split": "test",
            "images": 120,
            "accuracy": 0.875,
            "accuracy_ci": [0.804, 0.923],
            "macro_f1": 0.861,
            "top_k": {"k": 5, "accuracy": 0.99},
            "calibration_error": 0.031,
            "baseline": {"label": labels[0], "accuracy": 0.25},
            "per_class": [
                {"label": label, "precision": 0.9, "recall": 0.8, "f1": 0.85, "support": FEW_PICTURES}
                for label in labels
            ],
            "confusion_matrix": [[7 if truth == answer else 0 for answer in range(count)] for truth in range(count)],
            "labels": labels,
            "method": "held-out",
        },
        "data": {
            "source": "photos",
            "images": 1400,
            "classes": dict.fromkeys(labels, 40),
            "fingerprint": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            "splits": {"train": 240, "validation": 40, "test": 120},
        },
        "backbone": {"id": "owner/net", "revision": "c0ffee", "parameters": 11_689_512, "licence": "apache-2.0"},
        "strategy": "frozen",
        "training": {
            "strength": 0.1,
            "scores": [1, 2],
            "precision": {"dtype": "bf16"},
            "reasons": {"strength": "best"},
        },
        "parity": {"images": 64, "passed": True},
        "machine": {"device": "cuda", "name": "Quick Card", "cores": 8, "threads": 4},
        "seconds": {"total": 12.34, "features": 4.0, "training": 0},
        "precision": {"dtype": "bf16", "reason": "faster here"},
        "versions": {"torch": "2.15.0"},
        "refit": "The head that is shipped was fitted on 280 images.",
        "command": "python -m tl_core train --data photos",
        "seed": 0,
        **changes,
    }


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    parsed = yaml.safe_load(matter)
    assert isinstance(parsed, dict)
    return parsed


def tables(card: str) -> list[list[list[str]]]:
    """The tables as GitHub's Markdown has them: rows of cells, each of plain text and nothing else."""
    found: list[list[list[str]]] = []
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card.split("---\n", 2)[2])
    for before, token in pairwise(tokens):
        if before.type == "table_open":
            found.append([])
        elif before.type == "tr_open":
            found[-1].append([])
        if before.type in ("td_open", "th_open"):
            assert {child.type for child in token.children or []} <= {"text", "text_special"}, token.content
            found[-1][-1].append("".join(child.content for child in token.children or []))
    return found


def shown(name: str) -> str:
    """A name as one line that can be written to a file and turns nothing around."""
    for end in "\n\t\u2028":
        name = name.replace(end, " ")
    return name.replace("\u202e", "\ufffd").replace("\udcff", "\ufffd")


def rows_of(card: str) -> list[list[str]]:
    """The rows of all its tables."""
    return [row for table in tables(card) for row in table]
