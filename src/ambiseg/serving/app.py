"""The routes of the service, as a FastAPI application."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ambiseg.errors import AmbisegError
from ambiseg.serving import answers, bodies, guard
from ambiseg.serving.batching import Batcher, QueueFullError
from ambiseg.serving.metrics import Metrics
from ambiseg.serving.model import Found, Served, Task
from ambiseg.serving.page import page
from ambiseg.serving.patience import Patience
from ambiseg.serving.settings import ServeSettings
from ambiseg.version import __version__

THREADS = 2
"""Threads that decode images, and as many that write answers."""
_BODY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {bodies.FORM_FIELD: {"type": "string", "format": "binary"}},
        "required": [bodies.FORM_FIELD],
    }
}
_REQUEST = {
    "requestBody": {
        "required": True,
        "description": "One image: PNG, JPEG, TIFF, NumPy (.npy) or NIfTI; its first bytes say which. Or a form with"
        " the file in the field 'image'.",
        "content": {"application/octet-stream": _BODY, "image/*": _BODY, "multipart/form-data": _FORM},
    }
}


class Asked(BaseModel):
    """Parameters of a prediction."""

    model_config = ConfigDict(extra="forbid")

    samples: int | None = Field(None, ge=1, description="masks to ask of the model")
    top: int | None = Field(
        None, ge=1, description="keep at most so many masks, those that represent all best"
    )
    all: bool = Field(False, description="keep every mask that the model predicts")
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="of methods that draw at random")
    format: Literal["png", "rle", "zip"] | None = Field(
        None, description="masks as PNG in base64 or as run lengths in JSON, or a zip of PNG files"
    )


class Mask(BaseModel):
    """One plausible mask."""

    probability: float = Field(description="the probabilities of an image sum to 1")
    score: float | None = Field(description="how much the mask is worth keeping, 0 to 1; null without scores")
    area: float = Field(description="share of pixels that are not background")
    png: str | None = Field(None, description="class numbers as PNG, in base64")
    rle: list[dict[str, Any]] | None = Field(
        None, description="run lengths of each class (COCO, uncompressed)"
    )


class Prediction(BaseModel):
    """Masks of one image, the most probable first."""

    request_id: str
    warning: str | None = Field(description="the image has another range of numbers than those of training")
    size: list[int] = Field(description="height and width")
    classes: list[str] = Field(description="name of each class number")
    masks: list[Mask]
    settings: dict[str, Any]
    estimate: dict[str, Any]
    seed: int | None = Field(description="null where nothing is drawn at random")


class Problem(BaseModel):
    """What was wrong with a request."""

    error: str = Field(description="one sentence")
    request_id: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": why}
    for status, why in {
        400: "a parameter, form or body that cannot be understood",
        408: "the body came too slowly",
        413: "the body, or what its prediction needs of memory, is too large",
        415: "the body is no image",
        422: "the image is damaged, too large, or not like those of training",
        503: "the queue is full, or too many bodies arrive: send it again after Retry-After",
        504: "no answer in time",
        507: "the service has no room to store the body",
    }.items()
}


class Service:
    """What the routes share: the run, the batches, the threads, the metrics."""

    def __init__(self, served: Served, settings: ServeSettings) -> None:
        self.served, self.settings, self.metrics = served, settings, Metrics()
        channels = max(4, served.run.config.in_channels)
        self._values = settings.pixels * channels

    @contextmanager
    def running(self) -> Iterator[None]:
        """Threads and a folder for bodies exist inside."""
        self.batcher: Batcher[Task, Found] = Batcher(
            self.served.predict,
            batch_size=self.settings.batch_size,
            queue_size=self.settings.queue_size,
            on_batch=self.metrics.batch,
        )
        self.metrics.watch_queue(lambda: self.batcher.waiting)
        with (
            tempfile.TemporaryDirectory(prefix="ambiseg-serve-", ignore_cleanup_errors=True) as folder,
            ThreadPoolExecutor(THREADS, "ambiseg-images") as self._decoders,
            ThreadPoolExecutor(THREADS, "ambiseg-answers") as self._writers,
        ):
            self._store = bodies.Store(Path(folder), self.settings.stored_bytes)
            try:
                yield
            finally:
                self.batcher.close()

    async def predict(self, request: Request, asked: Asked) -> Response:
        """The answer to an image.

        Raises:
            HTTPException: see `_PROBLEMS`; 499 where the client went away.
        """
        limits = self.settings
        names = [name for name, _ in request.query_params.multi_items()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise HTTPException(400, f"{twice}: received twice, give it once")
        if asked.samples is not None and asked.samples > limits.samples:
            raise HTTPException(400, f"samples: at most {limits.samples}, received {asked.samples}")
        with self.batcher.arrival(), self._store.place() as stored:
            await self._store.receive(request, stored, limits.body_bytes, limits.timeout)
            patience = Patience(request, limits.timeout)
            task, warning = await patience.wait(self._decoders.submit(self._task, stored.path, asked))
            found = self._queued(task)
        masks = await patience.wait(found)
        form = asked.format or ("zip" if answers.ZIP in request.headers.get("accept", "") else "png")
        more = {"request_id": request.state.request_id, "warning": warning or None}
        written = self._writers.submit(answers.render, self.served, task, masks, form, **more)
        content, kind = await patience.wait(written)
        return Response(content, media_type=kind)

    def _task(self, path: Path, asked: Asked) -> tuple[Task, str]:
        """The image of a body, checked against the run, with what to warn of."""
        image = bodies.decode(path, self.settings.pixels, self._values)
        try:
            warning = self.served.run.difference(image)
        except AmbisegError as error:
            said = str(error).removeprefix("the image ")
            raise HTTPException(
                422, f"the image {said}" if said != str(error) else f"the image: {said}"
            ) from error
        task = self.served.task(
            image, samples=asked.samples, top=asked.top, keep_all=asked.all, seed=asked.seed
        )
        return task, warning

    def _queued(self, task: Task) -> Future[Found]:
        try:
            return self.batcher.submit(task.key, task, task.image.nbytes)
        except QueueFullError as error:
            raise HTTPException(503, str(error), {"retry-after": "1"}) from None


def create_app(served: Served, settings: ServeSettings | None = None) -> Callable[..., Any]:
    """The application (ASGI) that serves a run.

    Args:
        served: the run, and what holds unless a request says otherwise.
        settings: limits.
    """
    settings = settings or ServeSettings()
    served.warm()
    service = Service(served, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with service.running():
            yield

    app = FastAPI(
        title="ambiseg",
        description="Plausible masks of an image, with their probabilities.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )

    @app.post("/predict", response_model=Prediction, responses=_PROBLEMS, openapi_extra=_REQUEST)
    async def predict(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """Masks of one image with their probabilities."""
        return await service.predict(request, asked)

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether requests are answered, and by which model."""
        alive = service.batcher.alive
        content = {"status": "ok" if alive else "failed", "waiting": service.batcher.waiting}
        return JSONResponse({**content, **served.facts()}, 200 if alive else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(page(served.facts(), app.openapi(), settings), headers=policy)

    @app.get("/", include_in_schema=False)
    async def start() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.exception_handler(HTTPException)
    async def problem(request: Request, error: HTTPException) -> JSONResponse:
        said = error.detail
        if error.status_code == 404:
            said = "there is no such page: /docs describes those that there are"
        elif error.status_code == 405:
            said = "this page takes another method: POST images to /predict, GET the others"
        return _problem(request, error.status_code, said, error.headers)

    @app.exception_handler(RequestValidationError)
    async def misunderstood(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])[:80]
        value = json.dumps(first.get("input"), default=str)[:80]
        return _problem(request, 400, f"{name}: {first['msg'].lower()}, received {value}")

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return _problem(request, 500, f"this is a bug in ambiseg ({type(error).__name__}): report it")

    return guard.Guard(app, service.metrics.request, settings.timeout, settings.hosts)


def _problem(request: Request, status: int, sentence: str, headers: Any = None) -> JSONResponse:
    content = guard.problem(sentence, request.state.request_id.encode())
    return JSONResponse(content, status, headers=headers)
