"""What is to be published, in plain values: what can be said of it before the Hub is asked.

Must not know: what is there already, nor what the files are.
"""

from typing import Any

from tl_core.hub.changes import Changes, Files
from tl_core.hub.names import Kind, page_of
from tl_core.hub.outgoing import size_of


def plan_of(kind: Kind, repo_id: str, files: Files) -> dict[str, Any]:
    """{repo_id, url, files: [{path, bytes}], bytes} of what would be published. Raises HubError for a file that cannot
    be read."""
    rows: list[dict[str, Any]] = [{"path": path, "bytes": size_of(content)} for path, content in sorted(files.items())]
    size = sum(row["bytes"] for row in rows)
    return {"repo_id": repo_id, "url": page_of(kind, repo_id), "files": rows, "bytes": size}


def told_changes(changes: Changes) -> dict[str, list[str]]:
    """Which files were new, changed, removed, the same, or are not ours and were kept."""
    return {name: list(getattr(changes, name)) for name in ("new", "changed", "removed", "same", "kept")}
