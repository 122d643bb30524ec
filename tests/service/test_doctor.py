import json
import os
import resource
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from service import cli
from service.doctor import machine as doctor_machine
from service.doctor import service as doctor_service
from service.doctor.command import looked
from service.doctor.finding import GIB, Finding
from service.doctor.machine import (
    cgroup_cores,
    free_memory,
    look_at_cores,
    look_at_disk,
    look_at_files,
    look_at_memory,
    look_at_packages,
    look_at_port,
    look_at_python,
)
from service.doctor.service import look_at_database, look_at_models
from service.settings import Settings
from service.store import PersonStore
from tests.service.dummy import write_model

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
ALL = "0.0.0.0"  # noqa: S104 - nothing listens there
Doctor = Callable[..., tuple[int, list[dict[str, str]]]]


@pytest.fixture
def doctor(models_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """Runs dtn doctor --json where all is well: its exit code and findings."""
    monkeypatch.setenv("DTN_MODELS", str(models_dir))
    monkeypatch.setenv("DTN_PORT", "0")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def run(**variables: object) -> tuple[int, list[dict[str, str]]]:
        for name, value in variables.items():
            monkeypatch.setenv(f"DTN_{name.upper()}", str(value))
        result = CliRunner().invoke(cli.main, ["doctor", "--json"])
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]

    return run


def told(findings: list[dict[str, str]], topic: str, mark: str = "ok") -> str:
    """What is told of a topic, and what to do, in one line."""
    found = [
        f"{each['told']} -> {each['advice']}"
        for each in findings
        if (each["topic"], each["mark"]) == (topic, mark)
    ]
    assert found, findings
    return "; ".join(found)


def test_where_all_is_well_nothing_fails(doctor: Doctor, tmp_path: Path) -> None:
    code, findings = doctor()
    assert code == 0
    assert {each["mark"] for each in findings} <= {"ok", "warn"}
    assert "digits@1: 2 files with the right sha256, a picture in" in told(findings, "models")
    assert "emoji@1: 5 files" in told(findings, "models")
    assert "CPUExecutionProvider" in told(findings, "devices")
    assert "onnxruntime" in told(findings, "more packages")
    assert "fastapi" in told(findings, "packages")
    assert "made on first use" in told(findings, "database")
    assert "for this process" in told(findings, "cores")
    assert list(tmp_path.iterdir()) == []  # it has made nothing


