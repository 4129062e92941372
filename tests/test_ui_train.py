"""Train: what a form means, what is foretold, and that a double click starts one run."""

import asyncio
import json
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import gradio as gr
import pytest

from tl_core import api
from tl_core.config import Strategy, TrainConfig
from tl_core.drafts import create_draft
from tl_core.errors import ConfigError, DataError, ModelError
from tl_core.runs import LOCAL_OWNER, create_run, list_runs
from tl_core.settings import read_settings
from tl_core.ui import clients, starting
from tl_core.ui.explanations import FIRST, PARTS, WAYS
from tl_core.ui.forecast import foretold, images_line, reasoned, spoken_time
from tl_core.ui.once import Once
from tl_core.ui.panels import train
from tl_core.ui.session import build_session, draft_word, owner_of
from tl_core.ui.starting import (
    as_json,
    begin,
    configure,
    configure_options,
    draft_of,
    runs_named,
    shown,
    usable_options,
)

HOSTILE = "<img src=x onerror=alert(1)>"


def build_panel():
    async def build():  # outside of a loop Gradio makes loops and never closes them
        with gr.Blocks(analytics_enabled=False) as app:
            session = build_session()
            panel = train.build()
            train.bind(panel, session)
        return app, panel

    return asyncio.run(build())


def values_of(panel, **changed):
    form = train.read_form(panel, tuple(control.value for control in panel.form))
    return {**form, **changed}


def shapes(token=""):
    return draft_word(create_draft(read_settings(), owner_of(token), "sample:shapes"))


def test_every_strategy_is_explained_and_drawn():
    assert set(WAYS) == set(get_args(Strategy))
    assert set(FIRST) <= set(WAYS)
    for strategy, way in WAYS.items():
        assert len(way.lots) == len(PARTS)
        assert way.when in train.explained(strategy).replace("&#x27;", "'")
        assert train.sketched(strategy).count("<li") == len(PARTS)


def test_the_form_as_it_comes_is_a_frozen_training_with_all_defaults():
    _, panel = build_panel()
    config = configure(values_of(panel), "sample:shapes", "")
    assert config == TrainConfig.parse({"data": "sample:shapes"})


def test_the_second_radio_counts_only_where_the_first_says_so():
    assert train.strategy_of("full", "scratch") == "full"
    assert train.strategy_of("another", "scratch") == "scratch"


def test_controls_without_a_meaning_for_the_strategy_are_left_out():
    _, panel = build_panel()
    typed = values_of(panel, strategy="frozen", learning_rate="0.5", thoroughness="thorough")
    assert configure(typed, "x", "") == TrainConfig.parse({"data": "x"})
    with_steps = configure({**typed, "head_solver": "trainer"}, "x", "")
    assert (with_steps.learning_rate, with_steps.thoroughness) == (0.5, "standard")
    full = configure({**typed, "strategy": "full", "head_solver": "trainer"}, "x", "")
    assert (full.learning_rate, full.thoroughness, full.head_solver) == (0.5, "thorough", "exact")


def test_thoroughness_and_steps_together_are_refused_in_labels():
    _, panel = build_panel()
    with pytest.raises(ConfigError) as caught:
        configure(values_of(panel, strategy="full", thoroughness="quick", max_steps="10"), "x", "")
    assert "“Thoroughness”" in caught.value.message and "“Steps”" in caught.value.message


def test_a_form_without_a_model_or_with_a_strategy_that_is_none_is_refused():
    _, panel = build_panel()
    with pytest.raises(ModelError, match="no model is chosen"):
        configure(values_of(panel, model=" "), "x", "")
    with pytest.raises(ConfigError, match="“Strategy” is 'magic'"):
        configure(values_of(panel, strategy="magic"), "x", "")
    assert usable_options("magic", None) == {"strategy"}


def test_a_client_may_not_name_images_of_its_own():
    with pytest.raises(ConfigError, match="leave `data` out"):
        configure_options({"data": "/etc"}, "sample:shapes", "")
    with pytest.raises(ConfigError, match="must be an object"):
        configure_options(["strategy"], "sample:shapes", "")
    assert configure_options({"strategy": "full", "max_steps": 3}, "sample:shapes", "").max_steps == 3


def test_without_images_the_way_to_them_is_told():
    with pytest.raises(DataError, match="Your images"):
        draft_of("", "")
    empty = create_draft(read_settings(), LOCAL_OWNER)
    with pytest.raises(DataError, match="name a class"):
        draft_of(draft_word(empty), "")
    assert train.images_word("", "") == starting.SOME_IMAGES


