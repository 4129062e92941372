"""This app as a Space: what is sent, what its front matter says, where it keeps things, what one visitor may ask."""

import re
import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pictures import make_folder
from space_app import unpack

from tl_core import api, deployment, settings
from tl_core.config import TrainConfig
from tl_core.deployment import app_files, rehearse_deploy, requirements
from tl_core.errors import ConfigError, DataError, HubError
from tl_core.limits import check_images, within_limits
from tl_core.settings import Settings, read_settings

ROOT = Path(__file__).parent.parent
SHORT_DESCRIPTION = 60  # characters, https://huggingface.co/docs/hub/spaces-config-reference


def front_matter(hardware: str | None = None) -> dict[str, object]:
    card = app_files(hardware)["README.md"]
    assert isinstance(card, bytes)
    return dict(yaml.safe_load(card.decode().split("---\n")[1]))


def test_what_is_sent_is_the_app_and_nothing_else() -> None:
    sent = app_files()
    assert {name.split("/")[0] for name in sent} == {
        *("app.py", "LICENSE", "README.md", "requirements.txt", "tl_core", "spaces_config")
    }
    assert not [name for name in sent if re.search(r"__pycache__|\.pyc$|(^|/)\.|test|benchmark|runs/", name)]
    assert all(content.is_file() for content in sent.values() if isinstance(content, Path))


def test_no_file_of_the_package_is_left_out() -> None:
    known = subprocess.run(["git", "ls-files", "tl_core", "spaces_config"], cwd=ROOT, capture_output=True, text=True)
    if known.returncode:
        pytest.skip("not a git checkout")
    there = {name for name in known.stdout.splitlines() if (ROOT / name).is_file()}
    assert there == {name for name in app_files() if "/" in name}


def test_what_an_editor_leaves_behind_is_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copied = unpack(tmp_path / "copy")
    (copied / "tl_core" / ".env").write_text("HF_TOKEN=hf_secret")
    (copied / "tl_core" / "api" / "notes.py~").write_text("")
    (copied / "tl_core" / "outside.py").symlink_to("/etc/hostname")
    before = set(app_files())
    monkeypatch.setattr(deployment, "PROJECT", copied)
    assert set(app_files()) == before


def test_of_a_checkout_only_what_git_knows_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied = unpack(tmp_path / "copy")
    before = set(app_files())
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=copied, check=True)
    (copied / ".gitignore").write_text("private.json\n")
    (copied / "tl_core" / "private.json").write_text("{}")
    (copied / "tl_core" / "notes.md").write_text("mine")
    monkeypatch.setattr(deployment, "PROJECT", copied)
    assert set(app_files()) == before
    assert "tl_core/notes.md, tl_core/private.json" in caplog.text
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git cannot be asked which files of"):
        app_files()


def test_a_copy_on_a_space_can_be_deployed_from_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = requirements()
    monkeypatch.setattr(deployment, "PROJECT", unpack(tmp_path / "copy"))
    assert requirements() == asked
    assert front_matter()["sdk_version"] == version("gradio")


@pytest.mark.slow
def test_the_app_starts_from_what_is_sent(tmp_path: Path) -> None:
    folder = unpack(tmp_path / "space")
    code = (
        "import app, tl_core.ui.app as page, tl_core.demo_space as demo; page.build_app(); "
        "assert demo.TEMPLATES.is_dir(); print(page.__file__)"
    )
    started = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert started.stdout.strip() == str(folder / "tl_core" / "ui" / "app.py")


def test_the_front_matter_has_what_a_space_needs() -> None:
    matter = front_matter()
    assert matter["sdk"] == "gradio"
    assert matter["sdk_version"] == version("gradio")
    assert matter["app_file"] == "app.py"
    assert matter["suggested_hardware"] == "cpu-basic"
    assert len(str(matter["short_description"])) <= SHORT_DESCRIPTION
    assert len(str(matter["title"])) < 30


def test_who_signs_in_gives_no_more_than_is_needed() -> None:
    matter = front_matter()
    assert matter["hf_oauth"] is True
    # Creates repositories and writes to those it has created; all others stay closed to it.
    assert matter["hf_oauth_scopes"] == ["contribute-repos"]
    assert 60 <= int(str(matter["hf_oauth_expiration_minutes"])) <= 43_200


@pytest.mark.parametrize("package", ["transformers", "torch", "datasets", "gradio", "huggingface_hub"])
def test_the_python_of_the_space_suits(package: str) -> None:
    asked = str(front_matter()["python_version"])
    assert asked in SpecifierSet(metadata(package)["Requires-Python"] or "")
    assert asked in SpecifierSet(re.findall(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text())[0])


def test_hardware_that_is_given_is_suggested() -> None:
    assert front_matter("t4-small")["suggested_hardware"] == "t4-small"
    with pytest.raises(ConfigError, match=r"'potato' is no hardware of a Space; allowed are cpu-basic, .*t4-small"):
        front_matter("potato")
    with pytest.raises(ConfigError, match="no hardware"):
        app_files("a t4\nhf_oauth_scopes: [manage-repos]")


