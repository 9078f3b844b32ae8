"""MapServer: a server of maps as a robot asks it."""

from __future__ import annotations

import enum
import http.client
import json
import logging
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import urlencode

from effovpr_ros.core.errors import ServerError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.recognition.answer import Hint
from effovpr_ros.remote.answers import Answers, read_answers
from effovpr_ros.remote.connection import Connection, Reply
from effovpr_ros.remote.map_info import MapInfo, read_map_info
from effovpr_ros.remote.queries import FEATURES_TYPE, camera_parameters, hint_parameters
from effovpr_ros.remote.shard_list import ShardList, read_shard_list

_logger = logging.getLogger(__name__)

_LARGEST_ANSWER = 2**24


class Reach(enum.Enum):
    """How a server was reached the last time."""

    UNKNOWN = "not asked yet"
    OK = "answers"
    LATE = "late"
    GONE = "gone"
    REFUSES = "refuses"


@dataclass(frozen=True)
class QuestionOptions:
    """What a question says beside its picture.

    Attributes:
        hint: where the camera is believed to be.
        camera: that took the picture.
        candidates: at most so many are answered.
        doubtful: the pose of an AMBIGUOUS answer is measured too.
    """

    hint: Hint | None = None
    camera: MountedCamera | None = None
    candidates: int = 10
    doubtful: bool = False

    def parameters(self) -> dict[str, str]:
        """Of the URL."""
        values = {"candidates": str(self.candidates)}
        values |= hint_parameters(self.hint) if self.hint is not None else {}
        values |= camera_parameters(self.camera) if self.camera is not None else {}
        return {**values, "measure_doubtful": "true"} if self.doubtful else values


