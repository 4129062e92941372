"""Train: which backbone, how, how thoroughly; what will happen and why; start.

Whatever is derived can be changed in a form made from TrainConfig. Must not know how the images came here, nor how a
run is watched.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core import api, catalogue
from tl_core.config import SHARE, options
from tl_core.errors import ConfigError, DataError, TLError
from tl_core.settings import read_settings
from tl_core.survey import survey
from tl_core.ui import explanations
from tl_core.ui.choices import about_model, model_choices
from tl_core.ui.clients import offer_trainings
from tl_core.ui.events import listen
from tl_core.ui.explanations import ANOTHER, FIRST, PARTS, WAYS, explain
from tl_core.ui.forecast import TO_MEND, foretold, images_line, no_images, reasoned
from tl_core.ui.form import control_for
from tl_core.ui.found import can_be_trained
from tl_core.ui.house_rules import too_many_images, what_is_allowed, who_makes_room
from tl_core.ui.markup import hint, layers, notice, notice_of_error, paragraph
from tl_core.ui.panels import options as more_options
from tl_core.ui.panels import rank, when_done
from tl_core.ui.session import Session, own_runs
from tl_core.ui.sketch import sketch
from tl_core.ui.slot import slot
from tl_core.ui.starting import (
    SOME_IMAGES,
    as_json,
    begin,
    configure,
    draft_of,
    runs_named,
    shown,
    usable_options,
)
from tl_core.ui.waiting import WAITING, tick_into

DEFAULT_WAY = "frozen"
# The radio's value for the ways of the second radio; no strategy is called so.
_OTHER = "another"
# Options with a control of their own on the first screen.
_MAIN = ("model", "strategy", "thoroughness", "name", "control")
_PUSHING = tuple(option.name for option in options() if option.group == SHARE)
# What changes nothing of how it trains, so nothing of what will happen.
_SAYS_NOTHING = {option.name: option.default for option in options() if option.name in (*_PUSHING, "name")}
_MEASURING = "Measuring how fast this computer is"
_STARTED = "It is on its way: the tab “Watch” shows how it goes, or its place in the queue."


@dataclass(frozen=True)
class TrainPanel:
    images: gr.HTML
    model: gr.Dropdown
    about: gr.HTML
    suiting: rank.RankPanel
    way: gr.Radio
    other: gr.Radio
    explanation: gr.HTML
    drawing: gr.HTML
    thoroughness: gr.Radio
    name: gr.Textbox
    control: gr.Checkbox
    options: more_options.OptionsPanel
    when_done: when_done.WhenDonePanel
    plan_notice: gr.HTML
    plan: gr.HTML
    reasons: gr.HTML
    planned: gr.Textbox  # what the plan that is shown was made for
    allowed: gr.HTML
    start: gr.Button
    notice: gr.HTML
    command: gr.Code
    config: gr.Code
    started: gr.Textbox  # the id of the run that was started last

    @property
    def form(self) -> list[Any]:
        """Every control of the form, in the order that `read_form` takes their values in."""
        main = [self.model, self.way, self.other, self.thoroughness, self.name, self.control]
        return [*main, *self.when_done.form, *self.options.controls.values()]


def build() -> TrainPanel:
    made: dict[str, Any] = {}
    made["images"] = slot(no_images(), elem_id="train-images")
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=300):
            made |= _build_main()
            made["options"] = more_options.build(usable_options(DEFAULT_WAY, None), (*_MAIN, *_PUSHING))
            made["when_done"] = when_done.build()
        with gr.Column(scale=5, min_width=300):
            gr.Markdown("### What will happen")
            made["plan_notice"] = slot()
            made["plan"] = slot(no_images(), elem_id="train-plan")
            made["planned"] = gr.Textbox(visible="hidden", label="what the plan is of")
            made["allowed"] = slot(elem_id="train-allowed")
            made["notice"] = slot(elem_id="train-notice")
            made["start"] = gr.Button("Start training", variant="primary", interactive=False, elem_id="train-start")
            made["reasons"] = slot(elem_id="train-reasons")
            made["started"] = gr.Textbox(visible="hidden", label="the run that was started", elem_id="train-started")
            with gr.Accordion("The same in a terminal", open=False):
                made["command"] = _to_copy("Command", language="shell", lines=2, elem_id="train-command")
                made["config"] = _to_copy(
                    "Configuration, for --config FILE.json", language="json", lines=3, elem_id="train-config"
                )
    return TrainPanel(**made)


def _to_copy(label: str, **more: Any) -> gr.Code:
    return gr.Code(label=label, interactive=False, wrap_lines=True, show_line_numbers=False, buttons=["copy"], **more)


def _build_main() -> dict[str, Any]:
    first = [(WAYS[strategy].name, strategy) for strategy in FIRST]
    others = [(way.name, strategy) for strategy, way in WAYS.items() if strategy not in FIRST]
    named = {option.name: option for option in options()}
    return {
        "model": gr.Dropdown(
            [catalogue.DEFAULT_MODEL],
            value=catalogue.DEFAULT_MODEL,
            label="Backbone",
            info=explanations.BACKBONE,
            allow_custom_value=True,
            elem_id="train-model",
        ),
        "about": slot(about_model(catalogue.DEFAULT_MODEL)),
        "suiting": rank.build(),
        "way": gr.Radio(
            [*first, (ANOTHER, _OTHER)], value=DEFAULT_WAY, label="How", elem_id="train-way", elem_classes="tl-column"
        ),
        "other": gr.Radio(
            others, value=others[0][1], label=ANOTHER, visible=False, elem_id="train-other", elem_classes="tl-column"
        ),
        "explanation": slot(explained(DEFAULT_WAY), elem_id="train-explanation"),
        "drawing": slot(sketched(DEFAULT_WAY), elem_id="train-layers"),
        "thoroughness": gr.Radio(
            [(explanations.THOROUGHNESSES.get(word, word), word) for word in named["thoroughness"].choices],
            value=named["thoroughness"].default,
            label=named["thoroughness"].label,
            info=explanations.THOROUGHNESS,
            visible=False,
            elem_id="train-thoroughness",
        ),
        "name": control_for(named["name"]),
        "control": gr.Checkbox(
            value=named["control"].default,
            label=explanations.CONTROL,
            info=explanations.CONTROL_INFO,
            elem_id="option-control",
        ),
    }


def bind(panel: TrainPanel, session: Session, *opened: Any) -> None:
    """`opened` are triggers that say when the plan is looked at, such as a tab's `select`: it is made then, and after
    changes of the form. Without them it is made as soon as there are images."""
    own = [session.token, session.draft]
    head_solver = panel.options.controls["head_solver"]

    def load(token: str) -> dict[Any, Any]:
        return {panel.model: gr.Dropdown(choices=model_choices(token, with_head=False))}

    def offer(way: str, other: str, head_solver: str) -> dict[Any, Any]:
        strategy = strategy_of(way, other)
        usable = usable_options(strategy, head_solver)
        return {
            panel.other: gr.Radio(visible=way == _OTHER),
            panel.explanation: explained(strategy),
            panel.drawing: sketched(strategy),
            panel.thoroughness: gr.Radio(visible="thoroughness" in usable),
            panel.control: gr.Checkbox(visible="control" in usable),
            **panel.options.offer(usable),
        }

    def describe(model: str) -> dict[Any, Any]:
        return {panel.about: about_model(model)}

    def follow(token: str, draft: str, *values: Any) -> dict[Any, Any]:
        """What the form means, at once and without torch; what is wrong with it."""
        config = configure(read_form(panel, values), images_word(draft, token), token)
        known = runs_named(config.name, token)
        return {
            panel.command: shown(config).command(),
            panel.config: as_json(shown(config)),
            panel.notice: notice(_known_words(config.name, known), "warn") if known else "",
        }

    def tell(token: str) -> dict[Any, Any]:
        settings = read_settings()
        return {panel.allowed: what_is_allowed(settings) + who_makes_room(own_runs(token), settings)}

    def look(token: str, draft: str, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        if not draft:
            return {panel.images: no_images(), panel.start: gr.Button(interactive=False)}
        try:
            report = survey(draft_of(draft, token), read_settings(), tick_into(progress)).report
        except DataError as failure:
            return {panel.images: notice_of_error(failure), panel.start: gr.Button(interactive=False)}
        refused = too_many_images(report.images, read_settings())
        return {
            panel.images: images_line(report.classes, report.warnings) + refused,
            panel.start: gr.Button(interactive=can_be_trained(report) and not refused),
        }

    def plan(token: str, draft: str, planned: str, *values: Any, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        form = read_form(panel, values)
        try:
            config = configure(form, draft_of(draft, token).words, token).model_copy(update=_SAYS_NOTHING)
            question = f"{draft} {config.command()}"
            if question == planned:
                return {}
            progress(0, desc=_MEASURING)
            forecast = api.preview(config, ticker=tick_into(progress))
        except TLError as failure:
            words = hint(TO_MEND) if isinstance(failure, ConfigError) else notice_of_error(failure)
            gone = {panel.drawing: sketched(form["strategy"]), panel.planned: "", panel.reasons: ""}
            return {panel.plan: words if draft else no_images(), **gone, **panel.options.derived(())}
        return {
            panel.plan: foretold(forecast),
            panel.reasons: reasoned(forecast),
            panel.drawing: layers(forecast["groups"]) or sketched(config.strategy),
            panel.planned: question,
            **panel.options.derived(forecast["figures"]),
        }

    def start(
        token: str, draft: str, signed: gr.OAuthToken | None, *values: Any, progress: gr.Progress = WAITING
    ) -> dict[Any, Any]:
        config = configure(read_form(panel, values), draft_of(draft, token).pinned(), token)
        known = bool(values[panel.form.index(panel.when_done.owner)])
        run = begin(config, token, tick_into(progress), signed=signed, known=known)
        return {session.run: run, panel.started: run, panel.notice: notice(_STARTED)}

    # First, for a handler of the page that is called the same would take the name.
    offer_trainings()
    rank.bind(panel.suiting, session, panel.model, panel.options.controls["seed"])
    when_done.bind(panel.when_done, *opened)
    view = partial(listen, notice=panel.notice, kind="view")
    images = [session.ready.change, session.draft.change]
    changes = {control: control.change for control in panel.form}
    view([session.ready.change, session.finished.change], load, inputs=own[:1], outputs=[panel.model], asked=False)
    view(
        [*opened, session.ready.change, session.finished.change, panel.started.change],
        tell,
        inputs=own[:1],
        outputs=[panel.allowed],
        trigger_mode="always_last",
        asked=False,
    )
    view(panel.model.change, describe, inputs=[panel.model], outputs=[panel.about])
    view(
        [panel.way.change, panel.other.change, head_solver.change],
        offer,
        inputs=[panel.way, panel.other, head_solver],
        outputs=[
            *(panel.other, panel.explanation, panel.drawing, panel.thoroughness, panel.control),
            *panel.options.controls.values(),
            *panel.options.groups.values(),
        ],
    )
    view([*images, *changes.values()], follow, inputs=[*own, *panel.form], outputs=[panel.command, panel.config])
    # A tab's `select` would else be heard once, and not again before it is answered.
    planning = partial(listen, notice=panel.plan_notice, trigger_mode="always_last")
    brought, unheard = list(opened) or images, (panel.name, *panel.when_done.form)
    planning(brought, look, inputs=own, outputs=[panel.images, panel.start])
    planning(
        [*brought, *(change for control, change in changes.items() if control not in unheard)],
        plan,
        inputs=[*own, panel.planned, *panel.form],
        outputs=[panel.plan, panel.reasons, panel.drawing, panel.planned, *panel.options.derivable],
        kind="model",
    )
    listen(
        panel.start.click,
        start,
        inputs=[*own, *panel.form],
        outputs=[session.run, panel.started],
        notice=panel.notice,
        kind="control",
        trigger_mode="once",
    )


def strategy_of(way: str, other: str) -> str:
    """The strategy that the two radios mean."""
    return other if way == _OTHER else way


def read_form(panel: TrainPanel, values: tuple[Any, ...]) -> dict[str, Any]:
    """The values of `panel.form` by option."""
    model, way, other, thoroughness, name, control, *rest = values
    wishes = len(panel.when_done.form)
    return {
        "model": model,
        "strategy": strategy_of(way, other),
        "thoroughness": thoroughness,
        "name": name.strip() if name else None,
        "control": control,
        **when_done.read_wish(panel.when_done, rest[:wishes]),
        **dict(zip(panel.options.controls, rest[wishes:], strict=True)),
    }


def images_word(draft: str | None, token: str | None) -> str:
    """The word for the asker's images in a command; one that stands for them while there are none."""
    try:
        return draft_of(draft, token).words
    except DataError:
        return SOME_IMAGES


def explained(strategy: str) -> str:
    what, when = explain(strategy)
    return paragraph(what) + paragraph(when, "tl-quiet")


def sketched(strategy: str) -> str:
    return sketch(PARTS, WAYS[strategy].lots)


def _known_words(name: str | None, known: int) -> str:
    runs = "is a run" if known == 1 else f"are {known:,} runs"
    return f"There {runs} named “{name}” already: give another name, or you will have to tell them apart by the time."
