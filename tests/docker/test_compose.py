"""docker-compose.yml: valid, linted, and as closed as docker/README.md says."""

import importlib.resources
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from service import __version__
from service.settings import Settings

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# api-gpu is written as what differs from api.
FULL = SERVICES | {"api-gpu": SERVICES["api"] | SERVICES["api-gpu"]}

PLUGINS = [
    Path(folder) / "docker/cli-plugins/docker-compose"
    for folder in ("/usr/libexec", "/usr/lib", "/usr/local/lib", "/usr/local/libexec")
]

each = pytest.mark.parametrize("name", SERVICES)


def seconds(duration: str) -> int:
    """`45s` as 45."""
    return int(duration.removesuffix("s"))


def test_it_fits_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema", reason="it is the package that has the schema")
    schemas = importlib.resources.files("check_jsonschema.builtin_schemas.vendor")
    schema = json.loads(schemas.joinpath("compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)
    with pytest.raises(jsonschema.ValidationError):
        broken = COMPOSE | {"services": {"api": {"imag": "dtn"}}}
        jsonschema.Draft202012Validator(schema).validate(broken)


@pytest.mark.parametrize("profiles", ["", "gpu", "monitoring", "gpu,monitoring"])
def test_docker_compose_accepts_it(profiles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compose = next(filter(Path.is_file, PLUGINS), None)
    if compose is None:
        pytest.skip("Docker Compose 2 is not installed")
    monkeypatch.setenv("COMPOSE_PROFILES", profiles)
    told = subprocess.run(
        [compose, "-f", FILE, "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")


def test_compose_lint_finds_nothing() -> None:
    lint = shutil.which("compose-lint", path=Path(sys.executable).parent)
    assert lint is not None
    command = [lint, "check", "--config", "docker/compose-lint.yml", "--strict-config"]
    command += ["--fail-on", "low", FILE.name]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
    disabled = yaml.safe_load((ROOT / "docker/compose-lint.yml").read_text())["rules"]
    assert all(rule["reason"] for rule in disabled.values())


def test_haproxy_accepts_its_configuration() -> None:
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    told = subprocess.run(
        [haproxy, "-c", "-f", ROOT / "docker/haproxy.cfg"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    published = {port.rpartition(":")[2] for port in SERVICES["balancer"]["ports"]}
    listened = re.findall(r"^\s*bind \S*:(\d+)", (ROOT / "docker/haproxy.cfg").read_text(), re.M)
    assert published <= set(listened)


@each
def test_every_container_is_bounded_and_without_rights(name: str) -> None:
    service = FULL[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}


@each
def test_every_container_is_asked_whether_it_works(name: str) -> None:
    checked = "healthcheck" in FULL[name]
    assert checked != name.startswith("api")  # whose image has a check


@each
def test_every_image_is_one_release(name: str) -> None:
    image, _, tag = FULL[name]["image"].partition(":")
    assert re.search(r"\d+\.\d+", tag), image
    if name.startswith("api"):
        assert tag.removesuffix("-gpu") == __version__


@each
def test_ports_are_published_to_this_machine_only(name: str) -> None:
    ports = FULL[name].get("ports", [])
    assert all(port.startswith(("127.0.0.1:", "${DTN_BIND:-127.0.0.1:")) for port in ports)
    if ports:  # Docker publishes none of a container whose networks are all internal
        assert "edge" in FULL[name]["networks"]


def test_only_replicas_reach_the_database() -> None:
    on = {name for name, service in FULL.items() if "database" in service["networks"]}
    assert on == {"api", "api-gpu", "db"}
    assert FULL["db"]["networks"] == ["database"]
    internal = {name for name, network in COMPOSE["networks"].items() if network.get("internal")}
    assert internal == {"inside", "database"}
    assert "edge" not in FULL["api"]["networks"]


def test_replicas_can_be_any_number() -> None:
    for name in ("api", "api-gpu"):
        assert not FULL[name].keys() & {"container_name", "ports", "hostname"}
    assert SERVICES["api-gpu"]["networks"]["inside"]["aliases"] == ["api"]
    for dependency in SERVICES["balancer"]["depends_on"].values():
        assert dependency == {"condition": "service_healthy", "required": False}


def test_what_is_under_way_may_end() -> None:
    settings = FULL["api"]["environment"]
    wanted = float(settings["DTN_DRAIN_DELAY_S"]) + float(settings["DTN_SHUTDOWN_GRACE_S"])
    for name in ("api", "api-gpu", "balancer"):
        assert seconds(FULL[name]["stop_grace_period"]) > wanted


def test_settings_are_the_service_s() -> None:
    ours = {name.removeprefix("DTN_").lower() for name in FULL["api"]["environment"]}
    ours |= {name.removeprefix("dtn_") for name in FULL["api"]["secrets"]}
    assert ours <= set(Settings.model_fields)
    assert FULL["api"]["environment"]["DTN_WORKERS"] == "${DTN_API_CPUS:-2}"
    assert FULL["api"]["deploy"]["resources"]["limits"]["cpus"] == "${DTN_API_CPUS:-2}"


def test_the_gpu_is_reserved_on_demand() -> None:
    gpu = SERVICES["api-gpu"]
    assert gpu["profiles"] == ["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "profiles" not in SERVICES["api"]


@each
def test_what_is_mounted_and_built_from_exists(name: str) -> None:
    for volume in FULL[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]
    build = FULL[name].get("build")
    assert build is None or (ROOT / build["dockerfile"]).is_file()


# Secrets


def make_secrets(folder: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "docker/secrets.sh"
    return subprocess.run([script, folder], capture_output=True, text=True, check=False)


def test_no_secret_is_in_the_file_and_none_has_a_default() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"${{DTN_SECRETS:-./docker/secrets}}/{name}"}
    for service in FULL.values():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert variable.endswith("_FILE")
                assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_the_script_makes_all_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert make_secrets(folder).returncode == 0
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert made.keys() == COMPOSE["secrets"].keys()
    assert made["dtn_database_url"] == f"postgresql://dtn:{made['postgres_password']}@db/dtn"
    assert all(len(made[name]) == 48 for name in made if name != "dtn_database_url")
    assert len(set(made.values())) == len(made)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}


def test_the_script_changes_none_that_is_there(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert make_secrets(tmp_path).returncode == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    (tmp_path / "postgres_password").unlink()
    told = make_secrets(tmp_path)
    assert (told.returncode, "postgres_password is missing" in told.stderr) == (1, True)


def test_the_service_reads_what_the_script_makes(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    settings = Settings(settings_dir=tmp_path)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value().startswith("postgresql://dtn:")
    assert len(settings.api_keys) == 1
