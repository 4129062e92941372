"""The card of a trained model: what it says, and that no name can break it."""

from itertools import pairwise
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from tl_core.config import TrainConfig
from tl_core.model_card import FEW_PICTURES, RARE_SHOWN, escape_markdown, render_card

NAMES = [
    "train station", "a/b", "a|b", "a\\|b", "None", "日本語", "🌱", "👩‍🌾 farmer", "x" * 200, "two\nlines", "tab\there",
    "u\u2028v", "<script>alert(1)</script>", "&amp;", "*bold* _under_ `code` ``", "[link](http://e.x)", "![i](u)",
    "# head", "---", "> quote", "- item", "1. one", "~~no~~", "$$x$$", "{{ 7 * 7 }}", "{% endfor %}", "{# c #}", "a: b",
    "'", '"', "<!--", "```", "\\",
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
            "splits": {"train": 240, "validation": 40, "test": 120},
        },
        "backbone": {"id": "owner/net", "revision": "c0ffee", "parameters": 11_689_512, "licence": "apache-2.0"},
        "strategy": "frozen",
        "head": {"strength": 0.1, "scores": [1, 2]},
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
    """A name as one line."""
    return name.replace("\n", " ").replace("\t", " ").replace("\u2028", " ")


def test_the_front_matter_is_what_the_hub_expects() -> None:
    card = render_card(a_report(["cat", "dog"]), {})
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "vision", "transfer-learning"],
        "metrics": ["accuracy", "f1"],
        "license": "apache-2.0",
        "base_model": "owner/net",
    }
    assert ModelCard(card).data.to_dict() == front_matter(card)


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
    ],
)
def test_the_licence_is_given_where_it_is_known(backbone: dict[str, str], licence: str | None) -> None:
    assert front_matter(render_card(a_report(["cat", "dog"], backbone=backbone), {})).get("license") == licence


def test_the_card_tells_what_it_is_how_good_and_how_it_was_made() -> None:
    config = TrainConfig.parse({"data": "photos", "seed": 3, "name": "Leaves of my garden"}).to_json()
    card = render_card(a_report(["cat", "dog"]), config, model="owner/leaves")
    assert "\n# Leaves of my garden\n" in card
    assert "one of 2 classes" in card
    assert "right on **87.5 %** of 120 pictures that it had not seen (95 % interval 80.4 % to 92.3 %)" in card
    assert "It was made with 1,400 images from photos." in card
    assert "Measured on the test images" in card
    assert "train (240), validation (40), test (120)" in card
    assert "The backbone is owner/net with 11,689,512 parameters, at revision c0ffee." in card
    assert "only the classifier on top was trained" in card
    assert "The head that is shipped was fitted on 280 images." in card
    assert "done in bf16" in card
    assert 'classify = pipeline("image-classification", model="owner/leaves")' in card
    assert "```bash\npython -m tl_core train --data photos\n```" in card
    cells = {row[0]: row[1] for table in tables(card) for row in table}
    assert cells["cat"] == "90.0 %"
    assert cells["Macro-F1: mean over classes, rare ones count as much"] == "86.1 %"
    assert cells["The right class is among the first 5"] == "99.0 %"
    assert cells["Seed"] == "3"
    assert cells["total"] == "12.3"
    assert "training" not in cells
    assert cells["torch"] == "2.15.0"
    assert cells["strength"] == "0.1"


def test_folds_are_explained() -> None:
    report = a_report(["cat", "dog"])
    report["metrics"]["method"] = "k-fold"
    card = render_card(report, {})
    assert "nested cross-validation" in card
    assert "Measured on the" not in card


def test_the_most_frequent_mistakes_come_first() -> None:
    report = a_report(["cat", "dog", "cow"])
    report["metrics"]["confusion_matrix"] = [[9, 2, 0], [5, 9, 0], [0, 0, 9]]
    assert ["Picture of", "Taken for", "Times"] in [table[0] for table in tables(render_card(report, {}))]
    (mistakes,) = (table for table in tables(render_card(report, {})) if table[0][0] == "Picture of")
    assert mistakes[1:] == [["dog", "cat", "5"], ["cat", "dog", "2"]]


def test_classes_judged_on_few_pictures_are_named_but_not_without_end() -> None:
    report = a_report(["cat", "dog"])
    assert "say little" not in render_card(report, {})
    report["metrics"]["per_class"][1]["support"] = FEW_PICTURES - 1
    assert f"fewer than {FEW_PICTURES} pictures and say little: dog." in render_card(report, {})
    many = a_report([f"class {number}" for number in range(RARE_SHOWN + 1234)])
    for row in many["metrics"]["per_class"]:
        row["support"] = 1
    assert f"class {RARE_SHOWN - 1} and 1,234 more." in render_card(many, {})


def test_any_name_shows_literally_and_breaks_nothing() -> None:
    odd = "; ".join(NAMES)
    report = a_report(NAMES, refit=odd, versions={odd: odd}, command=odd, strategy=odd)
    report["data"]["source"] = odd
    report["backbone"] = {"id": odd, "revision": odd, "licence": odd}
    report["metrics"]["confusion_matrix"][0][1] = 3
    card = render_card(report, {"data": odd, odd: odd}, name=odd, model=odd)

    found = tables(card)
    assert [row[0] for row in found[0][1:]] == [shown(name) for name in NAMES]
    per_class = next(table for table in found if table[0][1:2] == ["Precision"])
    assert [row[0] for row in per_class[1:]] == [shown(name) for name in NAMES]
    assert {len(row) for row in per_class} == {5}
    assert ["Images", shown(odd)] in next(table for table in found if table[0][0] == "Setting")
    assert [shown(odd), shown(odd)] in next(table for table in found if table[0][0] == "Version")

    matter = front_matter(card)
    assert matter["base_model"] == shown(odd)
    assert matter["license"] == "other"
    tokens = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    assert [token.type for token in tokens if token.type in ("html_block", "blockquote_open", "hr")] == []
    inline = {child.type for token in tokens for child in token.children or []}
    assert not inline & {"html_inline", "link_open", "image"}
    assert [token.info for token in tokens if token.type == "fence"] == ["python", "bash"]
    assert next(token.content for token in tokens if token.info == "bash") == odd + "\n"
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", *["h2"] * 5]
    compile(next(token.content for token in tokens if token.info == "python"), "usage", "exec")


@pytest.mark.parametrize("name", NAMES)
def test_escaped_text_means_itself(name: str) -> None:
    inline = MarkdownIt("commonmark").parseInline("word " + escape_markdown(name))[0]
    assert "".join(child.content for child in inline.children or []) == "word " + shown(name)


WHOLE = a_report(["cat", "dog"])


@pytest.mark.parametrize("missing", [*WHOLE, *(f"metrics.{key}" for key in WHOLE["metrics"])])
def test_what_a_report_lacks_is_left_out(missing: str) -> None:
    report = a_report(["cat", "dog"])
    part, _, key = missing.partition(".")
    if key:
        del report[part][key]
    else:
        del report[part]
    card = render_card(report, {})
    assert front_matter(card)["library_name"] == "transformers"
    assert "Undefined" not in card
    assert "None" not in card
    tables(card)


def test_an_empty_report_still_gives_a_card() -> None:
    card = render_card({}, {})
    assert front_matter(card)["pipeline_tag"] == "image-classification"
    assert "## How to use it" in card
    assert "## How good it is" not in card
    assert tables(card) == []