def test_in_shared_mode_nobody_trains_on_the_images_or_models_of_others(monkeypatch):
    monkeypatch.setenv("TL_SHARED", "1")
    mine, other = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    word = shapes(mine)
    assert draft_of(word, mine).words == "sample:shapes"
    with pytest.raises(DataError, match="of yours"):
        draft_of(word, other)
    with pytest.raises(ModelError):
        configure_options({"model": "/etc"}, "sample:shapes", mine)
    with pytest.raises(gr.Error, match="of yours"):
        clients.start_training(word, {}, other)


def test_in_shared_mode_no_folder_of_the_machine_is_shown(monkeypatch):
    config = TrainConfig.parse({"data": "/srv/people/draft-1/photos.zip", "strategy": "full"})
    assert "/srv/people" in shown(config).command()
    monkeypatch.setenv("TL_SHARED", "1")
    assert "/srv" not in shown(config).command() + as_json(shown(config))


def test_the_configuration_as_json_is_one_that_can_be_read_again():
    config = TrainConfig.parse({"data": "Bilder/Ä", "strategy": "full", "max_steps": 3})
    assert TrainConfig.parse(json.loads(as_json(config))) == config


def test_runs_of_the_same_name_are_counted():
    settings = read_settings()
    for name in ("leaves", "leaves", None):
        create_run(TrainConfig.parse({"data": "x", "name": name}), settings)
    assert [runs_named(name, "") for name in ("leaves", "others", None)] == [2, 0, 0]


def test_what_is_foretold_is_escaped_and_complete():
    forecast = {
        "groups": [],
        "image_size": [64, 48],
        "figures": [
            {"option": "max_steps", "label": "Steps", "value": 9, "spoken": "9", "reason": f"--mirror {HOSTILE}"}
        ],
        "seconds": 40.0,
        "seconds_low": 20.0,
        "seconds_high": 120.0,
        "seconds_reason": f"measured: {HOSTILE}",
        "images": {"train": 70, "validation": 15, "test": 15, "folds": False},
    }
    page = foretold(forecast) + reasoned(forecast)
    assert spoken_time(forecast) == "About 40 s (20 s to 2 min)"
    assert "<img" not in page and "48 × 64 pixels" in page and "“Mirror images”" in page
    line = images_line({HOSTILE: 3, "cat": 1}, ["one"])
    assert "<img" not in line and "4 images in 2 classes" in line and "1 thing to look at" in line


def test_the_plan_of_real_images_speaks_of_them():
    answer = clients.plan_training(shapes(), {"strategy": "frozen"}, "")
    assert sum(answer["images"].values()) == 360
    assert answer["command"] == "python -m tl_core train --data sample:shapes"
    assert answer["seconds_low"] <= answer["seconds"] <= answer["seconds_high"]
    assert [group["trained"] for group in answer["groups"]].count(True) == 1
    assert "54 test images" in reasoned(answer) and "360 of them" in foretold(answer)


def test_what_is_wrong_reaches_a_client_as_one_message():
    with pytest.raises(gr.Error) as caught:
        clients.plan_training(shapes(), {"strategy": "full", "max_steps": 0, "epochs": 0}, "")
    assert "“Steps” is 0" in caught.value.message and "“Epochs” is 0" in caught.value.message


def test_a_double_click_starts_one_run(monkeypatch):
    started = threading.Event()

    def start(config, *, owner, token=None, ticker=None):  # a worker process is another test's
        started.wait(5)
        return create_run(config, read_settings(), owner)

    monkeypatch.setattr(api, "train_in_background", start)
    config = TrainConfig.parse({"data": "sample:shapes", "name": "twice"})
    with ThreadPoolExecutor(2) as clicks:
        answers = [clicks.submit(begin, config, "") for _ in range(2)]
        started.set()
        first, second = (answer.result() for answer in answers)
    assert first == second == begin(config, "")
    assert len(list_runs(read_settings())) == 1
    assert begin(config.model_copy(update={"name": "other"}), "") != first


def test_what_failed_can_be_tried_again_at_once_and_what_was_done_later():
    once, calls = Once(seconds=0.0), []

    def work():
        calls.append(1)
        if len(calls) == 1:
            raise DataError("no")
        return f"run {len(calls)}"

    with pytest.raises(DataError):
        once.ask("key", work)
    assert once.ask("key", work) == "run 2"
    assert once.ask("key", work) == "run 3"  # not even a moment is remembered here


def test_the_page_offers_plan_and_start_to_clients_and_nothing_else():
    app, _ = build_panel()
    named = app.get_api_info()["named_endpoints"]
    assert set(named) == {"/plan", "/start"}
