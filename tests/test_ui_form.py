"""The form is TrainConfig's: a control for each option, and sentences about labels in place of flags."""

from typing import get_args

import gradio as gr
import pytest

from tl_core.config import Strategy, TrainConfig, options
from tl_core.errors import ConfigError
from tl_core.ui.form import AUTO, controls_for, in_labels, offered, parse_form, placeholders, read_controls


def test_every_option_has_a_control_with_its_label_and_default():
    controls = controls_for(option.name for option in options() if option.group != "data")
    for option in options():
        if option.group != "data":
            control = controls[option.name]
            assert control.label == option.label
            assert control.elem_id == f"option-{option.name}"
            assert option.derived or control.value == (option.default if option.default is not None else "")


def test_an_untouched_form_means_the_defaults():
    controls = controls_for(option.name for option in options() if option.group != "data")
    given = read_controls(list(controls), [control.value for control in controls.values()])
    assert given == {}
    assert parse_form({"data": "x", **given}) == TrainConfig.parse({"data": "x"})


def test_an_empty_number_is_derived_and_a_typed_one_is_taken():
    given = read_controls(["max_steps", "learning_rate", "epochs"], ["  ", "1e-4", " 7 "])
    config = parse_form({"data": "x", "strategy": "full", **given})
    assert (config.max_steps, config.learning_rate, config.epochs) == (None, 1e-4, 7)


def test_every_problem_is_told_at_once_in_the_words_of_the_form():
    with pytest.raises(ConfigError) as caught:
        parse_form({"data": "x", "strategy": "full", "max_steps": "2.5", "learning_rate": "quick"})
    assert len(caught.value.details) == 2
    assert caught.value.details[0].startswith("“Steps” is '2.5'; it must be a whole number")
    assert caught.value.details[1].startswith("“Learning rate” is 'quick'; it must be a number")
    assert "--" not in str(caught.value.details)


def test_a_word_that_is_no_option_is_left_as_it_is():
    assert in_labels("give --max-steps, not --frobnicate") == "give “Steps”, not --frobnicate"


def test_what_is_offered_is_what_the_configuration_takes():
    frozen = offered({"strategy": "frozen"})
    assert {"head_solver", "precision", "control", "name"} <= frozen
    assert not {"learning_rate", "augment", "mix", "thoroughness", "unfreeze_blocks"} & frozen
    assert "learning_rate" in offered({"strategy": "frozen", "head_solver": "trainer"})
    full = offered({"strategy": "full"})
    assert {"learning_rate", "augment", "mix", "thoroughness", "control", "layer_decay"} <= full
    assert not {"head_solver", "unfreeze_blocks"} & full
    assert "unfreeze_blocks" in offered({"strategy": "last-blocks"})
    assert not {"control", "layer_decay"} & offered({"strategy": "scratch"})


def test_each_option_is_offered_with_some_strategy():
    somewhere = set().union(*(offered({"strategy": strategy}) for strategy in get_args(Strategy)))
    assert {option.name for option in options()} == somewhere


def test_an_empty_control_says_what_was_derived_as_it_would_be_typed():
    figures = [
        {"option": "max_steps", "value": 1500, "spoken": "1,500"},
        {"option": "learning_rate", "value": 0.0005, "spoken": "0.0005"},
        {"option": "", "value": None, "spoken": "the best of 17"},
    ]
    words = placeholders(["max_steps", "learning_rate", "epochs", "mix"], figures)
    assert words == {"max_steps": f"{AUTO}: 1500", "learning_rate": f"{AUTO}: 0.0005", "epochs": AUTO}


def test_a_derived_number_has_a_control_that_can_be_empty():
    assert isinstance(controls_for(["epochs"])["epochs"], gr.Textbox)
    assert isinstance(controls_for(["seed"])["seed"], gr.Number)
