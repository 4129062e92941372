"""The card of a trained model: what it says, and that no name can break it."""

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.cards import NAMES, a_report, front_matter, rows_of, shown, tables
from tl_core.config import TrainConfig, options
from tl_core.model_card import (
    FEW_PICTURES,
    RARE_SHOWN,
    ROWS_IN_SIGHT,
    check_card,
    escape_markdown,
    render_card,
)


def test_the_card_tells_what_it_is_how_good_and_how_it_was_made() -> None:
    config = TrainConfig.parse({"data": "photos", "seed": 3, "name": "Leaves of my garden"}).to_json()
    card = render_card(a_report(["cat", "dog"]), config, model="owner/leaves")
    assert "\n# Leaves of my garden\n" in card
    assert "one of 2 classes" in card
    assert "right on **87.5 %** of 120 pictures that it had not seen (95 % interval 80.4 % to 92.3 %)" in card
    assert "It was made with 1,400 images from photos." in card
    assert "their classes: 0f1e2d3c4b5a69788796a5b4c3d2e1f0." in card
    assert "It took 12.3 s in all, of it features 4.0 s." in card
    assert "Quick Card (cuda; 4 of 8 processor cores in use)" in card
    assert "pipeline, asked about 64 of them, gave the same probabilities" in card
    assert "Seed 0." in card
    assert "Measured on the test images" in card
    assert "train (240), validation (40), test (120)" in card
    assert "with 11,689,512 parameters, at revision c0ffee." in card
    assert "only the classifier on top was trained" in card
    assert "The head that is shipped was fitted on 280 images." in card
    assert "done in bf16" in card
    assert 'classify = pipeline("image-classification", model="owner/leaves")' in card
    assert "```bash\npython -m tl_core train --data photos\n```" in card
    cells = {row[0]: row[1] for table in tables(card) for row in table}
    assert cells["1"] == "cat" and ["1", "cat", "90.0 %", "80.0 %", "85.0 %", "12"] in rows_of(card)
    assert {option.label for option in options()} <= cells.keys()  # every setting
    assert (cells["Learning rate"], cells["Control"], cells["Teacher"]) == ("derived", "no", "not given")
    assert cells["For comparison: always saying cat, the commonest class"] == "25.0 %"
    assert ["strength", "0.1", "best"] in rows_of(card)
    assert cells["precision: dtype"] == "bf16"
    assert cells["Macro-F1: mean over classes, rare ones count as much"] == "86.1 %"
    assert cells["The right class is among the first 5"] == "99.0 %"
    assert cells["Seed"] == "3"
    assert cells["torch"] == "2.15.0"


def test_a_reader_finds_what_it_was_made_with() -> None:
    made = "It was made with [Teach an image classifier](https://example.org/teach). To repeat it, with the same images"
    report = a_report(["cat", "dog"])
    assert made in render_card(report, {}, project_url="https://example.org/teach")
    assert "It was made with Teach an image classifier. To repeat it" in render_card(report, {})


@pytest.mark.parametrize("control", [None, {"failed": "no room"}])
def test_every_heading_stands_apart(control: dict[str, str] | None) -> None:
    lines = render_card(a_report(["cat", "dog"], control=control), {}).splitlines()
    headings = [place for place, line in enumerate(lines) if line.startswith("#")]
    assert len(headings) > 5 and not [lines[place] for place in headings if lines[place - 1] or lines[place + 1]]


def test_the_card_says_what_the_model_is_not_for() -> None:
    report = a_report(["cat", "dog"])
    for card in (render_card({}, {}), render_card(report, {})):
        part = card.partition("\n## What it is not for\n")[2].partition("\n## ")[0]
        assert 'no "none of these": a picture of anything else gets one of its classes all the same' in part
        assert "The figures hold for pictures like those it was measured on" in part
        assert "Nothing here was tested for decisions about people, their health, rights or safety" in part


def test_figures_have_their_intervals_where_the_report_has_them() -> None:
    report = a_report(["cat", "dog"])
    report["metrics"]["macro_f1_ci"] = [0.8, 0.9]
    report["metrics"]["top_k"]["accuracy_ci"] = [0.95, 1.0]
    for row in report["metrics"]["per_class"]:
        row["recall_ci"] = [0.55, 0.93]
    rows = rows_of(render_card(report, {}))
    assert ["Accuracy: share that was right", "87.5 %", "80.4 % to 92.3 %"] in rows
    assert ["Macro-F1: mean over classes, rare ones count as much", "86.1 %", "80.0 % to 90.0 %"] in rows
    assert ["The right class is among the first 5", "99.0 %", "95.0 % to 100.0 %"] in rows
    assert ["2", "dog", "90.0 %", "80.0 %", "55.0 % to 93.0 %", "85.0 %", "12"] in rows


