import pytest

from service.negotiation import Choice, negotiate
from service.problems import Problem
from service.schemas import PictureFormat

PNG = Choice("picture", "png")
JSON = Choice("json", "png")


@pytest.mark.parametrize(
    ("accept", "choice"),
    [
        ("", PNG),
        ("*/*", PNG),
        ("image/*", PNG),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("application/json", JSON),
        ("application/*", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/json, text/plain, */*", JSON),
        ("application/json;q=0.9, */*;q=0.8", JSON),
        ("application/json;q=0.8, */*;q=0.9", PNG),
        ("application/json, image/png", PNG),
        ("application/json, image/*", PNG),
        ("image/png;q=0.5, application/json", JSON),
        ("application/json;q=0.5, image/png", PNG),
        ("application/json;q=0, */*", PNG),
        ("image/*;q=0, */*;q=0.1", JSON),
        ("image/webp", Choice("picture", "webp")),
        ("image/jpeg;q=0.9, image/webp;q=0.8", Choice("picture", "jpeg")),
        ("image/png;q=0, image/*", Choice("picture", "webp")),
        ("text/html, image/avif, image/webp, */*;q=0.8", Choice("picture", "webp")),
        ("image/png ; Q=0.4 , application/json ; q=0.3", PNG),
    ],
)
def test_the_answer_is_what_the_client_likes_best(accept: str, choice: Choice) -> None:
    assert negotiate(accept, None) == choice


@pytest.mark.parametrize(
    ("accept", "wanted", "choice"),
    [
        ("*/*", "webp", Choice("picture", "webp")),
        ("image/*", "jpeg", Choice("picture", "jpeg")),
        ("application/json", "jpeg", Choice("json", "jpeg")),
        ("image/png;q=0.5, image/webp", "png", PNG),
    ],
)
def test_a_format_asked_for_is_kept_to(accept: str, wanted: PictureFormat, choice: Choice) -> None:
    assert negotiate(accept, wanted) == choice


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/html", None),
        ("garbage", None),
        (",;=,", None),
        ("*/*;q=0", None),
        ("*/*;q=high", None),
        ("*/*;q=2", None),
        ("*/*;q=nan", None),
        ("image/png", "webp"),
    ],
)
def test_what_is_not_on_offer_is_refused(accept: str, wanted: PictureFormat | None) -> None:
    with pytest.raises(Problem, match="on offer") as raised:
        negotiate(accept, wanted)
    assert raised.value.code == "unsupported_format"
