"""The service between start and end: starting -> ready -> draining."""

import asyncio
import logging
from typing import Literal

from service.manifest import ModelError
from service.models import Model, Models
from service.problems import Problem
from service.settings import Settings
from service.store import PersonStore
from service.uploads import Buffers
from service.workers import Workers

log = logging.getLogger(__name__)

STORE_WORKERS = 4  # threads that wait for the database, beside those that compute


class Service:
    """What routes share: settings, models, workers, the store, and how far life has got.

    Raises StoreError where the settings name no database.
    """

    def __init__(self, settings: Settings, models: Models) -> None:
        self.settings = settings
        self.models = models
        self.workers = Workers(settings.workers, settings.max_queue)
        url = settings.database_url
        self.persons = PersonStore(url.get_secret_value() if url else None)
        self.store_workers = Workers(STORE_WORKERS, settings.max_queue)
        self.buffers = Buffers(settings.max_buffered_bytes)
        self.phase: Literal["starting", "ready", "draining"] = "starting"
        self.failure: ModelError | None = None

    def find_emoji_model(self, wanted: str | None) -> Model:
        """The model of `name` or `name@version`, else the emoji model.

        Raises Problem: unknown_model; invalid_parameter where it is no model of faces.
        """
        model = self.models.find(self.settings.emoji_model if wanted is None else wanted)
        model.face_alignment()
        return model

    async def warm_up(self) -> None:
        """Run each model once; the service is ready after that, or has failed."""
        try:
            for model in self.models:
                await asyncio.to_thread(model.warm_up)
        except ModelError as error:
            self.failure = error
            return
        if self.phase == "starting":
            self.phase = "ready"
            log.info("ready: %s", ", ".join(model.reference for model in self.models))

    def drain(self) -> None:
        """Readiness goes off: balancers stop sending, what still comes is still answered."""
        self.phase = "draining"

    def close(self) -> None:
        """What runs comes to its end, what waits is dropped."""
        self.workers.close()
        self.store_workers.close()
        self.persons.close()

    def require_ready(self) -> None:
        """Raises Problem not_ready or draining, for the readiness probe."""
        self.require_started()
        if self.phase == "draining":
            raise Problem("draining", "the service is shutting down")

    def require_started(self) -> None:
        """Raises Problem not_ready while models warm up."""
        if self.phase == "starting":
            raise Problem("not_ready", "models are still warming up")
