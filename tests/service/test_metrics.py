import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.app import ROUTERS
from service.metrics import MIB, NVIDIA_SMI_FRESH_S, Metrics, Templates
from tests.service.test_server import connect, dtn_serve, read_all

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
Samples = dict[tuple[str, ...], float]
RAW = {"content-type": "image/png"}


def samples_of(text: str) -> Samples:
    """Values by name, followed by the labels' values in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples(metrics: Metrics) -> Samples:
    metrics.refresh()
    return samples_of(metrics.all("")[0].decode())


def scrape(client: httpx.Client) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    return samples_of(response.text)


# The metrics themselves


def test_what_is_counted_is_told() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.answered("POST", "/transfer", 200, 0.002)
    metrics.answered("POST", "/transfer", 429, 0.0001)
    metrics.rejected("queue_full")
    metrics.abandoned.inc()
    metrics.batch("digits@1", 3)
    metrics.decode.observe(0.00004)
    told = samples(metrics)
    assert told["dtn_requests_total", "POST", "/transfer", "200"] == 2
    assert told["dtn_requests_total", "POST", "/transfer", "429"] == 1
    assert told["dtn_request_seconds_count", "/transfer"] == 3
    assert told["dtn_request_seconds_sum", "/transfer"] == pytest.approx(0.0041)
    assert told["dtn_rejected_total", "queue_full"] == 1
    assert told["dtn_abandoned_total",] == 1
    assert told["dtn_batch_size_bucket", "2.0", "digits@1"] == 0
    assert told["dtn_batch_size_bucket", "4.0", "digits@1"] == 1
    assert told["dtn_batch_size_sum", "digits@1"] == 3
    assert told["dtn_stage_seconds_bucket", "5e-05", "decode"] == 1


def test_applications_count_for_themselves() -> None:
    first, second = Metrics(), Metrics()
    first.rejected("no_face")
    assert ("dtn_rejected_total", "no_face") not in samples(second)


def test_every_stage_is_told_from_the_beginning() -> None:
    told = samples(Metrics())
    for stage in ("read", "decode", "queue", "run", "encode"):
        assert told["dtn_stage_seconds_count", stage] == 0
        assert told["dtn_stage_seconds_bucket", "30.0", stage] == 0


def test_made_up_methods_are_one() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.answered(f"GET{number}", "other", 405, 0.001)
    assert samples(metrics)["dtn_requests_total", "other", "other", "405"] == 50
    assert len(metrics.counted) == 0


def test_what_is_watched_is_asked_for_when_it_is_told() -> None:
    metrics = Metrics()
    waiting = [1, 2, 3]
    metrics.watch_queue("digits@1", lambda: len(waiting))
    metrics.watch_uploads(lambda: sum(waiting))
    waiting.append(4)
    told = samples(metrics)
    assert (told["dtn_queue_depth", "digits@1"], told["dtn_uploads_bytes",]) == (4, 10)


def test_a_model_that_is_replaced_or_gone_is_told_as_such() -> None:
    metrics = Metrics()
    metrics.tell_model("digits@1", "cpu", "CPU", "aa")
    metrics.tell_model("emoji@1", "cpu", "CPU", "bb")
    metrics.tell_model("emoji@1", "cpu", "CPU", "bb")
    metrics.watch_queue("digits@1", lambda: 5)
    metrics.tell_model("digits@1", "cuda", "CUDA", "cc")
    told = samples(metrics)
    assert told["dtn_model_info", "cpu", "digits@1", "CPU", "aa"] == 0
    assert told["dtn_model_info", "cuda", "digits@1", "CUDA", "cc"] == 1
    assert told["dtn_model_info", "cpu", "emoji@1", "CPU", "bb"] == 1
    metrics.forget_model("digits@1")
    told = samples(metrics)
    assert told["dtn_model_info", "cuda", "digits@1", "CUDA", "cc"] == 0
    assert told["dtn_queue_depth", "digits@1"] == 0


# What nvidia-smi says


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a script of this name on the path; returns the file that has a line for each call."""

    def write(body: str) -> Path:
        calls = tmp_path / "calls"
        script = tmp_path / "nvidia-smi"
        script.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        return calls

    return write


