"""A small Hugging Face Hub on this machine: the real client talks to it over HTTP.

It speaks the part of the protocol that this project needs: who am I, a repository's information, its file tree, its
files with HEAD, GET and byte ranges (here), creating, sending and committing (`hub_writing`); and it refuses as the Hub
does, by status and `X-Error-Code`. `Hub.fail` lets requests fail on demand, `Hub.requests` and `Hub.received` keep what
was asked. What it holds is in `hub_state`.
"""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import hub_writing
from hub_state import Fault, Files, Hub, Person, Repo, commit, content_id, git_id, is_large

__all__ = ["CLOSED", "Files", "Hub", "Person", "Repo", "UseHub", "commit", "names", "serve"]

UseHub = Callable[[str], None]

CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens

# What the Hub says with a status, where a fault says nothing of its own.
_WORDS = {
    401: "Invalid credentials in Authorization header",
    403: "Forbidden: you must use a write token to upload to a repository.",
    404: "Repository not found",
    409: "Cannot go on: another conflicting change is in progress",
    429: "Too Many Requests",
}
_TROUBLE = "Internal Error - We're working hard to fix this as soon as possible!"


@contextmanager
def serve(repos: Mapping[str, Repo]) -> Iterator[Hub]:
    """Serve `repos` on a free port of the loopback interface for the length of a `with` block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}", dict(repos))
    server.hub = hub  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.awake.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    _unheard = _halved = False

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.hub.tokens.append(self._token)
        if wanted := self.headers.get("Range"):
            self.hub.ranges.append((self.path, wanted))
        fault, length = self.hub.fault_for(self.command, self.path), int(self.headers.get("Content-Length", 0))
        if fault and fault.kind == "cut":
            self.rfile.read(length // 2)
            return self._hang_up()
        body = self.rfile.read(length)
        self.hub.received.append((f"{self.command} {self.path}", length))
        if fault and callable(fault.kind):
            fault.kind()
        if fault and isinstance(fault.kind, int):
            return self._fail(fault, fault.kind)
        if fault and fault.kind == "silent":
            self.hub.awake.wait()
            return self._hang_up()
        if fault and fault.kind == "gateway":
            return self._send(502, b"<html><h1>502 Bad Gateway</h1></html>", {"Content-Type": "text/html"})
        if fault and fault.kind == "wrong-hash":
            body = bytes([body[0] ^ 1]) + body[1:]
        self._unheard = bool(fault) and fault.kind == "unheard"
        self._halved = bool(fault) and fault.kind == "half"
        self._go_on(body)

    def _go_on(self, body: bytes) -> None:
        # A revision may hold slashes, which arrive encoded: first split, then decode.
        path = urlsplit(self.path).path
        parts = [unquote(part) for part in path.strip("/").split("/")]
        for before, now in self.hub.moved.items():
            if f"/{before}/" in f"{path}/":
                return self._send(307, b"", {"Location": self.path.replace(before, now)})
        if path in self.hub.bodies:
            return self._send(200, self.hub.bodies[path], {"Content-Type": "text/html"})
        if parts == ["api", "whoami-v2"]:
            return self._who_am_i()
        try:
            asked = hub_writing.Asked(self.command, unquote(path), parts, self._token, body)
            answer = hub_writing.answer(self.hub, asked)
        except hub_writing.Refused as refused:
            if isinstance(refused.body, str):
                return self._send(refused.status, refused.body.encode(), {"Content-Type": "application/xml"})
            return self._refuse(refused.status, refused.code, refused.message, more=refused.body)
        if answer is not None:
            return self._json(answer.value, answer.status, answer.headers)
        in_api = parts[0] == "api"
        parts = parts[1:] if in_api else parts
        prefix = f"{parts[0]}/" if parts[0] in ("datasets", "spaces") else ""
        if parts[0] in ("models", "datasets", "spaces"):
            parts = parts[1:]
        for length in (2, 1):
            name = prefix + "/".join(parts[:length])
            if name in self.hub.repos:
                return self._about(self.hub.repos[name], name.removeprefix(prefix), parts[length:], in_api)
        self._refuse(404 if self._token else 401, "RepoNotFound", "Repository not found")

    def _about(self, repo: Repo, name: str, rest: list[str], in_api: bool) -> None:
        if repo.status is not None:
            return self._refuse(repo.status, "", "Internal Error - We're working hard to fix this as soon as possible!")
        if repo.private and not self._may_read(repo, name):
            return self._refuse(404 if self._token else 401, "RepoNotFound", "Repository not found")
        if repo.unseen:
            repo.unseen -= 1
            return self._refuse(404, "RepoNotFound", "Repository not found")
        verb, revision, path = (rest[0] if rest else "revision"), (rest[1] if len(rest) > 1 else "main"), rest[2:]
        files = repo.at(revision)
        if files is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if in_api and verb == "revision":
            return self._json(_information(repo, name, files))
        if in_api and verb == "tree":
            return self._listing(_tree(files))
        if not in_api and verb == "resolve":
            return self._file(repo, files, "/".join(path))
        self._refuse(404, "", f"Cannot {self.command} {self.path}")

    def _listing(self, entries: list[dict[str, Any]]) -> None:
        """A page of them, and where the next one is."""
        address, _, asked = self.path.partition("?")
        wishes = dict(parse_qsl(asked))
        start = int(wishes.pop("cursor", 0))
        end = start + self.hub.page
        following = urlencode({**wishes, "cursor": end})
        more = {"Link": f'<{self.hub.url}{address}?{following}>; rel="next"'} if end < len(entries) else {}
        self._json(entries[start:end], headers=more)

    def _file(self, repo: Repo, files: Files, path: str) -> None:
        if repo.gated and self._token not in repo.readers:
            return self._refuse(403 if self._token else 401, "GatedRepo", "Access to this repository is restricted")
        content = files.get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit(files)})
        headers = {"ETag": f'"{content_id(path, content)}"', "X-Repo-Commit": commit(files), "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self._send(200, content, headers)
        start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
        if start >= len(content):
            return self._send(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
        self._send(206, content[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"})

    def _who_am_i(self) -> None:
        person = self.hub.person(self._token)
        if person is None:
            return self._refuse(401, "", _WORDS[401] if self._token else "Invalid username or password.")
        self._json(_whoami(person))

    def _may_read(self, repo: Repo, name: str) -> bool:
        person = self.hub.person(self._token)
        theirs = repo.made_by == self._token or (person is not None and person.may_write(name))
        return self._token in repo.readers or theirs

    def _fail(self, fault: Fault, status: int) -> None:
        code = "RepoNotFound" if status == 404 else ""
        words = fault.says or _WORDS.get(status, _TROUBLE)
        self._refuse(status, code, words.replace("TOKEN", self._token), fault.headers)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _refuse(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        self._json({"error": message, **(more or {})}, status, told)

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        if self._unheard:
            return self._hang_up()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self._halved:
            self.wfile.write(body[: len(body) // 2])
            return self._hang_up()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent: `Hub.requests` has it all."""

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


