"""The Dockerfiles as they stand; tests/docker/rehearse.py carries their instructions out."""

import re
import shutil
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from service.settings import Settings
from tests.docker.dockerfile import (
    Context,
    DockerfileError,
    Stage,
    exec_form,
    health_command,
    pairs,
    read_instructions,
    read_stages,
)

ROOT = Path(__file__).parent.parent.parent
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile*"))
SERVICES = [ROOT / "docker/Dockerfile", ROOT / "docker/Dockerfile.gpu"]
TRAINING = ROOT / "docker/Dockerfile.training"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

every = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
of_the_service = pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)


def sources(stage: Stage) -> list[str]:
    """What a stage copies from the context."""
    copies = [text.split() for text in stage.all("COPY") if "--from=" not in text]
    return [source for words in copies for source in words[:-1]]


@every
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint is not None
    told = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")
    assert "hadolint ignore" not in path.read_text()


@every
def test_every_base_is_one_release_of_the_slim_python(path: Path) -> None:
    stages = read_stages(path)
    names = {stage.name for stage in stages}
    bases = {stage.base for stage in stages} - names
    assert bases == {"python:3.12-slim-bookworm"}


@every
def test_the_last_stage_installs_nothing_and_is_no_root(path: Path) -> None:
    last = read_stages(path)[-1]
    assert not re.search(r"\b(pip|apt|apt-get|curl|wget)\b", " ".join(last.all("RUN")))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last.last("USER"))  # a name proves nothing
    assert exec_form(last.last("CMD"))[0] == "dtn"


@of_the_service
def test_the_service_says_how_it_is_asked_and_stopped(path: Path) -> None:
    last = read_stages(path)[-1]
    assert last.last("STOPSIGNAL") == "SIGTERM"
    assert last.last("EXPOSE") == "8000"
    assert "/health/ready" in health_command(last.last("HEALTHCHECK"))[-1]
    env = pairs(" ".join(last.all("ENV")))
    ours = {name.removeprefix("DTN_").lower() for name in env if name.startswith("DTN_")}
    assert ours <= set(Settings.model_fields)
    assert env["DTN_HOST"] == "0.0.0.0"  # noqa: S104 - of a container
    assert env["XDG_DATA_HOME"] == last.last("VOLUME")


class Readiness(BaseHTTPRequestHandler):
    """Stands in for the service."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@of_the_service
@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells_readiness(
    path: Path, status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readiness, "status", status)
    _, *words = health_command(read_stages(path)[-1].last("HEALTHCHECK"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Readiness) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DTN_PORT", str(server.server_port))
        told = subprocess.run([sys.executable, *words], capture_output=True, check=False)
        server.shutdown()
    assert told.returncode == code


@every
def test_what_is_copied_is_in_the_context(path: Path) -> None:
    context = Context(ROOT)
    for stage in read_stages(path):
        for source in sources(stage):
            assert context.files(source)


@every
def test_every_package_of_the_project_is_copied(path: Path) -> None:
    copied = [source for stage in read_stages(path) for source in sources(stage)]
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        folder = package.replace(".", "/")
        assert any(f"{folder}/__init__.py".startswith(source) for source in copied), package


def test_torch_is_the_release_that_everything_else_names() -> None:
    release = read_stages(TRAINING)[0].last("ARG").removeprefix("TORCH_VERSION=")
    assert f"torch=={release}" in PROJECT["project"]["optional-dependencies"]["training"]
    assert f"torch=={release}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    "secret",
    (".git/config", "docker/secrets/dtn_api_keys", "data/train_32x32.mat", "runs/digits/last.pt",
     "docker-compose.yml", "tests/__init__.py", "service/.env", "service/__pycache__/app.pyc",
     "benchmarks/serving/peers/mosec.py", ".venv/bin/python"),
)  # fmt: skip
def test_the_context_holds_nothing_else(secret: str) -> None:
    assert not Context(ROOT).holds(secret)


# The reader that these tests and the rehearsal trust


def test_continued_lines_and_comments_are_read_as_docker_reads_them() -> None:
    text = "# no\nFROM a AS b\n\nRUN one \\\n    # not the end\n    two\nUSER 1:1\n"
    read = [(each.name, " ".join(each.text.split()), each.line) for each in read_instructions(text)]
    assert read == [("FROM", "a AS b", 2), ("RUN", "one two", 4), ("USER", "1:1", 7)]


@pytest.mark.parametrize(
    "text", ["FROM a\nADD x /y\n", "RUN before any FROM\n", "FROM a b c\n", "FROM a\nRUN x \\\n"]
)
def test_what_it_does_not_know_it_refuses(text: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    with pytest.raises(DockerfileError):
        read_stages(tmp_path / "Dockerfile")


def test_the_last_pattern_that_fits_decides(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n!a\na/b\n**/*.c\n")
    context = Context(tmp_path)
    held = {path: context.holds(path) for path in ("x", "a/x", "a/b/x", "a/d/x.c", "a/d/b")}
    assert held == {"x": False, "a/x": True, "a/b/x": False, "a/d/x.c": False, "a/d/b": True}