def test_the_memory_of_each_gpu_is_told(nvidia_smi: Callable[[str], Path]) -> None:
    calls = nvidia_smi("echo '0, 1024, 81559'; echo '1, [N/A], 2'")
    metrics = Metrics()
    samples(metrics)
    told = samples(metrics)
    memory = {key[1:]: v for key, v in told.items() if key[0] == "dtn_device_memory_bytes"}
    assert memory == {
        ("cuda:0", "used"): 1024 * MIB,
        ("cuda:0", "total"): 81559 * MIB,
        ("cuda:1", "total"): 2 * MIB,
    }
    assert len(calls.read_text().splitlines()) == 1  # asked once for both


def test_the_memory_is_asked_for_again_after_a_while(
    nvidia_smi: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = nvidia_smi("echo '0, 1, 2'")
    metrics = Metrics()
    samples(metrics)
    later = time.monotonic() + NVIDIA_SMI_FRESH_S
    monkeypatch.setattr("service.metrics.time.monotonic", lambda: later)
    samples(metrics)
    assert len(calls.read_text().splitlines()) == 2


@pytest.mark.parametrize("body", ["exit 9", "exec sleep 5", "echo 'No devices were found'", ""])
def test_an_nvidia_smi_that_does_not_work_is_no_harm(
    nvidia_smi: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr("service.metrics.NVIDIA_SMI_TIMEOUT_S", 0.3)
    nvidia_smi(body)
    told = samples(Metrics())
    assert not [key for key in told if key[0] == "dtn_device_memory_bytes"]
    assert ("dtn_abandoned_total",) in told


def test_without_a_gpu_there_is_nothing_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "dtn_device_memory_bytes" not in Metrics().all("")[0].decode()


# What a server counts


def test_requests_are_counted_by_route_and_status(client: httpx.Client, photo: bytes) -> None:
    before = scrape(client)
    assert client.post("/transfer", content=photo, headers=RAW).status_code == 200
    assert client.post("/transfer", content=b"text", headers=RAW).status_code == 415
    assert client.get("/persons/nobody/emoji").status_code == 404
    assert client.get("/persons/nobody").status_code == 404
    assert client.get("/persons/no body").status_code == 422
    assert client.get("/nowhere/at?all=1").status_code == 404
    assert client.put("/models").status_code == 405
    after = scrape(client)

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0.0)

    assert more("dtn_requests_total", "POST", "/transfer", "200") == 1
    assert more("dtn_requests_total", "POST", "/transfer", "415") == 1
    assert more("dtn_requests_total", "GET", "/persons/{person}/emoji", "404") == 1
    assert more("dtn_requests_total", "GET", "/persons/{person}", "404") == 1
    assert more("dtn_requests_total", "GET", "/persons/{person}", "422") == 1
    assert more("dtn_requests_total", "GET", "other", "404") == 1
    assert more("dtn_requests_total", "PUT", "/models", "405") == 1
    assert more("dtn_requests_total", "GET", "/metrics", "200") == 1
    assert more("dtn_request_seconds_count", "/transfer") == 2
    assert more("dtn_rejected_total", "not_an_image") == 1
    assert more("dtn_rejected_total", "unknown_person") == 2
    assert more("dtn_rejected_total", "invalid_parameter") == 1
    assert more("dtn_rejected_total", "not_found") == 1
    assert more("dtn_rejected_total", "method_not_allowed") == 1
    assert "nobody" not in client.get("/metrics").text


def test_refusals_before_the_router_have_their_route(open_server: OpenServer) -> None:
    with open_server(api_keys="one") as client:
        client.get("/persons/ann/emoji")
        client.post("/transfer")
        told = scrape(client)
    assert told["dtn_requests_total", "GET", "/persons/{person}/emoji", "401"] == 1
    assert told["dtn_requests_total", "POST", "/transfer", "401"] == 1
    assert told["dtn_rejected_total", "unauthorized"] == 2


def test_waiting_for_an_upload_that_nobody_wants_is_not_timed(
    open_server: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.middleware.LINGER_S", 2.0)
    with open_server() as client, connect(client) as connection:
        connection.sendall(
            b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
        )
        assert b"HTTP/1.1 404 " in read_all(connection)
        assert scrape(client)["dtn_request_seconds_sum", "other"] < 1.0


def test_models_processes_and_uploads_are_told(client: httpx.Client) -> None:
    told = scrape(client)
    cards = client.get("/models").json()["models"]
    for card in cards:
        labels = (card["device"], card["model"], card["provider"], card["sha256"])
        assert told["dtn_model_info", *labels] == 1
    assert len([key for key in told if key[0] == "dtn_model_info"]) == len(cards)
    assert told["dtn_queue_depth", "digits@1"] == told["dtn_uploads_bytes",] == 0
    assert told["process_resident_memory_bytes",] > 0
    assert ("python_gc_collections_total", "0") in told
    assert [key for key in told if key[0] == "python_info"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=x.y", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3",
            "application/openmetrics-text; version=1.0.0",
        ),
        ("application/openmetrics-text;version=x", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_the_format_is_what_accept_wants(
    client: httpx.Client, accept: str, media_type: str
) -> None:
    response = client.get("/metrics", headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(media_type)
    assert response.text.endswith("# EOF\n") == accept.startswith("application")


def test_templates_are_found_with_and_without_the_router() -> None:
    templates = Templates(route for router in ROUTERS for route in router.routes)
    for path, template in {
        "/transfer": "/transfer",
        "/persons/ann": "/persons/{person}",
        "/persons/ann/emoji": "/persons/{person}/emoji",
        "/persons/ann/emoji/x": "other",
        "/": "/",
        "/x": "other",
    }.items():
        assert templates.of({"path": path}) == template


# Several processes


def test_each_process_tells_the_metrics_of_all(
    models_dir: Path, tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(shared))
    monkeypatch.setenv("DTN_DATABASE_URL", f"sqlite:///{tmp_path}/dtn.db")
    count = ("dtn_requests_total", "POST", "/transfer", "200")
    with dtn_serve(models_dir) as (first, url_1), dtn_serve(models_dir) as (_, url_2):
        for url, requests in ((url_1, 2), (url_2, 3)):
            for _ in range(requests):
                assert httpx.post(f"{url}/transfer", content=photo, headers=RAW).status_code == 200
        for url in (url_1, url_2):
            told = samples_of(httpx.get(f"{url}/metrics").text)
            assert told[count] == 5
            assert told["dtn_request_seconds_count", "/transfer"] == 5
            assert told["dtn_uploads_bytes",] == 0
            assert sum(value for key, value in told.items() if key[0] == "dtn_model_info") == 3
            assert [key for key in told if key[0] == "python_info"]
        assert len(list(shared.glob("gauge_livesum_*.db"))) == 2
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 0
        assert len(list(shared.glob("gauge_livesum_*.db"))) == 1
        told = samples_of(httpx.get(f"{url_2}/metrics").text)
        assert told[count] == 5  # a counter must not fall


PROGRAM = """
from service.metrics import Metrics
metrics = Metrics()
metrics.watch_uploads(lambda: 7)
metrics.refresh()
metrics.rejected("queue_full")
"""


def test_what_a_killed_process_held_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
    assert len(list(tmp_path.glob("gauge_livesum_*.db"))) == 1
    told = samples(Metrics())
    assert ("dtn_uploads_bytes",) not in told
    assert told["dtn_rejected_total", "queue_full"] == 1
