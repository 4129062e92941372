"""The page as a whole: what it is launched with, what it loads, and where it may be asked from."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import gradio as gr
import pytest
from browser import free_port

from app import _ask_ourselves_directly
from tl_core.errors import JobError
from tl_core.settings import read_settings
from tl_core.ui.app import launch_options
from tl_core.ui.session import owner_of
from tl_core.ui.theme import favicon, styles

ROOT = Path(__file__).parent.parent


def test_launch_takes_every_option_that_it_is_given() -> None:
    assert set(launch_options(read_settings())) <= set(inspect.signature(gr.Blocks.launch).parameters)


def test_the_page_keeps_no_history_and_shows_no_footer() -> None:
    options = launch_options(read_settings())
    assert options["run_history"] is False
    assert options["footer_links"] == []
    assert options["enable_monitoring"] is False
    assert options["max_file_size"] == read_settings().max_upload_bytes


def test_the_look_comes_from_this_package_alone() -> None:
    assert Path(favicon()).is_file()
    assert "http" not in styles()
    assert "@import" not in styles()
    assert "http" not in json.dumps([str(sheet) for sheet in launch_options(read_settings())["theme"]._stylesheets])


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import app; app._parse([])", {"gradio", "torch", "transformers"}),
        ("from tl_core.ui.app import build_app; build_app()", {"torch", "transformers", "datasets", "sklearn", "timm"}),
    ],
    ids=["options", "page"],
)
def test_nothing_is_loaded_before_it_is_needed(code: str, unwanted: set[str], tmp_path: Path) -> None:
    script = f"import sys; {code}; print('LOADED', sorted(set({sorted(unwanted)!r}) & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True, env=_environment(tmp_path)
    )
    assert answer.stdout.splitlines()[-1] == "LOADED []"


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TL_HOME": str(home), "GRADIO_ANALYTICS_ENABLED": "False"}


def test_a_word_that_is_no_number_is_told_in_a_line(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "app.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**_environment(tmp_path), "TL_PARALLEL_RUNS": "many"},
        check=False,
    )
    assert answer.returncode == 2
    assert "TL_PARALLEL_RUNS" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_neither_a_proxy_nor_a_slow_first_answer_keeps_the_page_from_being_served(tmp_path: Path) -> None:
    script = (
        "import os, sys, app, gradio as gr, httpx; from gradio import networking; "
        "networking.url_ok = lambda url: False; "  # what Gradio finds when nothing answers for three seconds
        "gr.Blocks.block_thread = lambda page: print(httpx.get(page.local_url).status_code, os.environ['NO_PROXY']); "
        f"sys.exit(app.main(['--port', '{free_port()}']))"
    )
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "example.org"}
    others = {name: value for name, value in _environment(tmp_path).items() if not name.lower().endswith("_proxy")}
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env={**others, **proxies}, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1].startswith("200 example.org,localhost,127.0.0.1,::1")


@pytest.mark.parametrize(
    ("named", "excepted"),
    [
        ({}, None),  # of the system alone, which a no_proxy would take out of sight
        ({"HTTPS_PROXY": "http://there:1"}, "localhost,127.0.0.1,::1"),
        ({"all_proxy": "http://there:1", "no_proxy": "here"}, "here,localhost,127.0.0.1,::1"),
        ({"http_proxy": "http://there:1", "no_proxy": "*"}, "*"),
    ],
)
def test_the_page_is_not_asked_through_a_proxy(
    named: dict[str, str], excepted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "")  # so that what is set below is taken back
    monkeypatch.setenv("NO_PROXY", "")
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    _ask_ourselves_directly(None)
    assert os.environ["no_proxy"] == (excepted or "")


def test_what_only_looks_waits_in_no_queue(tmp_path: Path) -> None:
    script = (
        "import json; from tl_core.ui.app import build_app; print(json.dumps([(each.concurrency_limit is None, "
        "each.queue, each.connection) for each in build_app().fns.values() "
        "if each.fn is not None and each.api_visibility == 'private']))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=_environment(tmp_path), check=True
    )
    events = json.loads(answer.stdout)
    looks = [(queued, connection) for unlimited, queued, connection in events if unlimited]
    assert len(looks) > 20
    assert {connection for queued, connection in looks if queued} == {"stream"}
    assert all(queued for unlimited, queued, _ in events if not unlimited)


def test_a_token_names_an_owner_without_being_told_and_a_short_one_names_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    assert owner_of("a" * 43) == owner_of("a" * 43)
    assert owner_of("a" * 43) != owner_of("b" * 43)
    assert "a" * 43 not in owner_of("a" * 43)
    for guessable in ("guessable", "", None):
        with pytest.raises(JobError, match="not been recognised"):
            owner_of(guessable)
