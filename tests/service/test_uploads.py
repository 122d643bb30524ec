import asyncio
from collections.abc import Iterable

import pytest
from starlette.requests import Request

from service.problems import Problem
from service.uploads import (
    Buffers,
    Part,
    content_type,
    multipart,
    picture_bytes,
    pictures_of,
    read_body,
)

FORM = "multipart/form-data; boundary=XX"


def form(*parts: tuple[str, bytes], end: bytes = b"--XX--\r\n") -> bytes:
    return (
        b"".join(
            b'--XX\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\n'
            b"Content-Type: image/png\r\n\r\n%s\r\n" % (name.encode(), content)
            for name, content in parts
        )
        + end
    )


@pytest.mark.parametrize(
    "content",
    [b"x", b"\r\n", b"--XX", b"\r\n--XY\r\n", b"\r\n--X", b"a\r\n--XXb", bytes(range(256)) * 999],
)
def test_a_part_comes_out_as_it_went_in(content: bytes) -> None:
    assert picture_bytes(form(("file", content)), FORM) == content


@pytest.mark.parametrize(
    "header",
    [
        'Multipart/Form-Data; BOUNDARY="XX"',
        "multipart/form-data;charset=utf-8;boundary=XX",
    ],
)
def test_the_content_type_may_be_written_in_other_ways(header: str) -> None:
    assert picture_bytes(form(("file", b"x")), header) == b"x"


def test_parts_come_in_order_with_their_names() -> None:
    body = form(("file", b"1"), ("é", b""), ("file", b"2"))
    assert [part[:2] for part in multipart(body, FORM)] == [
        ("file", b"1"),
        ("é", b""),
        ("file", b"2"),
    ]


@pytest.mark.parametrize(
    ("disposition", "file"),
    [
        (b'name="file"', None),
        (b'name="file"; filename=""', ""),
        (b'name="file"; filename="me & you.jpg"', "me & you.jpg"),
        ('name="file"; filename="Zoë.jpg"'.encode(), "Zoë.jpg"),
        (b'name="file"; filename="\xff.jpg"', "\N{REPLACEMENT CHARACTER}.jpg"),
        (b'name="file"; filename="' + b"x" * 999 + b'"', "x" * 255),
    ],
)
def test_a_part_has_the_name_of_its_file(disposition: bytes, file: str | None) -> None:
    body = b"--XX\r\nContent-Disposition: form-data; %s\r\n\r\nx\r\n--XX--\r\n" % disposition
    assert multipart(body, FORM) == [Part("file", b"x", file)]


def test_a_raw_body_is_the_picture() -> None:
    assert picture_bytes(b"pixels", "image/png") == b"pixels"


@pytest.mark.parametrize(
    ("body", "header", "reason"),
    [
        (form(), FORM, "there is: none"),
        (form(("photo", b"x")), FORM, "there is: 'photo'"),
        (form(("file", b"x"), ("file", b"y")), FORM, "there is: 'file', 'file'"),
        (form(("file", b"x"), ("model", b"y")), FORM, "there is: 'file', 'model'"),
        (form(*[("file", b"x")] * 9), FORM, "too many parts"),
        (form(("file", b"")), FORM, "empty"),
        (b"", "image/png", "empty"),
        (b"", FORM, "last boundary is missing"),
        (form(("file", b"x"), end=b""), FORM, "last boundary is missing"),
        (form(("file", b"x"))[:-4], FORM, "last boundary is missing"),
        (form(("file", b"x")), "multipart/form-data; boundary=YY", "malformed"),
        (form(("file", b"x")), "multipart/form-data", "names no boundary"),
        (form(("file", b"x")), "multipart/form-data; boundary=", "names no boundary"),
        (form(("file", b"x")), f"multipart/form-data; boundary={'X' * 300}", "malformed"),
        (b"--XX\r\n\r\nx\r\n--XX--", FORM, "no name"),
        (b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--", FORM, "no name"),
        (b"--XX\r\n" + b"a: b\r\n" * 99 + b"\r\nx\r\n--XX--", FORM, "malformed"),
        (b"--XX\r\na: " + b"b" * 99999 + b"\r\n\r\nx\r\n--XX--", FORM, "malformed"),
    ],
)
def test_a_body_without_exactly_one_picture_is_a_bad_request(
    body: bytes, header: str, reason: str
) -> None:
    with pytest.raises(Problem, match=reason) as raised:
        picture_bytes(body, header)
    assert raised.value.code == "bad_request"


def test_several_pictures_come_in_order() -> None:
    body = form(("files", b"1"), ("file", b""), ("files", b"3"))
    assert [part.content for part in pictures_of(body, FORM, most=3)] == [b"1", b"", b"3"]
    assert pictures_of(b"pixels", "image/png", most=3) == [Part("file", b"pixels")]


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (form(*[("files", b"x")] * 4), "too_large", "more than 3 pictures"),
        (form(), "bad_request", "'file' or 'files' are wanted; there is: none"),
        (form(("files", b"x"), ("photo", b"x")), "bad_request", "there is: 'files', 'photo'"),
        (form(("files", b"x"), end=b""), "bad_request", "last boundary is missing"),
    ],
)
def test_a_body_without_several_pictures_is_refused(body: bytes, code: str, reason: str) -> None:
    with pytest.raises(Problem, match=reason) as raised:
        pictures_of(body, FORM, most=3)
    assert raised.value.code == code


