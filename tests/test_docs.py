"""The documents say what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = sorted(path for path in (ROOT / "tl_core").rglob("*.py") if not path.name.startswith("__"))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_the_architecture_names_every_module(module: Path) -> None:
    assert re.search(rf"\b{module.name}\b", README.split("## Architecture")[1])


def test_the_architecture_names_no_module_that_is_gone() -> None:
    named = set(re.findall(r"\b([a-z_]+\.py)\b", README.split("## Architecture")[1]))
    assert named <= {module.name for module in [*MODULES, ROOT / "app.py"]}


def test_the_first_screen_holds_exactly_two_commands() -> None:
    first = README.split("\n## ")[0]
    commands = [block.strip() for block in re.findall(r"```bash\n(.*?)```", first, re.DOTALL)]
    assert len(commands) == 2
    assert all("\n" not in command and "pip install -r requirements.txt" in command for command in commands)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_says_what_it_is_for_and_holds_one_idea(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 350
