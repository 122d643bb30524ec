"""The ASGI application: routes, errors as problems, middleware, OpenAPI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from service import __version__
from service.admin_routes import router as admin_router
from service.batch_routes import router as batch_router
from service.emoji_routes import router as emoji_router
from service.headers import ConstantHeaders
from service.hot import HotPath
from service.inference_protocol import router as inference_router
from service.inference_schemas import InferenceRequest
from service.lifecycle import Service
from service.metrics import REFRESH_S, Metrics, Templates
from service.middleware import OPEN_PATHS, ApiKeys, Cors, Envelope, Linger
from service.models import Models, models_of
from service.page_routes import PATHS as PAGE_PATHS
from service.page_routes import router as page_router
from service.persons import router as persons_router
from service.problems import (
    STATUS,
    Code,
    Problem,
    documented,
    invalid_parameters,
    problem_response,
)
from service.rates import Buckets, RateLimit
from service.routes import ShortCut, router
from service.schemas import ProblemDetails
from service.settings import Settings
from service.tracing import Tracer, open_tracer

ROUTERS = (
    page_router,
    router,
    batch_router,
    emoji_router,
    persons_router,
    inference_router,
    admin_router,
)
FREE_PATHS = OPEN_PATHS | PAGE_PATHS  # of no key and no rate
HTTP_CODES: dict[int, Code] = {404: "not_found", 405: "method_not_allowed"}


def create_app(
    settings: Settings, models: Models | None = None, tracer: Tracer | None = None
) -> FastAPI:
    """The application, serving `models` or else those that the settings name, traced by
    `tracer` or else as OpenTelemetry's variables say.

    Raises ModelError where a model cannot be loaded, StoreError where there is no such database.
    """
    if models is None:
        models = models_of(settings)
    app = FastAPI(
        title="Domain Transfer Network",
        version=__version__,
        summary="Carries pictures of one domain over to another: G = g∘f",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    service = app.state.service = Service(settings, models)
    tracer = app.state.tracer = tracer or open_tracer()
    for each in ROUTERS:
        app.include_router(each)
    app.add_api_route("/metrics", get_metrics, **METRICS_ROUTE)
    app.exception_handler(Problem)(answer_problem)
    app.exception_handler(RequestValidationError)(answer_invalid_parameter)
    app.exception_handler(HTTPException)(answer_http_exception)
    keys = [key.get_secret_value() for key in settings.api_keys]
    # The last one added is the outermost.
    app.add_middleware(ShortCut)
    if settings.rate_limit:
        buckets = Buckets(settings.rate_limit, settings.rate_burst)
        app.add_middleware(RateLimit, buckets=buckets, exempt=FREE_PATHS)
    if keys:
        app.add_middleware(ApiKeys, keys=keys, exempt=FREE_PATHS)
    if settings.cors_origins:  # outside the two above: a browser's preflight carries no key
        app.add_middleware(Cors, origins=settings.cors_origins)
    app.add_middleware(
        Envelope,
        metrics=service.metrics,
        templates=Templates(route for part in (app, *ROUTERS) for route in part.routes),
        constant=ConstantHeaders(shared=bool(settings.cors_origins)),
        access_log=settings.access_log,
        tracer=tracer,
    )
    app.add_middleware(Linger)
    if HotPath.suits(settings, traced=tracer is not None):
        app.state.hot_path = HotPath(service, ApiKeys(app, keys) if keys else None)
    describe_api(app, has_keys=bool(keys), has_rates=settings.rate_limit > 0)
    build_routes(app)
    return app


def build_routes(app: FastAPI) -> None:
    """Let FastAPI build what it would at the first request: that need not wait, and applications
    in threads of one process do not build from the same parameters at once."""
    scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
    for route in app.routes:
        route.matches(scope)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Warm up in the background, so that liveness and the refusals of readiness are answered."""
    service: Service = app.state.service
    tracer: Tracer | None = app.state.tracer
    tasks = [asyncio.create_task(service.warm_up())]
    if service.metrics.shared:
        tasks.append(asyncio.create_task(keep_fresh(service.metrics)))
    try:
        yield
    finally:
        service.drain()
        for task in tasks:
            task.cancel()
        service.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


async def keep_fresh(metrics: Metrics) -> None:
    """Write down what is watched, for the process that is asked for the metrics of all."""
    while True:
        metrics.refresh()
        await asyncio.sleep(REFRESH_S)


async def get_metrics(request: Request) -> Response:
    """Requests, stages, batches, queues, refusals and models, in Prometheus's text format or,
    where `Accept` names it, OpenMetrics."""
    service: Service = request.app.state.service
    service.metrics.refresh()
    # In a thread: it may have to wait for nvidia-smi.
    text, media_type = await asyncio.to_thread(
        service.metrics.all, request.headers.get("accept", "")
    )
    return Response(text, media_type=media_type)


METRICS_ROUTE: dict[str, Any] = {
    "summary": "Metrics for Prometheus",
    "response_class": PlainTextResponse,
}


async def answer_problem(request: Request, problem: Problem) -> Response:
    return problem_response(problem, request.state.request_id)


async def answer_invalid_parameter(request: Request, error: RequestValidationError) -> Response:
    """FastAPI's refusal of a query: each parameter and what is wrong with it."""
    return problem_response(invalid_parameters(error.errors()), request.state.request_id)


async def answer_http_exception(request: Request, error: HTTPException) -> Response:
    """What the router raises: no such path, no such method."""
    code = HTTP_CODES.get(error.status_code, "bad_request")
    problem = Problem(code, f"{request.method} {request.url.path}: {error.detail}", error.headers)
    return problem_response(problem, request.state.request_id)


def describe_api(app: FastAPI, has_keys: bool, has_rates: bool) -> None:
    """Complete FastAPI's OpenAPI document with what it cannot know: problems, API keys, rates."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        components = document.setdefault("components", {})
        for schema in (ProblemDetails, InferenceRequest):
            described = schema.model_json_schema(ref_template="#/components/schemas/{model}")
            named = described.pop("$defs", {}) | {schema.__name__: described}
            components.setdefault("schemas", {}).update(named)
        if has_keys:
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
        for path, operations in document["paths"].items():
            for operation in operations.values() if path not in OPEN_PATHS else ():
                if has_keys:
                    operation["security"] = [{"bearer": []}, {"key": []}]
                    document_problem(operation["responses"], "unauthorized")
                if has_rates:
                    document_problem(operation["responses"], "rate_limited")
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def document_problem(responses: dict[str, Any], code: Code) -> None:
    """Add a problem to an operation's `responses`, beside others of its status."""
    status = STATUS[code]
    others: list[Code] = []
    if str(status) in responses:
        (content,) = responses[str(status)]["content"].values()
        others = content["schema"]["properties"]["code"]["enum"]
    responses[str(status)] = documented(*others, code)[status]
