"""The ASGI application: routes, errors as problems, middleware, OpenAPI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service import __version__
from service.emoji_routes import router as emoji_router
from service.lifecycle import Service
from service.middleware import OPEN_PATHS, ApiKeys, Linger, RequestId
from service.models import Models, load_models
from service.persons import router as persons_router
from service.problems import Code, Problem, documented, problem_response
from service.routes import router
from service.schemas import ProblemDetails
from service.settings import Settings

HTTP_CODES: dict[int, Code] = {404: "not_found", 405: "method_not_allowed"}


def create_app(settings: Settings, models: Models | None = None) -> FastAPI:
    """The application, serving `models` or else those that the settings name.

    Raises ModelError where a model cannot be loaded, StoreError where there is no such database.
    """
    if models is None:
        models = load_models(
            settings.models, settings.default_model, settings.device, settings.threads
        )
    app = FastAPI(
        title="Domain Transfer Network",
        version=__version__,
        summary="Carries pictures of one domain over to another: G = g∘f",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = Service(settings, models)
    app.include_router(router)
    app.include_router(emoji_router)
    app.include_router(persons_router)
    app.exception_handler(Problem)(answer_problem)
    app.exception_handler(RequestValidationError)(answer_invalid_parameter)
    app.exception_handler(HTTPException)(answer_http_exception)
    keys = [key.get_secret_value() for key in settings.api_keys]
    # The last one added is the outermost.
    if keys:
        app.add_middleware(ApiKeys, keys=keys)
    app.add_middleware(RequestId)
    app.add_middleware(Linger)
    describe_api(app, has_keys=bool(keys))
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Warm up in the background, so that liveness and the refusals of readiness are answered."""
    service: Service = app.state.service
    warming = asyncio.create_task(service.warm_up())
    try:
        yield
    finally:
        service.drain()
        warming.cancel()
        service.close()


async def answer_problem(request: Request, problem: Problem) -> Response:
    return problem_response(problem, request.state.request_id)


async def answer_invalid_parameter(request: Request, error: RequestValidationError) -> Response:
    """FastAPI's refusal of a query: each parameter and what is wrong with it."""
    faults = (f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
    problem = Problem("invalid_parameter", "; ".join(faults)[:500])
    return problem_response(problem, request.state.request_id)


async def answer_http_exception(request: Request, error: HTTPException) -> Response:
    """What the router raises: no such path, no such method."""
    code = HTTP_CODES.get(error.status_code, "bad_request")
    problem = Problem(code, f"{request.method} {request.url.path}: {error.detail}", error.headers)
    return problem_response(problem, request.state.request_id)


def describe_api(app: FastAPI, has_keys: bool) -> None:
    """Complete FastAPI's OpenAPI document with what it cannot know: problems and API keys."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})[ProblemDetails.__name__] = (
            ProblemDetails.model_json_schema()
        )
        if has_keys:
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            refusal = {str(k): v for k, v in documented("unauthorized").items()}
            for path, operations in document["paths"].items():
                for operation in operations.values() if path not in OPEN_PATHS else ():
                    operation["security"] = [{"bearer": []}, {"key": []}]
                    operation["responses"].update(refusal)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
