"""Does `rank` order backbones as full fine-tuning does? Rank correlations, and what its first choice costs.

    python -m benchmarks.ranking DATA [DATA ...] [--models tiny-resnet,FOLDER,...] [--per-class N|all] [--seeds 0,1,2]
                                 [--strategy full] [--max-steps N] [--images N] [--out results.jsonl]

For each seed a stratified 15 % of the images is kept for testing. Each model is ranked on the others, which is where a
training has its images from, and is then fine-tuned on them and tested. Each result is written down as soon as it is
there: started again, the program computes what is missing, and prints for each data set the figures, averaged over the
seeds, Spearman's and Kendall's correlation of each of rank's criteria with the accuracy after fine-tuning, and the
regret: how much better the best fine-tuned model is than the one that the criterion puts first. Begin a new file after
a change of the code.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tl_core
from benchmarks.transfer import home, lay_out, read_results
from tl_core.catalogue import embedded
from tl_core.images.collection import Collection
from tl_core.images.duplicates import find_duplicates
from tl_core.images.splits import Division, divide
from tl_core.settings import read_settings
from tl_core.sources import open_data

# What `rank` says of a model, and from which it could order them.
CRITERIA = {"score": "cross-validated head", "logme": "LogME", "neighbours": "neighbours"}
RANK = "rank"


def main() -> None:
    arguments = parse_arguments()
    results = read_results(arguments.out)
    for data in arguments.data:
        collection = open_data(data, read_settings())
        groups = find_duplicates(collection.pictures).groups
        for seed in arguments.seeds:
            division = divide(collection, groups, seed, folds_allowed=False)
            for model in arguments.models:
                for method in (RANK, arguments.strategy):
                    cell = cell_of(data, model, method, seed, arguments)
                    if find(results, cell) is not None:
                        continue
                    results.append(cell | measure(cell, collection, division))
                    with arguments.out.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(results[-1]) + "\n")
                    print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    for data in arguments.data:
        print_agreement(data, results, arguments)


def parse_arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return text.split(",")

    names = [backbone.id for backbone in embedded()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--models", type=words, default=names)
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--per-class", default="all")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in words(text)], default=[0])
    parser.add_argument("--max-steps", type=int, default=None, help="optimiser steps of each training (derived)")
    parser.add_argument("--images", type=int, default=None, help="most images that rank looks at (its own choice)")
    parser.add_argument("--out", type=Path, default=Path("benchmark-ranking.jsonl"))
    return parser.parse_args()


def cell_of(data: str, model: str, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What one result is of; ranking knows no steps, training no sample."""
    return {
        "data": data,
        "model": model,
        "method": method,
        "seed": seed,
        "per_class": arguments.per_class,
        "max_steps": None if method == RANK else arguments.max_steps,
        "images": arguments.images if method == RANK else None,
    }


def find(results: Sequence[dict[str, Any]], cell: dict[str, Any]) -> dict[str, Any] | None:
    return next((result for result in results if all(result[key] == value for key, value in cell.items())), None)


def measure(cell: dict[str, Any], collection: Collection, division: Division) -> dict[str, Any]:
    """Rank or train in a new home, as a person would."""
    with tempfile.TemporaryDirectory() as folder, home(Path(folder) / "home"):
        pictures = Path(folder) / "pictures"
        lay_out(collection, division, cell["per_class"], cell["seed"], pictures)
        if cell["method"] == RANK:
            value = tl_core.rank(str(pictures), models=[cell["model"]], images=cell["images"], seed=cell["seed"])
            row = value["backbones"][0]
            kept = (*CRITERIA, "score_ci", "seconds_per_image", "parameters")
            return {**{key: row[key] for key in kept}, "judged": value["judged"], "seconds": value["seconds"]}
        options = {} if cell["max_steps"] is None else {"max_steps": cell["max_steps"]}
        report = tl_core.train(
            data=str(pictures), model=cell["model"], strategy=cell["method"], seed=cell["seed"], **options
        )
        if report["stopped"]:
            raise SystemExit("stopped; started again, it goes on with this training from its beginning")
        metrics = report["metrics"]
        return {
            "accuracy": metrics["accuracy"],
            "test_images": metrics["images"],
            "seconds": report["seconds"]["total"],
            "steps": report["training"].get("steps_done"),
        }


def print_agreement(data: str, results: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Markdown: each model's figures, best fine-tuned first, and how well each criterion agrees with that order."""

    def mean_of(model: str, method: str, figure: str) -> float:
        cells = [find(results, cell_of(data, model, method, seed, arguments)) for seed in arguments.seeds]
        return statistics.mean(cell[figure] for cell in cells if cell is not None)

    models = list(dict.fromkeys(arguments.models))
    tuned = {model: mean_of(model, arguments.strategy, "accuracy") for model in models}
    said = {key: {model: mean_of(model, RANK, key) for model in models} for key in CRITERIA}
    seeds = f"{len(arguments.seeds)} seed{'s' if len(arguments.seeds) > 1 else ''}"
    print(f"\n**{Path(data).name}**, {len(models)} models, {seeds}\n")
    print(f"| model | after `{arguments.strategy}` | " + " | ".join(CRITERIA.values()) + " | rank took |")
    print("| --- | --- |" + " --- |" * (len(CRITERIA) + 1))
    for model in sorted(models, key=lambda model: -tuned[model]):
        figures = f"{said['score'][model]:.1%} | {said['logme'][model]:.3f} | {said['neighbours'][model]:.1%}"
        print(f"| {model} | {tuned[model]:.1%} | {figures} | {mean_of(model, RANK, 'seconds'):.0f} s |")
    print("\n| criterion | Spearman | Kendall | regret of its first |\n| --- | --- | --- | --- |")
    for key, name in CRITERIA.items():
        spearman, kendall, regret = agreement([said[key][model] for model in models], list(tuned.values()))
        print(f"| {name} | {spoken(spearman)} | {spoken(kendall)} | {100 * regret:.1f} points |")


def agreement(said: Sequence[float], tuned: Sequence[float]) -> tuple[float | None, float | None, float]:
    """Spearman's ρ, Kendall's τ-b and the regret of the first; no correlation where all of one side are the same."""
    from scipy.stats import kendalltau, spearmanr

    regret = max(tuned) - tuned[max(range(len(said)), key=said.__getitem__)]
    if len(set(said)) < 2 or len(set(tuned)) < 2:
        return None, None, regret
    return float(spearmanr(said, tuned).statistic), float(kendalltau(said, tuned).statistic), regret


def spoken(correlation: float | None) -> str:
    return "–" if correlation is None else f"{correlation:+.2f}"


if __name__ == "__main__":
    main()
