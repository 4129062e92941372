"""A small Hugging Face Hub on this machine: the real client talks to it over HTTP.

It speaks the part of the protocol that reading needs: who am I, a repository's information, its file tree, and its
files with HEAD, GET and byte ranges; and it refuses as the Hub does, by status and `X-Error-Code`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
UseHub = Callable[[str], None]

CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens

# Kept outside git on the Hub, and listed with their SHA-256.
LARGE_FILE_SUFFIXES = frozenset({".bin", ".parquet", ".safetensors", ".zip"})


@dataclass
class Repo:
    """`files` is the main branch; `branches` holds any other, such as "refs/convert/parquet"."""

    files: Files
    branches: dict[str, Files] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readers: frozenset[str] = frozenset()  # tokens that open a private or gated repository
    status: int | None = None  # answer everything with this

    def at(self, revision: str) -> Files | None:
        """The files of a branch or a commit."""
        named = {"main": self.files, **self.branches}
        return named.get(revision) or next((files for files in named.values() if commit(files) == revision), None)


@dataclass
class Hub:
    """A running server. Keys of `repos` are written as in the Hub's addresses: `owner/name`, `datasets/owner/name`."""

    url: str
    repos: dict[str, Repo]
    requests: list[str] = field(default_factory=list)  # "GET /api/models/…"


def commit(files: Files) -> str:
    digest = hashlib.sha1()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


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
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        # A revision may hold slashes, which arrive encoded: first split, then decode.
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts == ["api", "whoami-v2"]:
            return self._who_am_i()
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
        if repo.private and self._token not in repo.readers:
            return self._refuse(404 if self._token else 401, "RepoNotFound", "Repository not found")
        verb, revision, path = (rest[0] if rest else "revision"), (rest[1] if len(rest) > 1 else "main"), rest[2:]
        files = repo.at(revision)
        if files is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if in_api and verb == "revision":
            return self._json(_information(repo, name, files))
        if in_api and verb == "tree":
            return self._json(_tree(files))
        if not in_api and verb == "resolve":
            return self._file(repo, files, "/".join(path))
        self._refuse(404, "", f"Cannot {self.command} {self.path}")

    def _file(self, repo: Repo, files: Files, path: str) -> None:
        if repo.gated and self._token not in repo.readers:
            return self._refuse(403 if self._token else 401, "GatedRepo", "Access to this repository is restricted")
        content = files.get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit(files)})
        headers = {"ETag": f'"{_etag(path, content)}"', "X-Repo-Commit": commit(files), "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self._send(200, content, headers)
        start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
        if start >= len(content):
            return self._send(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
        self._send(206, content[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"})

    def _who_am_i(self) -> None:
        if not self._token:
            return self._refuse(401, "", "Invalid username or password.")
        self._json({"type": "user", "id": "1", "name": "tester", "fullname": "Test Er", "orgs": [], "auth": {}})

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        self._json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
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
        {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
        for path in sorted(folders)
    ]
    for path, content in sorted(files.items()):
        entry: dict[str, Any] = {"type": "file", "oid": _git_id(content), "size": len(content), "path": path}
        if PurePosixPath(path).suffix in LARGE_FILE_SUFFIXES:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries


def _etag(path: str, content: bytes) -> str:
    large = PurePosixPath(path).suffix in LARGE_FILE_SUFFIXES
    return hashlib.sha256(content).hexdigest() if large else _git_id(content)


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def names(folder: Path) -> set[str]:
    """The files below a folder that was fetched."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
