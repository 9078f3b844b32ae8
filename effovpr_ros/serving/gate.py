"""Who comes in, how many at a time, and how much of what they bring is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from effovpr_ros.serving.limits import Limits, RateLimit, Tokens, retry_after
from effovpr_ros.serving.metrics import Metrics

_OPEN_PATHS = ("/health/live", "/health/ready", "/docs", "/openapi.json")


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        reason: one line, for people.
        headers: of the response.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        """Keep what is answered instead."""
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers or {}


class Gate:
    """Of one application; for the thread of its event loop."""

    """Who comes in."""

    def __init__(self, limits: Limits, tokens: Tokens) -> None:
        """Nobody is in."""
        self._limits, self._tokens = limits, tokens
        self._rate = RateLimit(limits.rate_hz)
        self._inside = 0

    def check(self, request: Request) -> None:
        """Refuse who has no token."""
        if request.url.path in _OPEN_PATHS or self._tokens.opens(request.headers.get("authorization", "")):
            return
        raise RefusedError(
            401, "no valid token: send the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )

    def count(self, request: Request) -> None:
        """Refuse who asks too often."""
        wait_s = self._rate.wait_s(request.client.host if request.client else "")
        if wait_s:
            reason = f"more than {self._limits.rate_hz:g} questions a second from one address"
            raise RefusedError(429, reason, {"Retry-After": retry_after(wait_s)})

    @contextmanager
    def admitted(self, metrics: Metrics) -> Iterator[None]:
        """A context of one question at hand; refuses where too many are."""
        if self._inside >= self._limits.max_waiting:
            raise RefusedError(503, f"{self._inside} questions wait already", {"Retry-After": retry_after(1.0)})
        self._inside += 1
        metrics.waiting.set(self._inside)
        try:
            yield
        finally:
            self._inside -= 1
            metrics.waiting.set(self._inside)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, of which no more than the limit is ever held."""
    reason = f"the body has more than {max_bytes} bytes"
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise RefusedError(413, reason, {"Connection": "close"})
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                raise RefusedError(413, reason, {"Connection": "close"})
            parts.append(part)
    except ClientDisconnect as error:
        raise RefusedError(400, "the connection ended before the body did") from error
    if not size:
        raise RefusedError(400, "the body is empty")
    return b"".join(parts)
