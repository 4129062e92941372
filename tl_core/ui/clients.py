"""What a client that is no browser can ask of the page by name: what a training would do, and to start it.

The options are those of TrainConfig, not controls of the page. Must not know components.
"""

from typing import Any

from gradio.events import api as api_endpoint

from tl_core import api
from tl_core.ui.events import limits_of, told_to_client
from tl_core.ui.starting import begin, configure_options, draft_of, shown


def offer_trainings() -> None:
    """Offer /plan and /start, within the page's Blocks."""
    api_endpoint(plan_training, api_name="plan", **limits_of("model"))
    api_endpoint(start_training, api_name="start", **limits_of("control"))


@told_to_client
def plan_training(draft: str, options: dict[str, Any], token: str) -> dict[str, Any]:
    """What a training with these options (of TrainConfig, by name) on a collection ("ID@VERSION") would do, how long
    it would take, and the command line that means it."""
    config = configure_options(options, draft_of(draft, token).words, token)
    return {**api.preview(config), "command": shown(config).command()}


@told_to_client
def start_training(draft: str, options: dict[str, Any], token: str) -> str:
    """Start a training with these options on a collection; the id of its run."""
    return begin(configure_options(options, draft_of(draft, token).pinned(), token), token)
