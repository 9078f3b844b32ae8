"""Who may ask a server of maps, how often, and how many at a time."""

from __future__ import annotations

import hmac
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.settings import check_limits, ranged

_KNOWN_CLIENTS = 10_000


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Each field's metadata holds `description`, `min` and `max`, both allowed.
    """

    rate_hz: float = ranged(
        50.0, 0.0, 1e6, "questions a second that one client may ask, with bursts of twice as many; 0: no limit"
    )
    max_waiting: int = ranged(
        64, 1, 100_000, "most questions that are answered or wait at one time; further ones are refused (503)"
    )
    max_megapixels: float = ranged(
        20.0, 0.001, 10000.0, "pictures of more million pixels are refused before they are decoded"
    )
    max_megabytes: float = ranged(16.0, 0.01, 1000.0, "requests with larger bodies are refused")
    answer_timeout_s: float = ranged(
        30.0, 0.1, 3600.0, "seconds after which a question without an answer is given up (503)"
    )

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata."""
        check_limits(self)

    @property
    def max_bytes(self) -> int:
        """Of a body."""
        return round(self.max_megabytes * 1e6)

    @property
    def max_pixels(self) -> int:
        """Of a picture."""
        return round(self.max_megapixels * 1e6)


class Tokens:
    """The tokens that open a server."""

    def __init__(self, tokens: Sequence[str]) -> None:
        """Keep them.

        Args:
            tokens: any of which opens; none: everybody may ask.

        Raises:
            ConfigError: one is so short that it can be guessed.
        """
        if any(len(token) < 16 for token in tokens):
            raise ConfigError("a token has fewer than 16 characters; make one with `openssl rand -hex 32`")
        self._tokens = [token.encode() for token in tokens]

    def opens(self, authorization: str) -> bool:
        """Whether the header Authorization holds one of them; takes as long for any wrong one."""
        if not self._tokens:
            return True
        kind, _, given = authorization.partition(" ")
        presented = given.strip().encode("utf-8", "replace")
        matched = [hmac.compare_digest(presented, token) for token in self._tokens]
        return kind.lower() == "bearer" and any(matched)


class RateLimit:
    """A bucket of questions for each client, which fills again at a rate; for any thread."""

    def __init__(self, rate_hz: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with full buckets.

        Args:
            rate_hz: of each client, which may ask twice as many, at least one, at once; 0: no limit.
            clock: in seconds.
        """
        self._rate_hz, self._burst, self._clock = rate_hz, max(1.0, 2.0 * rate_hz), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, client: str) -> float:
        """0 where a client may ask now, which is counted; else seconds until it may."""
        if not self._rate_hz:
            return 0.0
        with self._lock:
            now_s = self._clock()
            left, at_s = self._buckets.pop(client, (self._burst, now_s))
            left = min(self._burst, left + (now_s - at_s) * self._rate_hz)
            wait_s = 0.0 if left >= 1.0 else (1.0 - left) / self._rate_hz
            self._buckets[client] = (left if wait_s else left - 1.0, now_s)
            # The one that was silent longest has a full bucket again, unless an attacker has thousands of addresses.
            if len(self._buckets) > _KNOWN_CLIENTS:
                self._buckets.popitem(last=False)
            return wait_s


def retry_after(wait_s: float) -> str:
    """The header Retry-After, whole seconds."""
    return str(max(1, math.ceil(wait_s)))
