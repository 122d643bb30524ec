import json
import logging
import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, TiffImagePlugin

from service.app import create_app
from service.logs import JsonLines, request_id
from service.models import Models
from service.settings import Settings
from tests.service.test_lifecycle import call


def formatted(message: str, *args: object, **attributes: Any) -> dict[str, Any]:
    """A record as JsonLines writes it, read again."""
    record = logging.LogRecord("service.x", logging.WARNING, "x.py", 1, message, args, None)
    record.created = 1_800_000_000.25
    vars(record).update(attributes)
    line = JsonLines().format(record)
    assert "\n" not in line
    told: dict[str, Any] = json.loads(line)
    return told


def test_a_record_is_a_line_of_json() -> None:
    assert formatted("%d ‖%s‖\nnext", 3, "é") == {
        "ts": "2027-01-15T08:00:00.250+00:00",
        "level": "warning",
        "logger": "service.x",
        "message": "3 ‖é‖\nnext",
    }


def test_the_request_s_id_is_told_where_there_is_one() -> None:
    token = request_id.set("abc")
    try:
        assert formatted("x")["request_id"] == "abc"
        assert formatted("x", request_id="def")["request_id"] == "def"
    finally:
        request_id.reset(token)
    assert "request_id" not in formatted("x")


def test_an_exception_is_one_string() -> None:
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        exception = formatted("x", exc_info=sys.exc_info())["exception"]
    assert exception.startswith("Traceback")
    assert exception.endswith("RuntimeError: a bug")


def test_fields_that_json_does_not_know_are_text() -> None:
    assert formatted("x", fields={"path": Path("a")})["path"] == "a"


def test_a_crash_is_logged_with_its_request_s_id_and_route(
    models: Models, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Models) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Models, "cards", fail)
    caplog.handler.setFormatter(JsonLines())
    sent = {"x-request-id": "abc"}
    call(create_app(Settings(), models), "GET", "/models?hush=1", headers=sent)
    (line,) = (json.loads(line) for line in caplog.text.splitlines())
    assert (line["level"], line["request_id"]) == ("error", "abc")
    assert line["message"] == "request abc: GET /models"
    assert "RuntimeError: a bug" in line["exception"]
    assert "hush" not in caplog.text


def test_requests_are_logged_only_where_that_is_wanted(
    models: Models, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    call(create_app(Settings(), models), "GET", "/health/live")
    assert not [r for r in caplog.records if r.name == "service.access"]
    store = f"sqlite:///{tmp_path}/dtn.db"
    app = create_app(Settings(access_log=True, database_url=store), models)
    call(app, "GET", "/persons/ann", headers={"x-request-id": "abc"})
    (record,) = (r for r in caplog.records if r.name == "service.access")
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("GET /persons/{person} 404 in ")
    assert record.getMessage().endswith(" ms, 0 bytes in, no model, request abc")


# What nobody may find in a log: a file's name, a key, a query, what a photo says of itself.
SECRETS = "hush-file", "hush-key", "hush-wrong", "hush-query", "hush-place", "hush-person"


def photo_with_a_place() -> bytes:
    """A TIFF that tells where it was taken."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "hush-place"
    file = BytesIO()
    Image.new("RGB", (9, 9)).save(file, "TIFF", tiffinfo=tags)
    assert b"hush-place" in file.getvalue()
    return file.getvalue()


def send_secrets(url: str) -> None:
    """Requests of all kinds, good and bad, full of secrets."""
    key = {"x-api-key": "hush-key"}
    tiff = photo_with_a_place()
    with httpx.Client(base_url=url, headers=key, timeout=30) as client:
        for content in (tiff, b"\x89PNG\r\n\x1a\nhush-place", tiff[:-9], b"hush-place"):
            file = ("hush-file.tif", content, "image/tiff")
            client.post("/transfer?model=digits", files={"file": file})
            client.post("/transfer?model=hush-query", files={"file": file})
            client.post("/emoji?face=hush-query", files={"file": file})
            client.post("/persons/hush-person/emoji", files={"files": file})
        client.post("/transfer", files={"hush-file": tiff})
        client.post(
            "/transfer",
            content=b"--X\r\nhush-file",
            headers={"content-type": "multipart/form-data; boundary=X"},
        )
        client.get("/models?hush-query=1")
        client.get("/hush-query?hush-query=1")
        client.get("/models", headers={"x-api-key": "hush-wrong"})
        client.get("/models", headers={"authorization": "Bearer hush-key"})
    address = httpx.URL(url)
    httpx.get(f"http://{address.host}:{address.port}/models", headers={"x-api-key": "hush-key"})


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_of_a_request_is_logged(
    models_dir: Path, tmp_path: Path, log_format: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--port", "0"],
        env=os.environ
        | {
            "DTN_MODELS": str(models_dir),
            "DTN_DATABASE_URL": f"sqlite:///{tmp_path}/dtn.db",
            "DTN_API_KEYS": "hush-key",
            "DTN_LOG_LEVEL": "debug",
            "DTN_LOG_FORMAT": log_format,
            "DTN_ACCESS_LOG": "true",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process, process.stderr:
        try:
            lines: list[str] = []
            url = ""
            for line in process.stderr:
                lines.append(line)
                if "listening on " in line:
                    url = line.partition("listening on ")[2].strip().split('"')[0]
                if "ready: " in line:
                    break
            send_secrets(url)
            process.send_signal(signal.SIGTERM)
            lines += process.stderr.read().splitlines()
        finally:
            process.kill()
    text = "\n".join(lines)
    for secret in SECRETS:
        assert secret not in text
    if log_format == "json":
        check_json([json.loads(line) for line in lines])
    else:
        assert "INFO service.access: POST /transfer 200 in " in text


def check_json(lines: list[dict[str, Any]]) -> None:
    assert all({"ts", "level", "logger", "message"} <= set(line) for line in lines)
    accesses = [line for line in lines if line["logger"] == "service.access"]
    assert len(accesses) == 4 * 4 + 7
    good = next(line for line in accesses if line["status"] == 200 and line["method"] == "POST")
    assert (good["route"], good["model"], good["level"]) == ("/transfer", "digits@1", "info")
    assert good["ms"] > 0
    assert good["bytes_in"] > len(photo_with_a_place())
    assert len(good["request_id"]) == 32
    assert {line["route"] for line in accesses} == {
        "/transfer",
        "/emoji",
        "/persons/{person}/emoji",
        "/models",
        "other",
    }
