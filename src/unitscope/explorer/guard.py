"""Guard: refuses requests of other sites, and turns unexpected errors into answers."""

from __future__ import annotations

import ipaddress
import logging
import re
import traceback
from collections.abc import Collection
from pathlib import Path

from unitscope.errors import one_line
from unitscope.explorer.answers import error_response
from unitscope.explorer.web import (
    ASGIApp,
    ClientDisconnect,
    Message,
    Receive,
    Request,
    Response,
    Scope,
    Send,
)

_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_SECURITY_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(:\d{1,5})?")
_ONLY_OWN_PAGES = "only the explorer's own pages may"
_SHOWN = 80

_log = logging.getLogger("unitscope.explorer")


class Guard:
    """ASGI middleware that answers only to known host names and to the own pages.

    A web site could give this machine a name of its own (DNS rebinding) and read along,
    so names other than localhost and `hosts` are refused. Every answer gets the
    security headers, and every unexpected error becomes one line.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = {"localhost", *map(_bare_host, hosts)}

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        has_started = False

        async def send_secured(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = [*message.get("headers", ()), *_SECURITY_HEADERS]
                message = {**message, "headers": headers}
            await send(message)

        try:
            refusal = self._refusal(Request(scope))
            answer = self._app if refusal is None else refusal
            await answer(scope, receive, send_secured)
        except ClientDisconnect:
            return
        except Exception as error:
            _log.error("unitscope: %s", _log_line(scope, error))
            if has_started:
                raise
            answer = _unexpected(error)
            await answer(scope, receive, send_secured)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not be served, None for all others."""
        host = request.headers.get("host", "")
        if not self._serves(host, request):
            return error_response(
                400,
                f"'{host[:_SHOWN]}' is not a name of this server: use localhost, or "
                "start it with --allow-host",
            )

        if _is_from_another_site(request):
            return error_response(403, f"another site asked: {_ONLY_OWN_PAGES}")

        origin = request.headers.get("origin")
        own_origins = (f"http://{host.lower()}", f"https://{host.lower()}")
        if origin is not None and origin.lower() not in own_origins:
            return error_response(
                403, f"a page of '{origin[:_SHOWN]}' asked: {_ONLY_OWN_PAGES}"
            )
        return None

    def _serves(self, host: str, request: Request) -> bool:
        """Whether this server is meant by a request's Host header."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = _bare_host(match[1])
        if name in self._hosts:
            return True

        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address cannot be pointed at another machine, as names can: a client that
        # reached this server at the address that it wrote meant this server.
        reached, _ = request.scope.get("server") or ("", 0)
        is_reached = str(address) == str(reached).removeprefix("::ffff:")
        return address.is_loopback or is_reached


def _bare_host(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _is_from_another_site(request: Request) -> bool:
    """Whether the browser says that another site reads or sends; a link may lead here."""
    headers = request.headers
    if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
        return False
    is_link = (
        request.method in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    return not is_link


def _unexpected(error: Exception) -> Response:
    kind = type(error).__name__
    line = f"unexpected {kind}: the explorer's standard error says where it happened"
    return error_response(500, line)


def _log_line(scope: Scope, error: Exception) -> str:
    """An unexpected error on one line, with the request and the place in the code."""
    path = scope["path"][:200]
    request = f"{scope['method']} {path!r}"
    kind = type(error).__name__
    line = f"{request}: {kind}: {one_line(error)}"

    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return line
    innermost = frames[-1]
    file = Path(innermost.filename).name
    return f"{line} ({file}:{innermost.lineno})"
