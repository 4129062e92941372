"""What the small Hub of the tests knows: repositories, people with their tokens, stored objects, faults on demand.

No HTTP in here: `hub_server` speaks it, and answers what is read; `hub_writing` answers what is written.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from threading import Event, Lock

Files = dict[str, bytes]

# Kept outside git on the Hub, and listed with their SHA-256; so is what is no text.
LARGE_FILE_SUFFIXES = frozenset({".bin", ".parquet", ".safetensors", ".zip"})
SAMPLE_BYTES = 512  # as much of a file as the client shows before it sends it
WRITING_ROLES = ("admin", "write", "contributor")


def contents_of(files: Mapping[str, bytes | Path]) -> Files:
    """What is to be published, read; as a repository holds it."""
    return {name: content if isinstance(content, bytes) else content.read_bytes() for name, content in files.items()}


@dataclass
class Repo:
    """`files` is the main branch; `branches` holds any other, such as "refs/convert/parquet"."""

    files: Files
    branches: dict[str, Files] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readers: frozenset[str] = frozenset()  # tokens that open a private or gated repository
    status: int | None = None  # answer everything with this
    history: list[Files] = field(default_factory=list)  # what main held before, oldest first
    messages: list[str] = field(default_factory=lambda: ["initial commit"])
    sdk: str | None = None
    secrets: dict[str, str] = field(default_factory=dict)  # of a Space; nobody can read them back
    variables: dict[str, str] = field(default_factory=dict)  # of a Space
    made_by: str | None = None  # the token that it was created with
    unseen: int = 0  # so many questions about it are still answered as if it were not there

    def put(self, message: str, files: Files) -> None:
        """A commit of somebody's, past all that is asked of them."""
        self.history.append(self.files)
        self.files = self.files | files
        self.messages.append(message)

    def ignores(self, path: str) -> bool:
        """As .gitignore says, as far as tests write one: names with stars, and folders that end in a slash."""
        rules = self.files.get(".gitignore", b"").decode().split()
        return any(path.startswith(rule) if rule.endswith("/") else fnmatch(path, rule) for rule in rules)

    def at(self, revision: str) -> Files | None:
        """The files of a branch or a commit."""
        named = {"main": self.files, **self.branches}
        earlier = [*named.values(), *self.history]
        return named.get(revision) or next((files for files in earlier if commit(files) == revision), None)


@dataclass(frozen=True)
class Person:
    """Whom a token belongs to. `role` is the token's: write, read, fineGrained (for the names in `writes`: of people,
    organisations and repositories) or oauth (for what it has created, and for the repositories in `writes`). `orgs` are
    the person's roles in organisations: admin, write, …, read. Of Spaces, `writes` has the names with "spaces/"."""

    name: str
    orgs: Mapping[str, str] = field(default_factory=dict)
    role: str = "write"
    writes: tuple[str, ...] = ()

    def may_create(self, owner: str) -> bool:
        theirs = owner == self.name or self.orgs.get(owner) in WRITING_ROLES
        return theirs and self.role != "read" and (self.role != "fineGrained" or owner in self.writes)

    def may_write(self, name: str) -> bool:
        if self.role in ("fineGrained", "oauth") and name in self.writes:
            return True
        return self.role != "oauth" and self.may_create(name.removeprefix("spaces/").split("/")[0])


@dataclass
class Fault:
    """`kind`: a status (401, 403, 404, 409, 429, 500, …); "cut": the connection ends amid what is received;
    "wrong-hash": what arrives is damaged; "unheard": all is done, and the connection ends before the answer;
    "half": the answer ends in its middle, though its length was said to be the whole;
    "silent": no answer until `Hub.awake` is set; "gateway": a page of words and status 502;
    a function: it is called, and all goes on as if nothing were wrong."""

    method: str
    path: str
    left: int
    kind: int | str | Callable[[], None]
    headers: dict[str, str]
    says: str | None


@dataclass
class Hub:
    """A running server. Keys of `repos` are written as in the Hub's addresses: `owner/name`, `datasets/owner/name`,
    `spaces/owner/name`. While `people` is empty, every token is `tester`'s and may write what is theirs."""

    url: str
    repos: dict[str, Repo]
    requests: list[str] = field(default_factory=list)  # "GET /api/models/…"
    received: list[tuple[str, int]] = field(default_factory=list)  # the same, and the bytes of its body
    tokens: list[str] = field(default_factory=list)  # of each request, "" for none
    ranges: list[tuple[str, str]] = field(default_factory=list)  # requests for a part of something, and which part
    people: dict[str, Person] = field(default_factory=dict)  # token: whose
    objects: dict[str, bytes] = field(default_factory=dict)  # the large-file storage: SHA-256: content
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    part_bytes: int | None = None  # larger files arrive in parts of this size
    page: int = 1000  # so many files are told at once
    delay: int = 0  # of a new repository: `Repo.unseen`
    moved: dict[str, str] = field(default_factory=dict)  # a repository's name before: its name now
    faults: list[Fault] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)  # path: answer with this, whatever is asked
    lock: Lock = field(default_factory=Lock)
    awake: Event = field(default_factory=Event)  # ends the silence of those who wait for it

    def fail(
        self, method: str, path: str, times: int, kind: int | str | Callable[[], None], *,
        retry_after: int | None = None, headers: Mapping[str, str] | None = None, says: str | None = None,
    ) -> None:  # fmt: skip
        """Let the next `times` requests fail whose path matches the regular expression `path` somewhere."""
        asked = {"Retry-After": str(retry_after)} if retry_after is not None else {}
        self.faults.append(Fault(method, path, times, kind, {**asked, **(headers or {})}, says))

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.left and fault.method == method and re.search(fault.path, path):
                    fault.left -= 1
                    return fault
        return None

    def person(self, token: str) -> Person | None:
        if not self.people:
            return Person("tester") if token else None
        return self.people.get(token)

    def bytes_of(self, method: str) -> int:
        """How many bytes arrived with requests of this method."""
        return sum(size for request, size in self.received if request.startswith(f"{method} "))

    def asked(self, part: str) -> list[str]:
        """The requests with `part` in them."""
        return [request for request in self.requests if part in request]


def commit(files: Files) -> str:
    digest = hashlib.sha1()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


def is_large(path: str, sample: bytes) -> bool:
    """Whether a file lies in the large-file storage; an empty one never does."""
    return bool(sample) and (PurePosixPath(path).suffix in LARGE_FILE_SUFFIXES or b"\0" in sample[:SAMPLE_BYTES])


def content_id(path: str, content: bytes) -> str:
    """What names a file's content: SHA-256 in the large-file storage, else what git calls it."""
    return hashlib.sha256(content).hexdigest() if is_large(path, content) else git_id(content)


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
