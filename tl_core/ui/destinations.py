"""What the page says of a run's way to the Hub: what would be sent, what would change, where it went.

Must not know components, tokens or who asks.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from tl_core.files import read_json
from tl_core.hub.changes import Changes, Files
from tl_core.hub.names import Kind
from tl_core.hub.plan import told_changes
from tl_core.images.wording import count
from tl_core.runs import Run
from tl_core.sharing import UNPUBLISHED, published
from tl_core.ui.markup import link, notice, paragraph, spoken_bytes, table, text

_FILES_NAMED = 12
_DONE = {
    "new": "added",
    "changed": "replaced",
    "removed": "deleted",
    "kept": "left as they are, for they are not yours",
}
_KINDS: Mapping[str, str] = {"model": "model", "space": "demo Space"}
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_PICTURE = re.compile(r"!\[([^\]\n]*)\]\(([^)\s]+)\)")


def what_would_be_sent(planned: Mapping[str, Any], found: Mapping[Kind, Changes | None] | None) -> str:
    """Markup of a rehearsal, with what it would change; `found` is None where the Hub was not asked."""
    parts = [planned, planned["space"]] if planned["space"] else [planned]
    kinds: list[Kind] = ["model", "space"]
    told = "".join(
        _told_of(kind, part, found, private=bool(planned["private"])) for kind, part in zip(kinds, parts, strict=False)
    )
    rows = [
        (row["path"], spoken_bytes(row["bytes"]), _KINDS[kind])
        for kind, part in zip(kinds, parts, strict=False)
        for row in part["files"]
    ]
    listed = table(["file", "size", "where"], rows, "What would be sent")
    return f'{told}<details class="tl-files"><summary>{count(len(rows), "file", "files")}</summary>{listed}</details>'


def needs_consent(found: Mapping[Kind, Changes | None]) -> bool:
    """Whether something that is there already would change."""
    return any(changes is not None and changes.needs_replace for changes in found.values())


def word_of(repo_id: str, found: Mapping[Kind, Changes | None]) -> str:
    """Stands for exactly these changes, of what is there now: a yes to them is no yes to others, nor to replacing what
    somebody has put under the same names since."""
    told = {
        kind: (changes.commit, told_changes(changes)) if changes is not None else None
        for kind, changes in found.items()
    }
    return blake2b(f"{repo_id} {sorted(told.items())}".encode(), digest_size=16).hexdigest()


def where_it_is(answer: Mapping[str, Any]) -> str:
    """Markup of what a push has come to."""
    sent = f"{spoken_bytes(answer['bytes'])} were sent" if answer["bytes"] else "it was there already, nothing was sent"
    seen = "only you, and whom you let, can see it" if answer["private"] else "everybody can see it"
    demo = f"<li>Demo: {link(answer['space_url'])} (it takes some minutes to build)</li>" if answer["space_url"] else ""
    return (
        f'<div class="tl-notice tl-good" role="status"><p>It is on the Hub: {sent}; {seen}.</p>'
        f"<ul><li>Model: {link(answer['url'])}</li>{demo}</ul></div>"
    )


def history_of(run: Run) -> str:
    """Markup of where a run went, and of where it was to go and did not; nothing for one that was never to."""
    return _what_is_owed(read_json(run.dir / UNPUBLISHED)) + _where_it_went(published(run))


def _what_is_owed(owed: Mapping[str, Any] | None) -> str:
    """Markup of what was to be pushed when the training was done, and is not; nothing where nothing is."""
    if not owed:
        return ""
    return notice(f"It was to be pushed as {owed['repo_id']}, and is not: {owed['error']}. Push it here.", "warn")


def _where_it_went(entries: Sequence[Mapping[str, Any]]) -> str:
    """Markup of published.json, each place once, the newest first; nothing where the run was not published."""
    if not entries:
        return ""
    latest = {(entry.get("kind"), entry.get("url")): entry for entry in entries}
    items = "".join(
        f"<li>{text(_KINDS.get(str(entry.get('kind')), 'repository'))} {link(str(entry.get('url', '')))}"
        f'{", private" if entry.get("private") else ""} <small class="tl-quiet">{text(_moment(entry))}</small></li>'
        for entry in sorted(latest.values(), key=lambda entry: str(entry.get("at")), reverse=True)
    )
    return f"<div class='tl-went'>{paragraph('Where it is on the Hub:')}<ul class='tl-notes'>{items}</ul></div>"


def shown_card(files: Files) -> str:
    """The card among `files` as Markdown, with its pictures in it, and without what is for machines."""
    content = files["README.md"]
    card = (content if isinstance(content, bytes) else content.read_bytes()).decode()

    def picture(found: re.Match[str]) -> str:
        drawn = files.get(found[2])
        stored = base64.b64encode(drawn).decode() if isinstance(drawn, bytes) else ""
        return f"![{found[1]}](data:image/png;base64,{stored})" if stored else found[1]

    return _PICTURE.sub(picture, _FRONT_MATTER.sub("", card))


def _told_of(
    kind: Kind, planned: Mapping[str, Any], found: Mapping[Kind, Changes | None] | None, *, private: bool
) -> str:
    files = f"{count(len(planned['files']), 'file', 'files')}, {spoken_bytes(planned['bytes'])}"
    where, seen = link(planned["url"]), "private" if private else "public"
    if found is None or found.get(kind) is None:
        new = "" if found is None else f", a new {seen} one"
        return f'<p class="tl-text">The {_KINDS[kind]}: {files}, to {where}{new}.</p>'
    changes = found[kind]
    assert changes is not None
    if changes.is_empty:
        return f'<p class="tl-text">The {_KINDS[kind]}: {where} holds exactly this already; nothing would be sent.</p>'
    told = told_changes(changes)
    lines = [
        f"{count(len(told[key]), 'file', 'files')} {done}: {_some(told[key])}"
        for key, done in _DONE.items()
        if told[key]
    ]
    size = spoken_bytes(changes.bytes_to_send)
    if not changes.needs_replace:
        return f'<p class="tl-text">The {_KINDS[kind]}: {files}, to {where}, which is there and empty.</p>'
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return (
        f'<div class="tl-notice tl-warn"><p>The {_KINDS[kind]} {where} holds something else already. Pushing would '
        f"send {size} and change it:</p><ul>{items}</ul></div>"
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _FILES_NAMED
    return ", ".join(names[:_FILES_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _moment(entry: Mapping[str, Any]) -> str:
    return str(entry.get("at", ""))[:16].replace("T", ", ") + " UTC"
