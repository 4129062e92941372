"""What a report says about a model, as markup: how good it is, for whom, thanks to what, and how it was made.

The sentences about figures are the terminal's. Must not know components, nor open anything but the report it is given.
"""

from typing import Any

from tl_core import terminal
from tl_core.config import options
from tl_core.images.wording import count
from tl_core.ui.explanations import CONTROL
from tl_core.ui.markup import as_sentence, bars, facts, layers, notice, paragraph, sentences, spoken_number, table

_HOW_JUDGED = {
    "held-out": "These pictures took no part in training or in any choice, so new ones of the same kind should do "
    "about as well. The interval says how far chance alone can be off: with few test pictures it is wide.",
    "k-fold": "There are too few pictures to set some aside for good, so each was judged by a model that had not seen "
    "it. The interval says how far chance alone can be off.",
}
_NO_CONTROL = (
    f"Not known for this run. Tick “{CONTROL}” before a training, and the same network is also taught without what it "
    "knew, for as long: the difference is what that was worth."
)
_PRECISION_AND_RECALL = (
    "Precision: of the pictures the model called so, the share that were. Recall: of the pictures that were, the share "
    "it called so. F1 is high only where both are. The worst class comes first."
)


def summary(report: dict[str, Any]) -> str:
    """One honest sentence, what it rests on, and every reason to believe it less."""
    doubts = doubts_about(report)
    how = "" if report.get("warnings") else _HOW_JUDGED.get(report["metrics"]["method"], "")
    early = (
        "The training was stopped early: this is the model it had by then. Resume the run to continue."
        if report["stopped"]
        else ""
    )
    return (
        paragraph(f"{terminal.spoken_accuracy(report['metrics'])}.", "tl-lead")
        + paragraph(how)
        + sentences(doubts)
        + (notice(early, "warn") if early else "")
        + facts(_figures(report))
    )


def doubts_about(report: dict[str, Any]) -> list[str]:
    return [*report.get("warnings", ()), *map(as_sentence, terminal.lines_of_baseline(report["metrics"]))]


def trust(report: dict[str, Any]) -> str:
    """Whether the saved model answers elsewhere as it was measured here."""
    return paragraph(" ".join(map(as_sentence, terminal.lines_of_parity(report["parity"]))), "tl-quiet")


def per_class(metrics: dict[str, Any]) -> str:
    rows = sorted((row for row in metrics["per_class"] if row["support"]), key=lambda row: row["f1"])
    lines = [
        (
            row["label"],
            f"{row['precision']:.1%}",
            _with_interval(row["recall"], row.get("recall_ci")),
            f"{row['f1']:.1%}",
            f"{row['support']:,}",
        )
        for row in rows
    ]
    absent = len(metrics["per_class"]) - len(rows)
    left_out = f"{count(absent, 'class has', 'classes have')} no test picture and cannot be judged." if absent else ""
    headings = ("Class", "Precision", "Recall (95 % interval)", "F1", "Pictures")
    return (
        paragraph(_PRECISION_AND_RECALL, "tl-quiet")
        + f'<div class="tl-tall">{table(headings, lines, "Figures for each class")}</div>'
        + paragraph(left_out, "tl-quiet")
    )


def gain(report: dict[str, Any]) -> str:
    """What transfer was worth, where a control was run; else how to find out."""
    if report["strategy"] == "scratch":
        return paragraph("Nothing was transferred: this network began from random weights.")
    control = report.get("control")
    if control is None:
        return paragraph(_NO_CONTROL)
    if control["stopped"]:
        return paragraph("The control was stopped before it had figures. Resume the run to go on with it.")
    said = paragraph(" ".join(map(as_sentence, terminal.lines_of_control(control))))
    if control.get("failed"):
        return said
    rows = [
        ("with transfer", report["metrics"]["accuracy"], f"{report['metrics']['accuracy']:.1%}"),
        ("from random weights", control["accuracy"], f"{control['accuracy']:.1%}"),
    ]
    return bars(rows, "Accuracy with transfer and from random weights") + said


def learnt(report: dict[str, Any]) -> str:
    """Which parts of the backbone were taught, and what the saved model was fitted on."""
    return layers(report["backbone"]["groups"]) + paragraph(report["refit"], "tl-quiet")


def settings_used(report: dict[str, Any]) -> str:
    """Every figure that the training went by, with the reason where it was derived."""
    return table(("Setting", "Value", "Why"), settings_rows(report), "Settings of this training")


def settings_rows(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    training = report["training"]
    labels = {option.name: option.label for option in options()}
    reasons = training.get("reasons") or {}
    choice, teacher = report.get("choice"), report.get("teacher")
    chosen = [("Strategy", report["strategy"], choice["reason"])] if choice else []
    taught = [("Teacher", teacher["id"], f"its answers were {teacher['weight']:.0%} of the loss")] if teacher else []
    rows = [
        (labels.get(name, name.replace("_", " ").capitalize()), _spoken(value), reasons.get(name, ""))
        for name, value in training.items()
        if isinstance(value, str | int | float)
    ]
    for part, value in (training.get("augmentation") or {}).items():
        rows.append(
            (f"Augmentation: {part}", _spoken(value), reasons.get("augmentation", "") if part == "policy" else "")
        )
    tried = training.get("head_scores")
    if tried:
        rows.append(("Head strengths tried", f"{len(tried)}", "the one that predicted unseen pictures best was taken"))
    machine = [("Precision", report["precision"], report["precision_reason"]), ("Seed", str(report["seed"]), "")]
    return [*chosen, *taught, *rows, *machine]


def _figures(report: dict[str, Any]) -> list[tuple[str, str]]:
    metrics, backbone, seconds = report["metrics"], report["backbone"], report["seconds"]
    known = [
        ("Strategy", report["strategy"]),
        ("Backbone", f"{backbone['id']}, {spoken_number(backbone['parameters'])} parameters"),
        ("Classes", f"{len(metrics['labels']):,}"),
        ("Macro-F1, rare classes count as much", _with_interval(metrics["macro_f1"], metrics.get("macro_f1_ci"))),
        ("Confidence is off by", f"{metrics['calibration_error']:.1%}"),
        ("Time", f"{terminal.spoken_seconds(seconds['total'])}"),
        ("Arithmetic", report["precision"]),
    ]
    best = metrics["top_k"]
    if best["k"] > 1:
        known.insert(
            4, (f"Right class among the first {best['k']}", _with_interval(best["accuracy"], best.get("accuracy_ci")))
        )
    return known


def _with_interval(share: float, interval: list[float] | None) -> str:
    return f"{share:.1%} ({interval[0]:.1%} to {interval[1]:.1%})" if interval else f"{share:.1%}"


def _spoken(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