def _whoami(person: Person) -> dict[str, Any]:
    if person.role == "oauth":
        auth: dict[str, Any] = {"type": "oauth", "expiresAt": "2026-01-01T08:00:00.000Z"}
    else:
        auth = {"type": "access_token", "accessToken": {"displayName": "tests", "role": person.role}}
    if person.role == "fineGrained":
        kinds = {person.name: "user", **dict.fromkeys(person.orgs, "org")}
        scoped = [
            {
                "entity": {"_id": "1", "type": kinds.get(name, _kind_of(name)), "name": name.removeprefix("spaces/")},
                "permissions": ["repo.write"],
            }
            for name in person.writes
        ]
        reading = {"entity": {"_id": "1", "type": "user", "name": person.name}, "permissions": ["repo.content.read"]}
        auth["accessToken"]["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": [*scoped, reading]}
    orgs = [{"type": "org", "id": "2", "name": name, "roleInOrg": role} for name, role in person.orgs.items()]
    return {
        "type": "user",
        "id": "1",
        "name": person.name,
        "fullname": "Test Er",
        "avatarUrl": "",
        "orgs": orgs,
        "auth": auth,
    }


def _kind_of(name: str) -> str:
    return "space" if name.startswith("spaces/") else "model"


def _information(repo: Repo, name: str, files: Files) -> dict[str, Any]:
    return {
        "_id": "1",
        "id": name,
        "author": name.split("/")[0],
        "sha": commit(files),
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "lastModified": "2026-01-01T00:00:00.000Z",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": path} for path in files],
    }


def _tree(files: Files) -> list[dict[str, Any]]:
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "oid": git_id(path.encode()), "size": 0, "path": path} for path in sorted(folders)
    ]
    for path, content in sorted(files.items()):
        entry: dict[str, Any] = {"type": "file", "oid": git_id(content), "size": len(content), "path": path}
        if is_large(path, content):
            entry["lfs"] = {"oid": content_id(path, content), "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries


def names(folder: Path) -> set[str]:
    """The files below a folder that was fetched."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
