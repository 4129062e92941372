"""What the small Hub of the tests answers where it is written to: repositories, large files, commits, variables.

Shapes as huggingface_hub sends and expects them; refusals with the statuses and words of the Hub.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import yaml
from hub_state import Files, Hub, Repo, commit, content_id, is_large

KINDS = ("models", "datasets", "spaces")
SDKS = ("docker", "gradio", "static", "streamlit")
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
SPACE_CARD = b"---\ntitle: New\nsdk: gradio\n---\n\nCheck out the configuration reference\n"
_DAY = "2026-01-01T00:00:00.000Z"
_NAME = re.compile(r"[\w.-]{1,96}")
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
_LFS = re.compile(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)")
_STORAGE = re.compile(r"/storage/([0-9a-f]{64})(?:/(\d+|complete))?")


@dataclass(frozen=True)
class Asked:
    method: str
    path: str  # decoded, without what follows a question mark
    parts: list[str]  # of the path; a part may hold slashes
    token: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    value: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """`body`: XML in place of JSON, or more for the JSON."""

    def __init__(self, status: int, message: str, code: str = "", body: str | dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body


def answer(hub: Hub, asked: Asked) -> Answer | None:
    """The answer to a request that writes, or is only asked by those who write; None where it is none of these."""
    if stored := _STORAGE.fullmatch(asked.path):
        return _store(hub, asked, stored[1], stored[2])
    if large := _LFS.fullmatch(asked.path):
        name = f"{large[1]}/{large[2]}" if large[1] else large[2]
        _writable(hub, asked, name)
        return _batch(hub, asked, name) if large[3] == "batch" else _verify(hub, asked)
    if asked.parts[0] != "api":
        return None
    if asked.parts[1:] == ["repos", "create"]:
        return _create(hub, asked)
    if asked.parts[1:] == ["validate-yaml"]:
        return _validate(asked.json["content"], asked.json["repoType"])
    if len(asked.parts) < 5 or asked.parts[1] not in KINDS:
        return None
    kind, owner, short, verb = asked.parts[1:5]
    name = f"{owner}/{short}" if kind == "models" else f"{kind}/{owner}/{short}"
    if verb == "commits":
        return _commits(hub.repos[name]) if name in hub.repos else None
    if kind == "spaces" and verb == "runtime":
        return _runtime(hub.repos[name]) if name in hub.repos else None
    if verb not in _VERBS or (verb in _OF_SPACES and kind != "spaces"):
        return None
    return _VERBS[verb](_writable(hub, asked, name), hub, asked, name)


def _writable(hub: Hub, asked: Asked, name: str) -> Repo:
    person, repo = hub.person(asked.token), hub.repos.get(name)
    if person is None:
        raise Refused(
            401, "Invalid credentials in Authorization header" if asked.token else "Invalid username or password."
        )
    if repo is None:
        raise Refused(404, "Repository not found", "RepoNotFound")
    if not person.may_write(name) and repo.made_by != asked.token:
        raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")
    return repo


def _create(hub: Hub, asked: Asked) -> Answer:
    wish, person = asked.json, hub.person(asked.token)
    if person is None:
        raise Refused(
            401, "Invalid credentials in Authorization header" if asked.token else "Invalid username or password."
        )
    owner, kind = wish.get("organization") or person.name, wish.get("type") or "model"
    if not _NAME.fullmatch(wish["name"]):
        raise Refused(400, "Invalid repo name")
    if not person.may_create(owner):
        raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
    name = f"{'' if kind == 'model' else f'{kind}s/'}{owner}/{wish['name']}"
    url = f"{hub.url}/{name}"
    if name in hub.repos:
        message = f"You already created this {kind} repo: {owner}/{wish['name']}"
        raise Refused(409, message, body={"url": url})
    files = {".gitattributes": ATTRIBUTES}
    if kind == "space":
        if wish.get("sdk") not in SDKS:
            raise Refused(400, '"sdk" must be one of [gradio, docker, static, streamlit]')
        files["README.md"] = SPACE_CARD
    made: dict[str, Any] = {"private": wish.get("visibility") == "private", "sdk": wish.get("sdk")}
    hub.repos[name] = Repo(files, **made, made_by=asked.token, unseen=hub.delay)
    return Answer({"url": url, "name": f"{owner}/{wish['name']}", "id": "1"})


def _validate(content: str, kind: str) -> Answer:
    found = _FRONT_MATTER.match(content)
    if not found:
        return Answer({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        metadata = yaml.safe_load(found[1])
        faults = [] if isinstance(metadata, dict) else ["should be an object"]
    except yaml.YAMLError as failure:
        metadata, faults = {}, [f"bad YAML: {' '.join(str(failure).split())}"]
    if kind == "space" and not faults and metadata.get("sdk") not in SDKS:
        faults.append('"sdk" must be one of [gradio, docker, static, streamlit]')
    errors = [{"message": fault} for fault in faults]
    return Answer({"errors": errors, "warnings": []}, 400 if errors else 200)


def _preupload(repo: Repo, hub: Hub, asked: Asked, name: str) -> Answer:
    def mode(file: dict[str, Any]) -> dict[str, Any]:
        path, held = file["path"], repo.files.get(file["path"])
        return {
            "path": path,
            "uploadMode": "lfs" if is_large(path, base64.b64decode(file["sample"])) else "regular",
            "shouldIgnore": repo.ignores(path),
            "oid": None if held is None else content_id(path, held),
        }

    return Answer({"files": [mode(file) for file in asked.json["files"]]})


def _batch(hub: Hub, asked: Asked, name: str) -> Answer:
    wish = asked.json
    assert wish["operation"] == "upload" and wish["hash_algo"] == "sha256", wish

    def action(wanted: dict[str, Any]) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if oid in hub.objects:
            return {"oid": oid, "size": size}  # without actions: nothing has to be done
        upload: dict[str, Any] = {"href": f"{hub.url}/storage/{oid}"}
        if hub.part_bytes and size > hub.part_bytes and "multipart" in wish["transfers"]:
            numbers = range(1, ceil(size / hub.part_bytes) + 1)
            upload["header"] = {f"{number:05d}": f"{hub.url}/storage/{oid}/{number}" for number in numbers}
            upload["header"]["chunk_size"] = str(hub.part_bytes)
            upload["href"] += "/complete"
        verify = {"href": f"{hub.url}/{name}.git/info/lfs/objects/verify"}
        return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}

    content_type = {"Content-Type": "application/vnd.git-lfs+json"}
    return Answer(
        {"transfer": "basic", "objects": [action(wanted) for wanted in wish["objects"]]}, headers=content_type
    )


def _store(hub: Hub, asked: Asked, oid: str, part: str | None) -> Answer:
    """What a storage with signed addresses does: it knows no tokens, and compares what arrived with what was signed."""
    if asked.token:
        raise Refused(400, "Only one auth mechanism allowed", body="<Error><Code>InvalidArgument</Code></Error>")
    if part and part != "complete":
        hub.parts[oid, int(part)] = asked.body
        return Answer("", headers={"ETag": f'"{hashlib.md5(asked.body).hexdigest()}"'})
    content = asked.body
    if part:
        numbers = [piece["partNumber"] for piece in asked.json["parts"]]
        content = b"".join(hub.parts.pop((oid, number)) for number in numbers)
    if hashlib.sha256(content).hexdigest() != oid:
        raise Refused(400, "", body="<Error><Code>BadDigest</Code><Message>The SHA256 you specified did not match "
                      "the calculated checksum.</Message></Error>")  # fmt: skip
    hub.objects[oid] = content
    return Answer("")


def _verify(hub: Hub, asked: Asked) -> Answer:
    stored = hub.objects.get(asked.json["oid"])
    if stored is None or len(stored) != asked.json["size"]:
        raise Refused(404, "Object not found in the storage")
    return Answer({})


def _commit(repo: Repo, hub: Hub, asked: Asked, name: str) -> Answer:
    lines = [json.loads(line) for line in asked.body.splitlines()]
    header = lines[0]["value"]
    if header.get("parentCommit", commit(repo.files)) != commit(repo.files):
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    files: Files = dict(repo.files)
    for line in lines[1:]:
        value, path = line["value"], line["value"]["path"]
        if line["key"] == "file":
            files[path] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            if value["oid"] not in hub.objects:
                raise Refused(400, f"LFS pointer pointed to a file that does not exist: {path}")
            files[path] = hub.objects[value["oid"]]
        elif line["key"] == "deletedFile" and path in files:
            del files[path]
        else:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
    repo.history.append(repo.files)
    repo.files = files
    repo.messages.append(header["summary"])
    return Answer(
        {"success": True, "commitOid": commit(files), "commitUrl": f"{hub.url}/{name}/commit/{commit(files)}"}
    )


def _commits(repo: Repo) -> Answer:
    """Newest first."""
    told = zip([*repo.history, repo.files], repo.messages[-len(repo.history) - 1 :], strict=True)
    entries = [
        {"id": commit(files), "title": message, "message": "", "authors": [], "date": _DAY} for files, message in told
    ]
    return Answer(entries[::-1])


def _may(repo: Repo, hub: Hub, asked: Asked, name: str) -> Answer:
    """Whoever is answered at all may write."""
    return Answer({})


def _secrets(repo: Repo, hub: Hub, asked: Asked, name: str) -> Answer:
    _keep(repo.secrets, asked)
    return Answer({key: {"updatedAt": _DAY} for key in repo.secrets} if asked.method == "GET" else "")


def _variables(repo: Repo, hub: Hub, asked: Asked, name: str) -> Answer:
    _keep(repo.variables, asked)
    return Answer({key: {"value": value, "updatedAt": _DAY} for key, value in repo.variables.items()})


def _keep(kept: dict[str, str], asked: Asked) -> None:
    if asked.method == "POST":
        kept[asked.json["key"]] = asked.json["value"]
    elif asked.method == "DELETE":
        kept.pop(asked.json["key"], None)


def _runtime(repo: Repo) -> Answer:
    """As of one that has been built; what a person reads, with or without a token."""
    hardware = {"current": "cpu-basic", "requested": "cpu-basic"}
    stage = "RUNNING" if "app.py" in repo.files else "NO_APP_FILE"
    return Answer({"stage": stage, "hardware": hardware, "gcTimeout": 172800, "storage": None})


_OF_SPACES = ("secrets", "variables")
_VERBS = {
    "preupload": _preupload,
    "commit": _commit,
    "auth-check": _may,
    "secrets": _secrets,
    "variables": _variables,
}
