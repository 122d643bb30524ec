"""Prometheus's configuration, alerts and the dashboard: all ask for what there really is."""

import json
import re
import shutil
import socket
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import PlatformCollector
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import DeviceMemory, Metrics

DOCKER = Path(__file__).parent.parent.parent / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER.parent / "docker-compose.yml").read_text())
PROMETHEUS: dict[str, Any] = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
ALERTS = yaml.safe_load((DOCKER / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((DOCKER / "grafana/dashboards/dtn.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

QUERIES = [alert["expr"] for alert in ALERTS]
QUERIES += [target["expr"] for panel in PANELS for target in panel["targets"]]
NAME = re.compile(r"\b(?:dtn|haproxy|process|python)_\w+")
# A metric with what it is narrowed down to, such as dtn_requests_total{status=~"5.."}.
NARROWED = re.compile(r"\b((?:dtn|haproxy|process)_\w+)\{([^}]*)\}")
BY = re.compile(r"\bby \(([^)]*)\)")
PROMETHEUS_S_OWN = {"instance", "job", "le"}  # labels that are added, or a histogram's

Labels = dict[str, set[str]]


def told(text: str) -> Labels:
    """The labels of each sample that a /metrics tells."""
    labels: Labels = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@cache
def of_the_service() -> Labels:
    """What a replica tells once everything has happened."""
    metrics = Metrics()
    metrics.answered("POST", "/transfer", 200, 0.002)
    metrics.rejected("queue_full")
    metrics.batch("digits@1", 3)
    metrics.tell_model("digits@1", "cpu", "CPUExecutionProvider", "00")
    metrics.watch_queue("digits@1", lambda: 0)
    for collector in metrics.machine:
        metrics.registry.unregister(collector)
    gpu = DeviceMemory()
    gpu.program, gpu.lines, gpu.stale = "nvidia-smi", ["0, 10, 20"], float("inf")
    metrics.registry.register(gpu)
    PlatformCollector(metrics.registry)
    return told(metrics.all("")[0].decode())


@cache
def of_the_balancer() -> Labels:
    """What HAProxy's exporter tells, by asking one."""
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    timeouts = " ".join(f"timeout {name} 5s\n" for name in ("connect", "client", "server"))
    process = subprocess.Popen(
        [haproxy, "-f", "/dev/stdin"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdin is not None
        process.stdin.write(
            f"defaults\nmode http\n{timeouts}"
            f"frontend metrics\nbind 127.0.0.1:{port}\n"
            "http-request use-service prometheus-exporter\n"
            "backend api\nserver one 127.0.0.1:1 check\n"
        )
        process.stdin.close()
        for _ in range(300):
            assert process.poll() is None
            try:
                return told(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
            except httpx.ConnectError:
                time.sleep(0.1)
        pytest.fail("haproxy does not listen")
    finally:
        process.kill()
        process.wait()


def known(name: str) -> Labels:
    """All that is told by who tells `name`."""
    return of_the_balancer() if name.startswith("haproxy_") else of_the_service()


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_is_told_by_somebody(query: str) -> None:
    names = NAME.findall(query)
    assert names or "up{" in query
    for name in names:
        assert name in known(name)


@pytest.mark.parametrize("query", [q for q in QUERIES if NARROWED.search(q) or BY.search(q)])
def test_every_label_is_one_of_its_metric(query: str) -> None:
    for name, narrowing in NARROWED.findall(query):
        labels = re.findall(r"(\w+)(?:=~|!~|!=|=)", narrowing)
        assert set(labels) <= known(name)[name] | PROMETHEUS_S_OWN
    for names in BY.findall(query):
        there = set().union(*(known(name)[name] for name in NAME.findall(query)))
        assert set(names.split(", ")) <= there | PROMETHEUS_S_OWN


def test_no_metric_of_the_service_is_left_out_of_the_dashboard() -> None:
    asked = set(NAME.findall(" ".join(QUERIES)))
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in asked}
    ours = {name for name in of_the_service() if name.startswith("dtn_")}
    assert {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in ours} <= families


def test_the_balancer_s_metrics_are_those_of_its_configuration() -> None:
    configuration = (DOCKER / "haproxy.cfg").read_text()
    (target,) = jobs()["balancer"]["static_configs"][0]["targets"]
    assert re.search(rf"^\s*bind \S*:{target.partition(':')[2]}\b", configuration, re.MULTILINE)
    proxies = set(re.findall(r'proxy="(\w+)"', " ".join(QUERIES)))
    assert proxies == {"api"}
    assert re.search(r"^backend api$", configuration, re.MULTILINE)


# Prometheus


def jobs() -> dict[str, dict[str, Any]]:
    """What is scraped, by its name."""
    return {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}


def test_every_replica_is_found_by_its_name() -> None:
    (discovery,) = jobs()["api"]["dns_sd_configs"]
    assert (discovery["names"], discovery["type"], discovery["port"]) == (["api"], "A", 8000)
    assert "api" in COMPOSE["services"]
    (target,) = jobs()["balancer"]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in COMPOSE["services"]
    assert set(re.findall(r'job="(\w+)"', " ".join(QUERIES))) <= set(jobs())


def promtool(*words: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    result = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_accepts_its_configuration() -> None:
    promtool("check", "config", DOCKER / "prometheus.yml")


def test_prometheus_accepts_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{n}", "expr": query.replace("$__rate_interval", "1m")}
        for n, query in enumerate(QUERIES)
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")


def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    shutil.copy(DOCKER / "alerts.yml", tmp_path)
    shutil.copy(Path(__file__).parent / "alerts_test.yml", tmp_path)
    promtool("test", "rules", tmp_path / "alerts_test.yml")


def test_every_alert_is_tried_with_and_without_a_cause() -> None:
    tests = yaml.safe_load((Path(__file__).parent / "alerts_test.yml").read_text())["tests"]
    tried = [each for test in tests for each in test["alert_rule_test"]]
    names = {alert["alert"] for alert in ALERTS}
    assert {each["alertname"] for each in tried if each["exp_alerts"]} == names
    assert {each["alertname"] for each in tried if not each["exp_alerts"]} == names


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_how_bad_it_is_and_where_to_look(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "warn")
    assert alert["annotations"].keys() == {"summary", "description"}


# Grafana


def test_the_dashboard_asks_the_provisioned_prometheus() -> None:
    (source,) = yaml.safe_load(
        (DOCKER / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    assert source["url"] == "http://prometheus:9090"
    for panel in PANELS:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


def test_the_dashboard_is_where_grafana_looks() -> None:
    (provider,) = yaml.safe_load(
        (DOCKER / "grafana/provisioning/dashboards/dashboards.yml").read_text()
    )["providers"]
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounts["./docker/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./docker/grafana/provisioning"] == "/etc/grafana/provisioning"


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
