"""The service between start and end: starting -> ready -> draining."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from service.batching import Batcher
from service.manifest import ModelError
from service.metrics import Metrics
from service.models import Model, Models, models_of
from service.problems import Problem
from service.settings import Settings
from service.store import PersonStore
from service.uploads import Buffers
from service.workers import Workers

log = logging.getLogger(__name__)

STORE_WORKERS = 4  # threads that wait for the database, beside those that compute


@dataclass(frozen=True)
class Generation:
    """The models that are served from one reload to the next, and their queues.

    Requests that began with an older one keep it alive until they are answered.
    """

    models: Models
    batchers: dict[str, Batcher] = field(repr=False)  # by reference
    found: dict[str | None, Batcher] = field(repr=False, default_factory=dict)  # as asked for


class Service:
    """What routes share: settings, models, workers, the store, metrics, and how far life has got.

    Raises StoreError where the settings name no database.
    """

    def __init__(self, settings: Settings, models: Models) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.workers = Workers(settings.workers, settings.max_queue)
        url = settings.database_url
        self.persons = PersonStore(url.get_secret_value() if url else None)
        self.store_workers = Workers(STORE_WORKERS, settings.max_queue)
        self.buffers = Buffers(settings.max_buffered_bytes)
        self.metrics.watch_uploads(lambda: self.buffers.held)
        self.generation = Generation(models, {})
        self.generation = self.generate(models)
        self.reloading = asyncio.Lock()
        # Another way is set where another process has the models.
        self.reload_models: Callable[[], Awaitable[None]] = self.load_again
        self.phase: Literal["starting", "ready", "draining"] = "starting"
        self.settle: Callable[[], None] = lambda: None  # called where models have become warm
        self.failure: ModelError | None = None

    @property
    def models(self) -> Models:
        return self.generation.models

    def generate(self, models: Models) -> Generation:
        """Queues for models; of a model that was served before, the one it has."""
        before = {batcher.model: batcher for batcher in self.batchers()}
        settings = self.settings
        batchers = {}
        for model in models:
            batchers[model.reference] = before.get(model) or Batcher(
                model, settings.workers, settings.max_queue, self.metrics
            )
            self.tell(model, batchers[model.reference])
        for reference in self.generation.batchers.keys() - batchers.keys():
            self.metrics.forget_model(reference)
        return Generation(models, batchers)

    def tell(self, model: Model, batcher: Batcher) -> None:
        """Tell of a served model in the metrics."""
        sha256 = model.manifest.graphs["transfer"].sha256
        self.metrics.tell_model(model.reference, model.device, model.provider, sha256)
        self.metrics.watch_queue(model.reference, lambda: batcher.depth)

    def batchers(self) -> list[Batcher]:
        """The queues of all served models."""
        return list(self.generation.batchers.values())

    def batcher(self, wanted: str | None) -> Batcher:
        """The queue of the model `name` or `name@version`, else the default one.

        Raises Problem unknown_model.
        """
        generation = self.generation
        found = generation.found.get(wanted)
        if found is None:
            found = generation.batchers[generation.models.find(wanted).reference]
            generation.found[wanted] = found
        return found

    def emoji_batcher(self, wanted: str | None) -> Batcher:
        """The queue of the model `name` or `name@version`, else of the emoji model.

        Raises Problem: unknown_model; invalid_parameter where it is no model of faces.
        """
        batcher = self.batcher(self.settings.emoji_model if wanted is None else wanted)
        batcher.model.face_alignment()
        return batcher

    async def warm_up(self) -> None:
        """Run each model once; the service is ready after that, or has failed."""
        try:
            for model in self.models:
                await asyncio.to_thread(model.warm_up)
        except ModelError as error:
            self.failure = error
            return
        if self.phase == "starting":
            self.settle()
            self.phase = "ready"
            log.info("ready: %s", ", ".join(model.reference for model in self.models))

    async def reload(self) -> Models:
        """Serve what the models' directory holds now, once it is warm; until then, and where a
        model in it cannot be served, what was served before.

        A model whose files are the same keeps its sessions. Raises ModelError.
        """
        async with self.reloading:
            await self.reload_models()
            self.settle()
            log.info("reloaded: %s", ", ".join(model.reference for model in self.models))
            return self.models

    async def load_again(self) -> None:
        """The part of reload that finds the models. Raises ModelError."""
        before = self.models
        models = await asyncio.to_thread(models_of, self.settings, before)
        for model in models:
            if model not in before:
                await asyncio.to_thread(model.warm_up)
        self.take_over(models)

    def take_over(self, models: Models) -> None:
        """Serve these models from now on."""
        self.generation = self.generate(models)

    async def reload_by_signal(self) -> None:
        """reload() where nobody waits for its result: the log tells it."""
        try:
            await self.reload()
        except ModelError as error:
            log.error("not reloaded, serving what was served before: %s", error)

    def drain(self) -> None:
        """Readiness goes off: balancers stop sending, what still comes is still answered."""
        self.phase = "draining"

    def close(self) -> None:
        """What runs comes to its end, what waits is dropped."""
        for batcher in self.batchers():
            batcher.close()
        self.workers.close()
        self.store_workers.close()
        self.persons.close()
        self.metrics.close()

    def require_ready(self) -> None:
        """Raises Problem not_ready or draining, for the readiness probe."""
        self.require_started()
        if self.phase == "draining":
            raise Problem("draining", "the service is shutting down")

    def require_started(self) -> None:
        """Raises Problem not_ready while models warm up."""
        if self.phase == "starting":
            raise Problem("not_ready", "models are still warming up")
