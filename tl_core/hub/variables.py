"""The variables of a Space, which the app in it finds in its environment: set where they are not so already.

They are no secrets: of a public Space everybody can read them, and who duplicates it gets them too
(https://huggingface.co/docs/hub/spaces-overview). Must not know: what they mean to the app. The token is an argument,
and is neither kept nor told.
"""

from collections.abc import Mapping
from functools import partial

from tl_core.hub.patience import patiently
from tl_core.hub.target import target_of
from tl_core.settings import Settings


def set_variables(repo_id: str, wanted: Mapping[str, str], token: str, settings: Settings) -> tuple[str, ...]:
    """Let the Space `repo_id` have these variables; the names of those that it had not, or otherwise.

    Each that is set starts the Space anew, so nothing is sent where nothing differs. All others stay. Raises HubError;
    a second call goes on after those that were set.
    """
    if not wanted:
        return ()
    target = target_of("space", repo_id, token, settings)
    with target.plain_refusals(f"its files are there, and its variables ({', '.join(wanted)}) perhaps not"):
        there = patiently(lambda: target.api.get_space_variables(target.id))
        missing = [name for name, value in wanted.items() if name not in there or there[name].value != value]
        for name in missing:
            patiently(partial(target.api.add_space_variable, target.id, name, wanted[name]))
    return tuple(missing)