class RefusedError(ServerError):
    """The server answered that it does not.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, text: str, status: int) -> None:
        """Keep both."""
        super().__init__(text)
        self.status = status


class MapServer:
    """One server; calls from several threads take turns.

    Attributes:
        url: without a slash at the end.
        reach: how it was reached the last time.
        late: calls that were not answered in time.
        failures: calls without an answer for any cause.
    """

    def __init__(self, url: str, *, token: str = "", ca_file: str = "", timeout_s: float = 5.0) -> None:
        """Connect to nothing yet.

        Args:
            url: `https://HOST[:PORT]` or `http://...`, where whoever listens on the way reads and changes everything.
            token: that the server asks for; empty for none.
            ca_file: certificates that are trusted (PEM); empty for the system's.
            timeout_s: a call that is not answered by then is late.

        Raises:
            ConfigError: no such address, or the certificates cannot be read.
        """
        self.url = url.rstrip("/")
        self._connection = Connection(self.url, ca_file)
        if token and not self._connection.is_encrypted:
            _logger.warning("%s is not encrypted: whoever listens on the way learns the token; use https://", self.url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s
        # Names are looked up without a limit of time, so that calls run in a thread that can be left waiting.
        self._thread = ThreadPoolExecutor(1, "map-server")
        self._lock = threading.Lock()
        self.reach, self.since_s = Reach.UNKNOWN, time.monotonic()
        self.late = self.failures = 0

    def info(self) -> MapInfo:
        """What the server says of its map.

        Raises:
            ServerError: out of reach, late, or refuses; says which.
        """
        return read_map_info(self._json("GET", "/v1/map"), self.url)

    def localize_image(self, picture: bytes, options: QuestionOptions | None = None) -> Answers:
        """Ask with a JPEG or PNG; see `localize_features`."""
        kind = "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"
        return self._localize("/v1/localize", picture, kind, options)

    def localize_features(self, query: bytes, options: QuestionOptions | None = None) -> Answers:
        """Ask with features.

        Args:
            query: as `queries.encode_query` makes it.
            options: of the question; the defaults if None.

        Raises:
            ServerError: out of reach, late, refuses, or answers what cannot be read; says which.
        """
        return self._localize("/v1/localize_features", query, FEATURES_TYPE, options)

    def shards(self) -> ShardList:
        """The parts of the map that may be kept; a ServerError as `localize_features`."""
        return read_shard_list(self._json("GET", "/v1/shards"), self.url)

    def download(self, path: str, sink: BinaryIO, *, timeout_s: float, largest: int) -> None:
        """Write what a path holds to an open file; a ServerError as `localize_features`."""
        self._call("GET", path, b"", "", timeout_s, largest, sink)

    def get(self, path: str, *, timeout_s: float, largest: int = _LARGEST_ANSWER) -> bytes:
        """The bytes of a path.

        Args:
            path: below the server's address.
            timeout_s: for all of it.
            largest: more bytes are refused.

        Raises:
            ServerError: see `localize_features`.
        """
        return self._call("GET", path, b"", "", timeout_s, largest)

    @property
    def repeated(self) -> int:
        """Calls that were made again, since the connection was closed or a part of the server had just died."""
        return self._connection.repeated

    def close(self) -> None:
        """Give up the connection."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._connection.hang_up()

    def __enter__(self) -> MapServer:
        """Enter a context that gives up the connection."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _localize(self, path: str, body: bytes, kind: str, options: QuestionOptions | None) -> Answers:
        values = (options or QuestionOptions()).parameters()
        return read_answers(self._json("POST", f"{path}?{urlencode(values)}", body, kind), self.url)

    def _json(self, method: str, path: str, body: bytes = b"", kind: str = "") -> Any:
        data = self._call(method, path, body, kind, self._timeout_s, _LARGEST_ANSWER)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._failed(Reach.REFUSES, "answers what is no JSON; is it a server of maps?") from error

    def _call(
        self,
        method: str,
        path: str,
        body: bytes,
        kind: str,
        timeout_s: float,
        largest: int,
        sink: BinaryIO | None = None,
    ) -> bytes:
        ends_s = time.monotonic() + timeout_s
        headers = {**self._headers, "Content-Type": kind} if kind else self._headers
        with self._lock:
            try:
                running = self._thread.submit(
                    self._connection.exchange, method, path, body, headers, ends_s, largest, sink
                )
            except RuntimeError as error:
                raise ServerError(f"the connection to {self.url} was closed") from error
            try:
                reply = running.result(timeout_s)
            except (FutureTimeoutError, TimeoutError) as error:
                running.cancel()
                self._connection.hang_up()
                self.late += 1
                raise self._failed(Reach.LATE, f"has not answered within {timeout_s:g} s") from error
            except ssl.SSLCertVerificationError as error:
                raise self._failed(
                    Reach.REFUSES, f"has a certificate that is not trusted: {error.verify_message}; name its CA"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise self._failed(Reach.GONE, f"cannot be reached: {reason}") from error
        if reply.status != http.HTTPStatus.OK:
            raise RefusedError(str(self._failed(Reach.REFUSES, _refusal(reply))), reply.status)
        self._reached(Reach.OK)
        return reply.body

    def _failed(self, reach: Reach, what: str) -> ServerError:
        self.failures += 1
        self._reached(reach)
        return ServerError(f"server {self.url} {what}")

    def _reached(self, reach: Reach) -> None:
        if reach is not self.reach:
            self.reach, self.since_s = reach, time.monotonic()


def _refusal(reply: Reply) -> str:
    """What a status that is no answer means, for people."""
    try:
        said = str(json.loads(reply.body)["error"])[:500]
    except (ValueError, RecursionError, KeyError, TypeError):
        said = reply.body[:200].decode("utf-8", "replace").strip() or "no reason given"
    hints: dict[int, str] = {
        http.HTTPStatus.UNAUTHORIZED: "name the file with its token, or set EFFOVPR_TOKEN",
        http.HTTPStatus.TOO_MANY_REQUESTS: f"ask again in {reply.retry_after or '1'} s, or less often",
        http.HTTPStatus.SERVICE_UNAVAILABLE: f"ask again in {reply.retry_after or '1'} s",
    }
    hint = hints.get(reply.status)
    return f"refuses ({reply.status}): {said}{f'; {hint}' if hint else ''}"