def test_the_requirements_are_the_projects_without_those_of_its_tests() -> None:
    lines = [line for line in requirements().splitlines() if line and not line.startswith("#")]
    asked = {each.name: each for each in map(Requirement, lines)}
    assert asked["gradio"].extras == {"oauth"}
    assert front_matter()["sdk_version"] in asked["gradio"].specifier
    assert not {"pytest", "playwright", "ruff", "mypy"} & set(asked)
    assert {"torch", "transformers", "huggingface_hub"} <= set(asked)


def test_a_rehearsal_needs_neither_token_nor_network() -> None:
    planned = rehearse_deploy("me/teach")
    assert planned["url"].endswith("/spaces/me/teach")
    assert planned["bytes"] == sum(file["bytes"] for file in planned["files"])
    with pytest.raises(HubError, match="owner/name"):
        rehearse_deploy("teach")


def test_an_installed_package_says_that_it_cannot_be_deployed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deployment, "PROJECT", tmp_path)
    with pytest.raises(ConfigError, match=r"is not this project's folder .*app\.py"):
        app_files()


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As on a Space; the folder where a volume would be."""
    monkeypatch.setenv("SPACE_ID", "me/teach")
    monkeypatch.delenv("TL_HOME")
    monkeypatch.setattr(settings, "SPACE_VOLUME", tmp_path / "data")
    return tmp_path / "data"


def test_without_a_volume_a_space_says_that_nothing_stays(space: Path) -> None:
    space.mkdir()  # a folder of that name is no volume
    found = read_settings()
    assert not found.persistent
    assert space not in found.home.parents


def test_a_volume_is_used_when_there_is_one(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space.mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == space)
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")  # or everything of this test is temporary
    found = read_settings()
    assert found.persistent
    assert found.home == space / "tl_core"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert not read_settings().persistent


@pytest.mark.parametrize("lacking", ["locks", "adding", "renaming"])
def test_a_volume_that_cannot_hold_runs_is_left_alone(
    space: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Operation not supported")

    def open_unless_added_to(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        return refuse() if "a" in mode else opened(path, mode, *more, **options)

    opened = Path.open
    space.mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == space)
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    if lacking == "locks":
        monkeypatch.setattr("fcntl.flock", refuse)
    elif lacking == "adding":
        monkeypatch.setattr(Path, "open", open_unless_added_to)
    else:
        monkeypatch.setattr("os.replace", refuse)
    settings._can_hold_runs.cache_clear()
    found = read_settings()
    assert not found.persistent and space not in found.home.parents
    assert list(space.iterdir()) == []
    settings._can_hold_runs.cache_clear()


def test_at_home_everything_stays_and_nothing_is_limited() -> None:
    found = read_settings()
    assert found.persistent
    assert (found.max_images, found.max_run_minutes, found.kept_runs) == (None, None, None)


def test_on_a_space_one_visitor_is_limited_and_its_owner_says_how_much(
    space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (ROOT / "spaces_config" / "app" / "README.md").read_text(encoding="utf-8")
    found = read_settings()
    for name, limit in (("IMAGES", found.max_images), ("RUN_MINUTES", found.max_run_minutes)):
        assert re.search(rf"`TL_MAX_{name}` .* {limit:,} \|", card)
    assert re.search(rf"`TL_KEPT_RUNS` .* {found.kept_runs} \|", card)
    monkeypatch.setenv("TL_MAX_RUN_MINUTES", "120")
    assert read_settings().max_run_minutes == 120


def test_a_training_on_a_shared_machine_ends_in_time(home: Path) -> None:
    shared = Settings(home, shared=True, max_run_minutes=30)
    full = TrainConfig.parse({"data": "x", "strategy": "full"})
    assert within_limits(full, shared).minutes == 30
    assert within_limits(full.model_copy(update={"minutes": 5.0}), shared).minutes == 5
    assert within_limits(full, Settings(home, max_run_minutes=30)) is full  # nobody else is there
    frozen = TrainConfig.parse({"data": "x", "strategy": "frozen"})
    assert within_limits(frozen, shared) is frozen
    with pytest.raises(ConfigError, match=r"--minutes is 45.*30.*TL_MAX_RUN_MINUTES"):
        within_limits(full.model_copy(update={"minutes": 45.0}), shared)


def test_a_training_on_a_shared_machine_has_so_many_images_at_most(home: Path) -> None:
    check_images(11, Settings(home, max_images=10))
    check_images(10, Settings(home, shared=True, max_images=10))
    with pytest.raises(DataError, match=r"11 images.*10.*TL_MAX_IMAGES"):
        check_images(11, Settings(home, shared=True, max_images=10))


def test_where_a_run_is_begun_the_limits_hold(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    monkeypatch.setenv("TL_MAX_IMAGES", "5")
    photos = make_folder(home / "photos", {"a": 3, "b": 3})
    with pytest.raises(DataError, match="6 images"):
        api.train_in_background(TrainConfig.parse({"data": str(photos)}))
    assert api.runs() == []