def test_people_get_text_with_what_to_do(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DTN_EMOJI_MODEL", "nobody")
    result = CliRunner().invoke(cli.main, ["doctor"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok    Python         3.")
    i = next(i for i, line in enumerate(lines) if line.startswith("warn  models"))
    assert lines[i + 1].strip().startswith("-> set DTN_EMOJI_MODEL")
    assert lines[-1].startswith("0 to mend, ")


def test_misuse_is_another_exit_code() -> None:
    assert CliRunner().invoke(cli.main, ["doctor", "--fix"]).exit_code == 2


# Settings


def test_settings_in_force_are_told_and_secrets_are_not(doctor: Doctor) -> None:
    code, findings = doctor(
        max_queue=7,
        api_keys="hush,hush2",
        database_url="postgresql://me:hush@127.0.0.1:1/db?password=hush",
        potr="1",
        api_key="hush",
    )
    assert code == 1
    assert "DTN_MAX_QUEUE=7" in told(findings, "settings")
    assert "DTN_API_KEYS=(2, hidden)" in told(findings, "settings")
    assert "set nothing: DTN_POTR ->" in told(findings, "settings", "warn")
    assert "postgresql://me:***@127.0.0.1:1/db: " in told(findings, "database", "fail")
    assert "hush" not in json.dumps(findings)


def test_what_is_no_setting_is_told_each_and_the_rest_left(doctor: Doctor) -> None:
    code, findings = doctor(port="x", workers="0")
    assert code == 1
    failed = told(findings, "settings", "fail")
    assert "DTN_PORT: " in failed
    assert "DTN_WORKERS: " in failed
    assert "depends on the settings" in told(findings, "more", "warn")
    assert "models" not in [each["topic"] for each in findings]


# Models


def findings_of(**settings: Any) -> Callable[[str], str]:
    """What is told of models, by mark."""
    found = [vars(each) for each in look_at_models(Settings(**settings))]
    return lambda mark: told(found, "models", mark)


def test_a_changed_graph_fails_and_the_others_are_still_tried(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.onnx").write_bytes(b"changed")
    write_model(tmp_path, "plain", distance=False)
    about = findings_of(models=tmp_path)
    assert "sha256 is" in about("fail")
    assert "no 'digits' to be the default; there is: plain" in about("fail")
    assert "plain@1: 1 files" in about("ok")


def test_a_model_that_fails_its_trial_is_told(tmp_path: Path) -> None:
    write_model(tmp_path, output={"name": "y", "dtype": "uint8", "shape": ["N", 64, 64, 1]})
    assert "warm-up with 32 x 32 pixels: answers" in findings_of(models=tmp_path)("fail")


def test_without_models_it_says_where_they_were_looked_for(tmp_path: Path) -> None:
    assert f"no models in {tmp_path}" in findings_of(models=tmp_path)("fail")


def test_cuda_that_does_not_work_is_a_failure(models_dir: Path) -> None:
    assert "DTN_DEVICE=cuda" in findings_of(models=models_dir, device="cuda")("fail")


def test_without_onnxruntime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert 'pip install "dtn[cpu]"' in findings_of()("fail")


def test_a_gpu_that_is_not_used_is_told(
    monkeypatch: pytest.MonkeyPatch, models_dir: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor_service, "GPU", tmp_path)
    found = list(look_at_models(Settings(models=models_dir)))
    assert (found[0].mark, found[0].topic) == ("warn", "devices")
    assert 'pip install "dtn[gpu]"' in found[0].advice


# Database


def database(url: str) -> Finding:
    (found,) = (
        each for each in look_at_database(Settings(database_url=url)) if each.topic == "database"
    )
    return found


def test_a_database_is_told_with_its_revision(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/dtn.db"
    store = PersonStore(url)
    store.all("ann")
    store.close()
    found = database(url)
    assert found.mark == "ok"
    assert "reached, revision 0" in found.told
    assert "the newest" in found.told


def test_an_older_and_a_newer_database_are_told_apart(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "old.db").close()
    (tmp_path / "old.db").touch()
    old = database(f"sqlite:///{tmp_path}/old.db")
    assert (old.mark, old.advice.partition(",")[0]) == ("warn", "dtn database upgrade")
    url = f"sqlite:///{tmp_path}/dtn.db"
    store = PersonStore(url)
    store.all("ann")
    store.close()
    with sqlite3.connect(tmp_path / "dtn.db") as connection:
        connection.execute("UPDATE dtn_revision SET version_num = '9999'")
    connection.close()
    new = database(url)
    assert new.mark == "fail"
    assert "revision 9999" in new.told


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text, and not of SQLite, " * 100)
    for url, reason in (
        (f"sqlite:///{tmp_path}/file", "not a database"),
        (f"sqlite:///{tmp_path}/file/dtn.db", "is no directory"),
        (f"sqlite:///{tmp_path}", "is a directory"),
        ("mysql://me:hush@host/db", "sqlite:///FILE or"),
    ):
        found = database(url)
        assert found.mark == "fail"
        assert reason in found.told


def test_a_database_that_may_not_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everything
    assert "may not be written" in database(f"sqlite:///{tmp_path}/dtn.db").told


@pytest.mark.parametrize(("free", "mark"), [(2 * GIB, "ok"), (GIB // 2, "warn"), (1024, "fail")])
def test_room_on_the_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, mark: str
) -> None:
    class Usage:
        def __init__(self, _: Path) -> None:
            self.free = free

    monkeypatch.setattr("shutil.disk_usage", Usage)
    (found,) = look_at_disk(tmp_path / "not" / "there")
    assert (found.mark, str(tmp_path) in found.told) == (mark, True)


# Machine


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "OLDEST", (99, 0))
    (found,) = look_at_python()
    assert found.mark == "fail"


def test_missing_packages_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor_machine, "requires", lambda _: ["click>=8", "no-such-thing[x]>=1", "a; extra == 'b'"]
    )
    monkeypatch.setattr(doctor_machine, "RUNTIMES", ("no-such-runtime",))
    packages, more = look_at_packages()
    assert (packages.mark, packages.advice) == ("fail", "pip install no-such-thing")
    assert more.mark == "fail"
    assert 'pip install "dtn[cpu]"' in more.advice


def test_two_onnxruntimes_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "installed", lambda names: ([*names], []))
    assert list(look_at_packages())[1].mark == "warn"


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_narrowest_of_all_limits_on_memory_counts(tmp_path: Path) -> None:
    root = write(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:    4000000 kB\n")
    assert free_memory(root) == 4_000_000 * 1024
    write(
        root,
        proc__self__cgroup="0::/pod/container\n",
        sys__fs__cgroup__pod__memory_dot_max="1000000000",
        sys__fs__cgroup__pod__memory_dot_current="400000000",
        sys__fs__cgroup__pod__container__memory_dot_max="max",
        sys__fs__cgroup__pod__container__memory_dot_current="300000000",
    )
    assert free_memory(root) == 600_000_000
    (found,) = look_at_memory(Settings(), root)
    assert (found.mark, "DTN_MAX_PIXELS" in found.advice) == ("warn", True)
    (found,) = look_at_memory(Settings(workers=1, max_pixels=1000, max_buffered_bytes=1), root)
    assert found.mark == "ok"


def test_older_control_groups_are_read_too(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        proc__meminfo="MemAvailable: 4000000 kB",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="2000",
        sys__fs__cgroup__memory__memory_dot_usage_in_bytes="500",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="150000",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000",
    )
    assert free_memory(root) == 1500
    assert cgroup_cores(root) == 1.5


def test_more_workers_than_a_container_has_cores_are_told(tmp_path: Path) -> None:
    root = write(tmp_path, sys__fs__cgroup__cpu_dot_max="200000 100000\n")
    (found,) = look_at_cores(Settings(workers=8), root)
    assert (found.mark, found.advice.partition(":")[0]) == ("warn", "set DTN_WORKERS=2")
    (found,) = look_at_cores(Settings(workers=2), root)
    assert found.mark == "ok"
    assert cgroup_cores(write(tmp_path, sys__fs__cgroup__cpu_dot_max="max 100000")) is None
    assert free_memory(tmp_path / "nothing") is None


def test_few_open_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for limits, mark in (((256, 4096), "warn"), ((4096, 4096), "ok"), ((-1, -1), "ok")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        (found,) = look_at_files()
        assert found.mark == mark


def port(**settings: Any) -> list[Finding]:
    return list(look_at_port(Settings(**settings)))


def test_a_port_is_free_or_taken_or_the_services_own(client: httpx.Client) -> None:
    assert port(port=0)[0].told == "a free one will be taken"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        (found,) = port(port=taken)
        assert (found.mark, "Address already in use" in found.told) == ("fail", True)
    assert port(port=taken)[0].told.endswith("is free")
    (found,) = port(port=client.base_url.port)
    assert (found.mark, "runs there already" in found.told) == ("ok", True)
    (found, _) = port(host="192.0.2.1")
    assert found.mark == "fail"


def test_a_service_for_all_without_a_key_is_told() -> None:
    assert [each.topic for each in port(host=ALL, port=0)] == ["port", "access"]
    assert len(port(host=ALL, port=0, api_keys="a")) == 1


def test_a_check_that_fails_itself_is_a_finding() -> None:
    def look_at_stars() -> Any:
        yield Finding("ok", "sky", "clear")
        raise ZeroDivisionError("stars")

    first, second = looked(look_at_stars)
    assert first.mark == "ok"
    assert (second.mark, second.topic) == ("fail", "stars")
    assert "ZeroDivisionError: stars" in second.told