def test_what_transfer_gained_is_told_or_that_nobody_measured_it() -> None:
    measured = {"accuracy": 0.5, "accuracy_ci": [0.4, 0.6], "seconds": 60.4, "transfer_seconds": 2.0}
    measured |= {"difference": 0.375, "difference_ci": [0.27, 0.46]}
    card = render_card(a_report(["cat", "dog"], control=measured), {})
    assert "right on 50.0 % of the same pictures (95 % interval 40.0 % to 60.0 %)" in card
    assert "The difference is 37.5 points (95 % interval 27.0 to 46.0" in card
    assert "not measured; `--control` trains" in render_card(a_report(["cat", "dog"]), {})
    failed = render_card(a_report(["cat", "dog"], control={"failed": "no room in /home/me"}), {})
    assert "was to be measured, and that failed." in failed and "/home" not in failed
    scratch = render_card(a_report(["cat", "dog"], strategy="scratch"), {})
    assert "--control" not in scratch and "not made from another model's" in scratch


def test_pictures_are_shown_from_where_they_lie_beside_the_card() -> None:
    pictures = {"results/confusion-matrix.png": "", "results/training-curves.png": "", "results/a (b) ü.png": "[odd]"}
    card = render_card(a_report(["cat", "dog"]), {}, pictures=pictures)
    tokens = MarkdownIt("commonmark").parse(card.split("---\n", 2)[2])
    images = [child for token in tokens for child in token.children or [] if child.type == "image"]
    assert [image.attrs["src"] for image in images] == [
        "results/confusion-matrix.png",
        "results/a%20%28b%29%20%C3%BC.png",
        "results/training-curves.png",
    ]
    assert images[0].content.startswith("Confusion matrix")
    assert images[1].children[0].content == "[odd]"
    assert "![" not in render_card(a_report(["cat", "dog"]), {})


@pytest.mark.parametrize("path", ["/tmp/a.png", "../a.png", "results/../../a.png", "https://e.x/a.png", ""])
def test_a_picture_outside_of_the_repository_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no place in a repository"):
        render_card({}, {}, pictures={path: ""})


def test_the_title_is_the_name_of_the_run_or_of_the_repository() -> None:
    assert "\n# leaves\n" in render_card({}, {}, model="owner/leaves")
    assert "\n# Mine\n" in render_card({}, {"name": "Mine"}, model="owner/leaves")
    assert "\n# Image classifier\n" in render_card({}, {})
    assert front_matter(render_card(a_report(["cat"]), {}, model="o/leaves"))["model-index"][0]["name"] == "leaves"


def test_long_tables_are_folded_away() -> None:
    few, many = ([f"class {n}" for n in range(number)] for number in (ROWS_IN_SIGHT, ROWS_IN_SIGHT + 1))
    assert render_card(a_report(few), {}).count("<details>") == 1  # the settings'
    card = render_card(a_report(many), {})
    assert card.count("<details>") == card.count("</details>") == 3
    assert len(tables(card)[0]) == len(many) + 1  # Markdown still within


def test_the_folders_of_a_computer_are_not_told() -> None:
    home = str(Path.home() / "secret" / "photos")
    report = a_report(["cat", "dog"], teacher={"id": home, "weight": 0.5})
    report["data"]["source"] = home
    card = render_card(report, {"data": home, "model": home, "teacher": home})
    assert "secret" not in card
    assert "from photos." in card and "the answers of photos, which made 50.0 %" in card


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
    report = a_report(NAMES, refit=odd, versions={odd: odd}, command=odd, strategy=odd, warnings=[odd])
    report["data"]["source"] = odd
    report["backbone"] = {"id": odd, "revision": odd, "licence": odd}
    report["metrics"]["confusion_matrix"][0][1] = 3
    card = render_card(report, {"data": odd, odd: odd}, name=odd, model=odd)
    card.encode()
    check_card(card)

    found = tables(card)
    assert [row[0] for row in found[0][1:]] == [shown(name) for name in NAMES]
    per_class = next(table for table in found if table[0][2:3] == ["Precision"])
    assert [row[1] for row in per_class[1:]] == [shown(name) for name in NAMES]
    assert {len(row) for row in per_class} == {6}
    assert ["Images", shown(odd)] in next(table for table in found if table[0][0] == "Setting")
    assert [shown(odd), shown(odd)] in next(table for table in found if table[0][0] == "Version")

    matter = front_matter(card)
    assert "base_model" not in matter
    assert matter["license"] == "other"
    assert matter["model-index"][0]["name"] == shown(odd)
    body = card.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    assert [token.type for token in tokens if token.type in ("blockquote_open", "hr")] == []
    folded = [token.content.strip() for token in tokens if token.type == "html_block"]
    assert all(text.startswith("<details><summary>") or text == "</details>" for text in folded)
    inline = {child.type for token in tokens for child in token.children or []}
    assert not inline & {"html_inline", "link_open", "image"}
    assert [token.info for token in tokens if token.type == "fence"] == ["python", "bash"]
    assert next(token.content for token in tokens if token.info == "bash") == odd.replace("\udcff", "?") + "\n"
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", *["h2"] * 6]
    compile(next(token.content for token in tokens if token.info == "python"), "usage", "exec")
    lines = body.split("\n")
    for token in tokens:
        if token.type == "fence" and token.map:
            lines[slice(*token.map)] = [""] * (token.map[1] - token.map[0])
    prose = "\n".join(lines)
    assert "$$" not in prose and "\\\\(" not in prose  # what the Hub typesets as a formula


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
