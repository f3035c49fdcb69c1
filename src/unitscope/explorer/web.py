"""Web: the libraries that serve the explorer, in one place that names the missing extra."""

from __future__ import annotations

from unitscope.errors import MissingExtraError

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    package = str(error.name).split(".")[0]
    raise MissingExtraError(package, "explore", "the explorer") from None

__all__ = [
    "ASGIApp",
    "ClientDisconnect",
    "H11Protocol",
    "HTTPException",
    "Message",
    "Middleware",
    "Receive",
    "Request",
    "Response",
    "Route",
    "Scope",
    "Send",
    "Starlette",
    "uvicorn",
]
