"""The page as a whole: panels in the order of the way through, and what leads from one to the next.

Must not know what panels show or compute.
"""

import functools
import sys
import threading
import time
from typing import Any

import gradio as gr

from tl_core import api
from tl_core.errors import TLError
from tl_core.settings import Settings, read_settings
from tl_core.ui import theme
from tl_core.ui.events import listen
from tl_core.ui.house_rules import what_is_lost
from tl_core.ui.panels import classes, compare, data, findings, monitor, results, runs, share, train, try_model
from tl_core.ui.session import MAKE_TOKEN, Session, build_session
from tl_core.ui.signin import is_offered
from tl_core.ui.slot import slot

# Gradio's copies of uploads and thumbnails: looked at every hour, kept for a day. What a person keeps lies elsewhere.
_CACHE_TIMES = (3600, 24 * 3600)
TRAIN, SHARE = "train", "share"
# Everything that waits in Gradio's queue.
_MOST_WAITING = 500
# Seconds for the first page to be told what it asks by itself, before torch takes the interpreter.
_WARMING_DELAY = 3.0


def build_app() -> gr.Blocks:
    with gr.Blocks(title=theme.NAME, analytics_enabled=False, delete_cache=_CACHE_TIMES) as app:
        # First, for Gradio describes the whole page anew whenever it is told of its queue.
        app.queue(max_size=_MOST_WAITING, default_concurrency_limit=4)
        session, settings = build_session(), read_settings()
        with gr.Row(elem_classes=["tl-top", "tl-below-bar"] if settings.on_space else "tl-top"):
            slot(theme.header(settings.shared))
            if is_offered(settings):
                gr.LoginButton(logout_value="Sign out ({})", size="sm", scale=0, min_width=230, elem_id="sign-in")
            if settings.on_space:
                gr.DuplicateButton("Duplicate this Space", min_width=180, elem_id="duplicate")
        slot(what_is_lost(settings), elem_id="what-is-lost")
        notice = slot()
        with gr.Tabs(selected="try", elem_id="steps") as tabs:
            with gr.Tab("Try", id="try"):
                trying = try_model.build()
            with gr.Tab("Your images", id="images"):
                doors, boxes, found = data.build(), classes.build(), findings.build()
            with gr.Tab("Train", id=TRAIN) as train_tab:
                training = train.build()
            with gr.Tab("Watch", id="watch") as watch_tab:
                listed, watched = runs.build(), monitor.build()
            with gr.Tab("Results", id="results"):
                judged, compared = results.build(), compare.build()
            with gr.Tab("Share", id=SHARE) as share_tab:
                sharing = share.build()
        try_model.bind(trying, session)
        data.bind(doors, session)
        classes.bind(boxes, session)
        findings.bind(found, session)
        train.bind(training, session, train_tab.select)
        runs.bind(listed, session, watch_tab.select)
        monitor.bind(watched, session)
        results.bind(judged, session)
        compare.bind(compared, session)
        share.bind(sharing, session, share_tab.select)
        _lead(found.go.click, tabs, TRAIN, notice)
        _lead(training.started.change, tabs, "watch", notice)
        _lead(watched.to_results.click, tabs, "results", notice)
        _lead(judged.model.share.click, tabs, SHARE, notice)
        _bind_start(app, session, tabs, notice)
    return app


def _lead(trigger: Any, tabs: gr.Tabs, step: str, notice: gr.HTML) -> None:
    """From one step of the way to another."""
    listen(trigger, lambda: {tabs: gr.Tabs(selected=step)}, outputs=[tabs], notice=notice, kind="view")


def _bind_start(app: gr.Blocks, session: Session, tabs: gr.Tabs, notice: gr.HTML) -> None:
    def open_named(request: gr.Request) -> dict[Any, Any]:
        """A run that the address names is looked at; whether it is the asker's is asked where it is opened."""
        _warm_once()
        asked = request.query_params if request is not None else {}
        named, step = asked.get("run"), asked.get("step")
        opened = {session.run: named, tabs: gr.Tabs(selected="watch")} if named else {}
        if step in (TRAIN, SHARE):  # where somebody went to sign in from
            opened[tabs] = gr.Tabs(selected=step)
        return {session.ready: str(time.time_ns()), **opened}

    drawn = app.load(None, [session.token], [session.token], js=MAKE_TOKEN, api_visibility="private")
    listen(drawn, open_named, outputs=[session.ready, session.run, tabs], notice=notice, kind="view")


@functools.cache
def _warm_once() -> None:
    """Load torch and the default backbone beside the page, so that the first answer does not wait for them."""
    threading.Timer(_WARMING_DELAY, _warm).start()


def _warm() -> None:
    try:
        api.warm()
    except TLError as failure:  # whoever asks the model is told in the page
        print(f"the default backbone is not ready: {failure.message}", file=sys.stderr)


def launch_options(settings: Settings) -> dict[str, Any]:
    """What `Blocks.launch` is given whatever the address: the look, the limits, and nothing that asks a network."""
    return {
        "theme": theme.make_theme(),
        "css": theme.styles(),
        "favicon_path": theme.favicon(),
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "show_error": False,
        "max_file_size": settings.max_upload_bytes,
        "strict_cors": True,
        # Gradio would ask its own page, and end where the answer takes three seconds, as it may on a busy machine.
        "_frontend": False,
    }
