import asyncio
import time
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.batching import Batcher
from service.metrics import Metrics
from service.models import Models
from service.problems import Problem
from service.transfer import Transferred, transfer, transfer_soon
from service.workers import Workers
from tests.service.dummy import SIDE, encoded, noise


def test_a_picture_goes_all_the_way(models: Models, photo: bytes) -> None:
    result = transfer(photo, models.find("plain"), "png", distance=False, max_pixels=10_000)
    assert (result.width, result.height, result.media_type) == (SIDE, SIDE, "image/png")
    assert result.f_distance is None
    y, _ = models.find("plain")(np.asarray(Image.open(BytesIO(photo)))[np.newaxis])
    assert np.array_equal(np.asarray(Image.open(BytesIO(result.content))), y[0])


def test_a_distance_is_refused_before_the_work(models: Models) -> None:
    with pytest.raises(Problem, match="plain@1 has no distance graph"):
        transfer(b"", models.find("plain"), "png", distance=True, max_pixels=1)


def soon(models: Models, body: bytes, header: str = "image/png", **options: Any) -> Transferred:
    """transfer_soon() with the model `plain`, on an event loop of its own."""

    async def main() -> Transferred:
        batcher = Batcher(models.find("plain"), 1, 8, Metrics())
        workers = Workers(1, 8)
        try:
            given = {"distance": False, "max_pixels": 1_000_000, **options}
            return await transfer_soon(body, header, batcher, workers, "png", **given)
        finally:
            batcher.close()
            workers.close()

    return asyncio.run(main())


def test_all_ways_to_a_picture_give_the_same(models: Models, photo: bytes) -> None:
    alone = transfer(photo, models.find("plain"), "png", distance=False, max_pixels=10_000)
    assert soon(models, photo) == alone
    form = httpx.Request("POST", "http://x", files={"file": photo})
    assert soon(models, form.read(), form.headers["content-type"]) == alone
    # Not decoded at once: too many pixels, too many bytes, no plain PNG.
    for side in (80, 200):
        large = encoded(Image.fromarray(noise(side, side)))
        wanted = transfer(large, models.find("plain"), "png", distance=False, max_pixels=10**6)
        assert soon(models, large) == wanted
    grey = encoded(Image.fromarray(noise(30, 30)).convert("RGBA"))
    wanted = transfer(grey, models.find("plain"), "png", distance=False, max_pixels=10**6)
    assert soon(models, grey) == wanted


@pytest.mark.parametrize("side", [30, 200])
def test_past_the_deadline_the_picture_is_not_decoded(models: Models, side: int) -> None:
    body = encoded(Image.fromarray(noise(side, side)))
    with pytest.raises(Problem) as raised:
        soon(models, body, deadline=time.monotonic() - 1)
    assert raised.value.code == "deadline_exceeded"
