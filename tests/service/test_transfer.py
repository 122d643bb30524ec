import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service.models import Models
from service.pictures import Pixels
from service.problems import Problem
from service.transfer import transfer
from tests.service.dummy import SIDE


def test_a_picture_goes_all_the_way(models: Models, photo: bytes) -> None:
    result = transfer(photo, models.find("plain"), "png", distance=False, max_pixels=10_000)
    assert (result.width, result.height, result.media_type) == (SIDE, SIDE, "image/png")
    assert result.f_distance is None
    y, _ = models.find("plain")(np.asarray(Image.open(BytesIO(photo)))[np.newaxis])
    assert np.array_equal(np.asarray(Image.open(BytesIO(result.content))), y[0])


def test_a_distance_is_refused_before_the_work(models: Models) -> None:
    with pytest.raises(Problem, match="plain@1 has no distance graph"):
        transfer(b"", models.find("plain"), "png", distance=True, max_pixels=1)


def test_past_the_deadline_the_model_is_not_run(
    models: Models, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Pixels) -> None:
        pytest.fail("the model was run")

    model = models.find("digits")
    monkeypatch.setattr(type(model), "__call__", run)
    with pytest.raises(Problem) as raised:
        transfer(
            photo, model, "png", distance=False, max_pixels=10_000, deadline=time.monotonic() - 1
        )
    assert raised.value.code == "deadline_exceeded"
