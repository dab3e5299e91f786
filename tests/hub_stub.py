"""The part of the Hugging Face hub's HTTP API that bundles go through, on this machine, with repositories in memory.

    with HubStub() as stub:
        ...  # HF_ENDPOINT=stub.url, HF_TOKEN=TOKEN

What it answers is what the hub's documentation and ``huggingface_hub`` itself say that the hub answers. Large files go through
Git LFS, as in a client without hf-xet (HF_HUB_DISABLE_XET=1).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
LARGE = 400
"""Files from this size on go through Git LFS; small, so that a tiny bundle has some."""


@dataclass
class Repository:
    """A repository: the files of every commit, and the commit of every branch."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        sha = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


class HubStub:
    """The server. ``repositories`` may be looked at and changed; ``requests`` is what was asked, as method and path."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.objects: dict[str, bytes] = {}
        self.failing: int | None = None
        self.lock = threading.Lock()
        stub = self

        class Handler(_Handler):
            hub = stub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, files: dict[str, bytes], *, branch: str = "main", private: bool = False) -> str:
        """Put a commit there, without the client."""
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.commit(branch, dict(files))

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[name]
        return repository.commits[repository.resolve(revision) or ""]

    def __enter__(self) -> HubStub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: HubStub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on standard error."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            try:
                if self.hub.failing is not None:
                    raise _Refused(self.hub.failing, message="The hub is down")
                self._answer(path, body)
            except _Refused as refused:
                headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
                self._send(refused.status, b"{}", {key: value for key, value in headers.items() if value})

    def _answer(self, path: str, body: bytes) -> None:
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            self._send_json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            self.hub.objects[match[1]] = body
            self._send(200)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._repository(match[1], write=True)
            self._batch(json.loads(body))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+))?(?:/(.+))?", path):
            self._model(match[1], match[2] or "revision", match[3] or "main", body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            sha, files = self._commit(self._repository(match[1]), match[2])
            if match[3] not in files:
                raise _Refused(404, "EntryNotFound")
            content = files[match[3]]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._send(200, content, {"ETag": etag, "X-Repo-Commit": sha, "Content-Type": "application/octet-stream"})
        else:
            raise _Refused(404)

    def _model(self, name: str, what: str, rest: str, body: bytes) -> None:
        repository = self._repository(name, write=what in ("preupload", "commit", "branch"))
        if what == "revision":
            sha, files = self._commit(repository, rest)
            siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
            self._send_json({"id": name, "sha": sha, "private": repository.private, "siblings": siblings})
        elif what == "tree":
            sha, files = self._commit(repository, rest)
            self._send_json([{"type": "file", "path": path, **_entry(content)} for path, content in files.items()])
        elif what == "preupload":
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                    "shouldIgnore": file["path"] in repository.ignored,
                }
                for file in files
            ]
            self._send_json({"files": modes})
        elif what == "branch":
            if rest in repository.branches:
                raise _Refused(409)
            repository.branches[rest] = repository.branches["main"]
            self._send_json({})
        elif what == "commit":
            self._take_commit(name, repository, rest, body)
        else:
            raise _Refused(404)

    def _take_commit(self, name: str, repository: Repository, branch: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        head = lines[0]["value"]
        if head.get("parentCommit") not in (None, repository.branches[branch]):
            raise _Refused(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[repository.branches[branch]])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(line)
        sha = repository.commit(branch, files, head["summary"])
        self._send_json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    def _create(self, wanted: dict[str, Any]) -> None:
        self._require_token(403)
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repositories:
            self._send(409, json.dumps(url).encode())
            return
        self.hub.add(name, {".gitattributes": b"*.onnx filter=lfs\n"}, private=wanted.get("visibility") == "private")
        self._send_json(url)

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}} for item in wanted["objects"]
        ]
        self._send_json({"transfer": "basic", "objects": objects})

    def _repository(self, name: str, *, write: bool = False) -> Repository:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._has_token()):
            raise _Refused(401 if not self._has_token() else 404, "RepoNotFound", "Repository not found")
        if write:
            self._require_token(403)
        return repository

    def _commit(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        sha = repository.resolve(revision)
        if sha is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repository.commits[sha]

    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _require_token(self, status: int) -> None:
        if not self._has_token():
            raise _Refused(status, message="You don't have the rights to do this")

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"size": len(content), "oid": blob}
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry
