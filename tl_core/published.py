"""Where a run went: `published.json` in its folder, and `unpublished.json`, which says what has not arrived yet.

Must not know how a repository is written to, nor what was put there.
"""

import json
import os
import secrets
from datetime import UTC, datetime
from typing import Any

import filelock

from tl_core.files import read_json, write_json, writing_to_home
from tl_core.hub.publishing import Published
from tl_core.runs import Run
from tl_core.settings import Settings

RECORD = "published.json"
UNPUBLISHED = "unpublished.json"  # what was to be published and is not yet


def published(run: Run) -> list[dict[str, Any]]:
    """Where the run went: [{repo_id, url, kind, commit, at, private}], the newest last; nothing where the record cannot
    be read."""
    try:
        return _entries(run)[0]
    except OSError:
        return []


def last_commit(run: Run, repo_id: str) -> str | None:
    """The commit that this run's model had when it was last published there."""
    for entry in reversed(published(run)):
        if (entry.get("repo_id"), entry.get("kind")) == (repo_id, "model"):
            return entry.get("commit")
    return None


def remember(run: Run, sent: Published, settings: Settings) -> None:
    """Add to published.json what was sent, or is there already and not in it yet. A damaged record is put aside.

    Raises JobError where the run folder cannot be read or written.
    """
    record = run.dir / RECORD
    where = {"repo_id": sent.id, "url": sent.url, "kind": sent.kind}
    known_by = where if sent.changes.is_empty else {**where, "commit": sent.commit}
    with writing_to_home(settings), filelock.FileLock(run.dir / "published.lock"):
        known, sound = _entries(run)
        if not sound:
            os.replace(record, record.with_name(f"published.damaged-{secrets.token_hex(4)}.json"))
        elif any(known_by.items() <= earlier.items() for earlier in known):
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(record, [*known, {**where, "commit": sent.commit, "at": now, "private": sent.private}])


def settle(run: Run, repo_id: str, settings: Settings) -> None:
    """Nothing of what was to be published there is left to do. Raises JobError where that cannot be noted."""
    owed = run.dir / UNPUBLISHED
    if (read_json(owed) or {}).get("repo_id") == repo_id:
        with writing_to_home(settings):
            owed.unlink(missing_ok=True)


def _entries(run: Run) -> tuple[list[dict[str, Any]], bool]:
    """What can be read of the record, and whether that is all of it. Raises OSError."""
    try:
        kept = json.loads((run.dir / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [], True
    except (ValueError, RecursionError):
        return [], False
    entries = [entry for entry in kept if isinstance(entry, dict)] if isinstance(kept, list) else []
    return entries, entries == kept
