"""What a repository on the Hub and its hardware can be called, and where it is seen. Must not know what is in it."""

from typing import Literal

from tl_core.errors import ConfigError, HubError
from tl_core.hub.repository import endpoint, is_hub_id

Kind = Literal["model", "space"]


def check_name(repo_id: str) -> None:
    """Raises HubError for what cannot name a repository: `owner/name`, by the Hub's own rules."""
    if repo_id.count("/") != 1 or not is_hub_id(repo_id):
        raise HubError(
            f"{repo_id!r} cannot be a repository's name; it must be owner/name, the owner you or an organisation of "
            "yours, of letters, digits, '-', '_' and '.', not at either end, not doubled ('--', '..') and at most 96 "
            "of them"
        )


def check_hardware(name: str) -> None:
    """Raises ConfigError for what is no hardware of a Space, as far as the Hub's client knows them."""
    from huggingface_hub import SpaceHardware

    known = [each.value for each in SpaceHardware]
    if name not in known:
        raise ConfigError(f"{name!r} is no hardware of a Space; allowed are {', '.join(known)}")


def called(kind: Kind, repo_id: str) -> str:
    """A repository in a sentence."""
    return f"the {'Space' if kind == 'space' else kind} {repo_id}"


def page_of(kind: Kind, repo_id: str) -> str:
    """The address of a repository's page."""
    return f"{endpoint()}/{'spaces/' if kind == 'space' else ''}{repo_id}"