def test_a_malformed_body_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"), pytest.raises(Problem):
        picture_bytes(b"--XX\r\nsecret name: x\r\n\r\n", FORM)
    assert not caplog.text


def request(headers: dict[str, str], chunks: Iterable[bytes] = (), ends: bool = True) -> Request:
    """A request whose body comes in chunks and then ends, or stalls."""
    messages = iter(chunks)

    async def receive() -> dict[str, object]:
        chunk = next(messages, None)
        if chunk is not None:
            return {"type": "http.request", "body": chunk, "more_body": True}
        if not ends:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


def read(request: Request, max_bytes: int = 10, timeout_s: float = 1.0, budget: int = 100) -> bytes:
    async def within_budget() -> bytes:
        with Buffers(budget).reserve() as grow:
            return await read_body(request, max_bytes, timeout_s, grow)

    return asyncio.run(within_budget())


def test_a_body_is_read_whole() -> None:
    assert read(request({"content-length": "10"}, [b"01234", b"56789"])) == b"0123456789"
    assert read(request({"transfer-encoding": "chunked"}, [b"0"] * 10)) == b"0" * 10


def never() -> Iterable[bytes]:
    raise AssertionError("the body was read")
    yield b""


@pytest.mark.parametrize("length", ["11", "9" * 30, "9" * 9999])
def test_too_large_a_content_length_is_refused_without_reading(length: str) -> None:
    with pytest.raises(Problem) as raised:
        read(request({"content-length": length}, never()))
    assert raised.value.code == "too_large"


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "٣"])
def test_a_content_length_that_is_no_number_is_a_bad_request(length: str) -> None:
    with pytest.raises(Problem) as raised:
        read(request({"content-length": length}, never()))
    assert raised.value.code == "bad_request"


def test_a_body_that_grows_too_large_is_not_read_on() -> None:
    taken = 0

    def endless() -> Iterable[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"1234"

    with pytest.raises(Problem) as raised:
        read(request({"transfer-encoding": "chunked"}, endless()))
    assert raised.value.code == "too_large"
    assert taken == 3


def test_a_body_that_stalls_runs_into_the_timeout() -> None:
    with pytest.raises(Problem, match=r"within 0\.05 seconds") as raised:
        read(request({"content-length": "9"}, [b"1"], ends=False), timeout_s=0.05)
    assert raised.value.code == "deadline_exceeded"


def test_uploads_together_stay_within_the_budget() -> None:
    buffers = Buffers(10)
    with buffers.reserve() as grow:
        grow(6)
        with buffers.reserve() as another, pytest.raises(Problem) as raised:
            another(4)
            another(1)
        assert raised.value.code == "queue_full"
        assert buffers.held == 6
    assert buffers.held == 0
    with pytest.raises(Problem):
        read(request({"content-length": "9"}, [b"123456789"]), budget=8)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": FORM, "content-length": "5"},
        {"content-type": "image/png", "transfer-encoding": "chunked"},
        {"content-type": "IMAGE/whatever; q=1", "content-length": "5"},
        {"content-type": "image/png", "content-length": "5", "content-encoding": "identity"},
    ],
)
def test_pictures_are_taken(headers: dict[str, str]) -> None:
    assert content_type(request(headers).headers) == headers["content-type"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "bad_request"),
        ({"content-length": "0"}, "bad_request"),
        ({"content-type": "image/png", "content-length": "0"}, "bad_request"),
        ({"content-length": "5"}, "unsupported_format"),
        ({"content-type": "text/plain", "content-length": "5"}, "unsupported_format"),
        ({"content-type": "multipart/mixed", "content-length": "5"}, "unsupported_format"),
        ({"content-type": "images/png", "content-length": "5"}, "unsupported_format"),
        (
            {"content-type": "image/png", "content-length": "5", "content-encoding": "gzip"},
            "unsupported_format",
        ),
    ],
)
def test_other_bodies_are_refused_by_their_headers(headers: dict[str, str], code: str) -> None:
    with pytest.raises(Problem) as raised:
        content_type(request(headers).headers)
    assert raised.value.code == code
