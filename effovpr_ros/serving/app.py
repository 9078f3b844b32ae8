"""The HTTP interface of a server of maps, as a FastAPI application around any `MapService`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException

from effovpr_ros.core.errors import (
    CameraError,
    ConfigError,
    EffoVPRError,
    GeodesyError,
    ImageError,
    ModelMismatchError,
    TrajectoryError,
)
from effovpr_ros.core.version import version
from effovpr_ros.remote.answers import Answers
from effovpr_ros.remote.map_info import MapInfo
from effovpr_ros.remote.queries import FEATURES_TYPE
from effovpr_ros.remote.shard_list import ShardList
from effovpr_ros.serving.gate import Gate, RefusedError, read_body
from effovpr_ros.serving.limits import Limits, Tokens, retry_after
from effovpr_ros.serving.metrics import Metrics
from effovpr_ros.serving.parameters import Parameters, parameters
from effovpr_ros.serving.service import BusyError, MapService, NotThereError

_logger = logging.getLogger(__name__)

PICTURE_TYPES = ("image/jpeg", "image/png")
_FEATURE_TYPES = (FEATURES_TYPE, "application/octet-stream")
_STATUS_OF = {
    NotThereError: 404,
    BusyError: 503,
    ImageError: 400,
    ModelMismatchError: 409,
    ConfigError: 422,
    CameraError: 422,
    GeodesyError: 422,
    TrajectoryError: 422,
}


@dataclass(frozen=True)
class Problem:
    """Why there is no answer.

    Attributes:
        error: one line, for people.
    """

    error: str


def create_app(service: MapService, limits: Limits, tokens: Tokens) -> FastAPI:
    """The application.

    Args:
        service: that answers.
        limits: of what is taken.
        tokens: that open it.
    """
    app = FastAPI(
        title="effovpr_ros: where is this picture?",
        version=version(),
        redoc_url=None,
        description="Places of a map that pictures show. Every path but health wants `Authorization: Bearer TOKEN` "
        "where the server has tokens. Whatever is refused is answered by one line in `error`.",
    )
    gate = Gate(limits, tokens)
    metrics = Metrics(service.figures)
    _add_errors(app)
    app.middleware("http")(_counted(app, metrics, gate))
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (400, 401, 409, 413, 415, 422, 429, 503)
    }

    async def localize(request: Request, *, is_features: bool, asked: Parameters) -> Response:
        types = _FEATURE_TYPES if is_features else PICTURE_TYPES
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given not in types:
            raise RefusedError(415, f"Content-Type {given[:80]!r} is none of {', '.join(types)}")
        gate.count(request)
        with gate.admitted(metrics):
            body = await read_body(request, limits.max_bytes)
            question = asked.question(body, is_features, limits.max_pixels)
            try:
                answers = await asyncio.wait_for(service.answer(question), limits.answer_timeout_s)
            except (asyncio.TimeoutError, TimeoutError) as error:
                raise RefusedError(
                    503, f"not answered within {limits.answer_timeout_s:g} s", {"Retry-After": retry_after(1.0)}
                ) from error
        for result in answers.results:
            metrics.count_answer(result.status, result.latency_ms)
        return JSONResponse(asdict(answers))

    pictures = {"requestBody": {"required": True, "content": dict.fromkeys(PICTURE_TYPES, _BINARY)}}
    features = {"requestBody": {"required": True, "content": dict.fromkeys(_FEATURE_TYPES, _BINARY)}}

    @app.post("/v1/localize", response_model=Answers, responses=problems, openapi_extra=pictures)
    async def localize_picture(request: Request, asked: Annotated[Parameters, Depends(parameters)]) -> Response:
        """Say which place of the map a picture shows. The body is the JPEG or PNG itself."""
        return await localize(request, is_features=False, asked=asked)

    @app.post("/v1/localize_features", response_model=Answers, responses=problems, openapi_extra=features)
    async def localize_features(request: Request, asked: Annotated[Parameters, Depends(parameters)]) -> Response:
        """Say which place of the map features show, which a robot extracted by the map's model."""
        return await localize(request, is_features=True, asked=asked)

    @app.get("/v1/map", response_model=MapInfo, responses={401: {"model": Problem}})
    async def describe_map() -> Response:
        """What is served: name, revision, model, places, extent."""
        return JSONResponse(asdict(await service.info()))

    @app.get(
        "/v1/places/{place_id}/picture",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, 404: {"model": Problem}},
    )
    async def show_place(place_id: int) -> Response:
        """The picture that the map keeps of a place."""
        if not 0 <= place_id < 2**62:
            raise RefusedError(404, f"place {place_id} is not in the map")
        return Response(await service.picture(place_id), media_type="image/jpeg")

    @app.get("/v1/shards", response_model=ShardList, responses={401: {"model": Problem}})
    async def show_shards() -> Response:
        """The parts of the map, of which a robot may keep those that are near."""
        return JSONResponse(asdict(await service.shards()))

    @app.get("/v1/shards/{shard}/{file}", response_class=FileResponse, responses={404: {"model": Problem}})
    async def fetch_shard(shard: str, file: str) -> Response:
        """A file of a part."""
        return FileResponse(await service.shard_file(shard, file), media_type="application/octet-stream")

    @app.get("/health/live", response_model=dict[str, str])
    async def live() -> Response:
        """Whether the process answers at all."""
        return JSONResponse({"status": "live"})

    @app.get("/health/ready", response_model=dict[str, str], responses={503: {"model": Problem}})
    async def ready() -> Response:
        """Whether questions can be answered."""
        problem = await service.problem()
        return JSONResponse({"error": problem}, 503) if problem else JSONResponse({"status": "ready"})

    @app.get("/metrics", response_class=Response)
    async def show_metrics() -> Response:
        """For Prometheus."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return _refusal(error)

    @app.exception_handler(EffoVPRError)
    async def failed(request: Request, error: EffoVPRError) -> Response:
        for kind, status in _STATUS_OF.items():
            if isinstance(error, kind):
                more = {"Retry-After": retry_after(1.0)} if status == 503 else {}
                return JSONResponse({"error": str(error)}, status, more)
        _logger.error("a question is not answered: %s", error)
        return JSONResponse({"error": "the server cannot answer; its log says why"}, 500)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in error.errors()[:5])
        return JSONResponse({"error": said[:500]}, 422)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


def _refusal(error: RefusedError) -> Response:
    return JSONResponse({"error": error.reason}, error.status, error.headers)


_Next = Callable[[Request], Awaitable[Response]]


def _counted(app: FastAPI, metrics: Metrics, gate: Gate) -> Callable[[Request, _Next], Awaitable[Response]]:
    """Let in who may, count what is asked, and answer what nobody expected without a traceback."""
    known = {getattr(route, "path", "") for route in app.routes}

    async def middleware(request: Request, call_next: _Next) -> Response:
        started_s = time.perf_counter()
        try:
            gate.check(request)
            response = await call_next(request)
        except RefusedError as error:
            response = _refusal(error)
        except Exception:  # whatever it was, the next request is answered
            _logger.exception("%s %s failed", request.method, request.url.path)
            response = JSONResponse({"error": "the server failed; its log says how"}, 500)
        route = request.scope.get("route")
        path = getattr(route, "path", "") or ("/docs" if request.url.path in known else "other")
        metrics.count_request(path, response.status_code, time.perf_counter() - started_s)
        return response

    return middleware
