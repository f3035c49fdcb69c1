"""A Hugging Face hub on this machine: enough of its interface for its own client to
fetch the files of a repository."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local_server import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    url: str
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def publish(self, repository: str, folder: Path) -> None:
        self.repositories[repository] = {
            file.name: file.read_bytes() for file in folder.iterdir()
        }


class Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        hub, path = self.server.hub, self.path.partition("?")[0]
        hub.requests.append(f"{self.command} {path}")
        parts = path.removeprefix("/api/models/").strip("/").split("/")
        repository = "/".join(parts[:2])
        files = hub.repositories.get(repository)
        if repository in hub.refusals or files is None:
            status, code = hub.refusals.get(repository, (401, "RepoNotFound"))
            self._send(
                status,
                b"{}",
                {"X-Error-Code": code, "X-Error-Message": code},
                with_body,
            )
        elif parts[2:3] == ["resolve"] and parts[-1] in files:
            tag = hashlib.sha1(files[parts[-1]]).hexdigest()
            self._send(
                200,
                files[parts[-1]],
                {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT},
                with_body,
            )
        elif parts[2:3] == ["resolve"]:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
        elif parts[2:3] == ["tree"]:
            listing = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(body),
                    "oid": hashlib.sha1(body).hexdigest(),
                }
                for name, body in files.items()
            ]
            self._send(200, json.dumps(listing).encode(), {}, with_body)
        elif parts[2:3] == ["revision"] and parts[3] not in ("main", COMMIT):
            self._send(
                404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body
            )
        else:
            about = {
                "id": repository,
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in files],
            }
            self._send(200, json.dumps(about).encode(), {}, with_body)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], with_body: bool
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def running_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub that the client takes for the real one, with an empty cache."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.hub = hub = Hub(f"http://127.0.0.1:{server.server_port}")
        point_to(hub.url, cache, monkeypatch)
        with serving(server):
            yield hub


def point_to(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT and HF_HOME do, which the client reads only once."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", url)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
