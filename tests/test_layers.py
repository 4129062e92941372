"""Imports point one way, heavy libraries stay where they belong, and nothing is loaded before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tl_core"
# A module may import from its own layer's package and from any layer before it.
LAYERS = (
    {
        "errors",
        "settings",
        "catalogue",
        "config",
        "contradictions",
        "drawing",
        "ending",
        "options",
        "files",
        "journal",
        "processes",
        "states",
    },
    {"runs", "images", "hub", "recall_chart", "result_pictures"},
    {"card_metadata", "limits", "pins", "tokens"},
    {"model_card"},
    {"recorder", "parts", "sources", "jobs", "packing", "demo_space"},
    {"drafts", "survey", "publication", "published", "deployment"},
    {"sharing"},
    {"delivery"},
    {"ml"},
    {"launch"},
    {"api", "cli", "terminal", "__main__", "__init__"},
    {"ui"},
)
FACES = LAYERS[-2]
ONLY_UNDER_ML = {"torch", "torchvision", "transformers", "datasets", "accelerate", "evaluate", "timm"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: Path) -> str:
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def layer_of(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def imported(module: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_point_downward(module: Path) -> None:
    mine = part_of(module)
    for name in imported(module):
        words = name.split(".")
        if words[0] != "tl_core" or len(words) < 2:
            continue
        theirs = words[1]
        if not (PACKAGE / theirs).is_dir() and not (PACKAGE / f"{theirs}.py").is_file():
            continue  # a name in tl_core/__init__.py
        allowed = theirs == mine or layer_of(theirs) < layer_of(mine) or (layer_of(mine) == layer_of(theirs) == 0)
        allowed = allowed or {mine, theirs} <= FACES
        assert allowed, f"{mine} must not import {theirs}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_torch_and_its_family_are_imported_only_under_ml(module: Path) -> None:
    if part_of(module) == "ml":
        return
    assert not ONLY_UNDER_ML & {name.split(".")[0] for name in imported(module)}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_gradio_is_imported_only_under_ui(module: Path) -> None:
    assert part_of(module) == "ui" or "gradio" not in {name.split(".")[0] for name in imported(module)}


@pytest.mark.parametrize(
    "command", ["", "models", "check", "train", "predict", "evaluate", "runs", "stop", "resume", "push", "deploy"]
)
def test_help_loads_nothing_heavy(command: str) -> None:
    heavy = sorted(ONLY_UNDER_ML | {"numpy", "sklearn", "scipy", "pyarrow", "pandas", "PIL", "huggingface_hub"})
    code = (
        "import sys; from tl_core.cli import main; "
        f"code = main({[*command.split(), '--help']!r}); "
        f"print('LOADED', sorted(set({heavy!r}) & set(sys.modules)), code)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert "Usage:" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "LOADED [] 0"


def test_importing_the_package_has_no_effects() -> None:
    code = (
        "import sys, os; before = dict(os.environ); import tl_core; "
        "print(dict(os.environ) == before, 'torch' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert answer.stdout.split() == ["True", "False"]


def test_the_image_side_works_without_torch() -> None:
    code = (
        "import sys; import tl_core.images.intake, tl_core.images.report, tl_core.images.splits, "
        "tl_core.images.duplicates, tl_core.sources; "
        f"print(sorted(set({sorted(ONLY_UNDER_ML)!r}) & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert answer.stdout.strip() == "[]"
