"""What is to be published, in plain values: what can be said of it before the Hub is asked.

Must not know: what is there already, nor what the files are.
"""

from typing import Any

from tl_core.errors import HubError
from tl_core.hub.publishing import Changes, Files, Kind
from tl_core.hub.repository import endpoint, is_hub_id


def check_name(repo_id: str) -> None:
    """Raises HubError for what cannot name a repository: `owner/name`, by the Hub's own rules."""
    if repo_id.count("/") != 1 or not is_hub_id(repo_id):
        raise HubError(
            f"{repo_id!r} cannot be a repository's name; it must be owner/name, the owner you or an organisation of "
            "yours, of letters, digits, '-', '_' and '.', and not too long"
        )


def plan_of(kind: Kind, repo_id: str, files: Files) -> dict[str, Any]:
    """{repo_id, url, files: [{path, bytes}], bytes} of what would be published."""
    sizes = {
        path: len(content) if isinstance(content, bytes) else content.stat().st_size
        for path, content in sorted(files.items())
    }
    rows = [{"path": path, "bytes": size} for path, size in sizes.items()]
    return {"repo_id": repo_id, "url": _page_of(kind, repo_id), "files": rows, "bytes": sum(sizes.values())}


def told_changes(changes: Changes) -> dict[str, list[str]]:
    """Which files were new, changed, removed, the same, or are not ours and were kept."""
    return {name: list(getattr(changes, name)) for name in ("new", "changed", "removed", "same", "kept")}


def _page_of(kind: Kind, repo_id: str) -> str:
    return f"{endpoint()}/{'spaces/' if kind == 'space' else ''}{repo_id}"
