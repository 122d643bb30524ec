"""Every command and snippet of docs/, CONTRIBUTING.md, SECURITY.md; the README: test_readme."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import get_args

import click
import httpx
import pytest
import yaml

from service.app import create_app
from service.cli import main
from service.client import errors
from service.problems import STATUS
from service.schemas import EmojiSize
from service.settings import Settings, describe
from tests import console
from tests.snippets import (
    CHECKED,
    DOCUMENTS,
    KEY,
    ROOT,
    RUN,
    Block,
    blocks_of,
    clean_environment,
    run,
    text_of,
    with_dtn_of_here,
    write_pictures,
    write_programs,
)

START_S = 300
RUN_HERE = [name for name in DOCUMENTS if name != "README.md" and blocks_of(name, *RUN)]
CONSOLE = [block for name in DOCUMENTS for block in blocks_of(name, *CHECKED)]


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[str]:
    """dtn serve with the shipped models, on a free port: its address."""
    log = folder / "log"
    environment = clean_environment() | {
        "DTN_DATABASE_URL": f"sqlite:///{folder}/dtn.db", "DTN_PORT": "0", **settings
    }  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            cwd=folder, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        address = None
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            assert process.poll() is None, log.read_text()
            if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
                address = found[0]
                break
            time.sleep(0.1)
        assert address, log.read_text()
        while httpx.get(f"{address}/health/ready").status_code != httpx.codes.OK:
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def address_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Block], str]]:
    """The address of the server that a block is about: one without API keys, or one with."""
    addresses: dict[bool, str] = {}
    with ExitStack() as stack:

        def find(block: Block) -> str:
            if block.wants_key not in addresses:
                keys = {"DTN_API_KEYS": KEY} if block.wants_key else {}
                folder = tmp_path_factory.mktemp("server")
                addresses[block.wants_key] = stack.enter_context(serving(folder, **keys))
            return addresses[block.wants_key]

        yield find


@pytest.mark.slow
@pytest.mark.parametrize("document", RUN_HERE)
def test_snippets_run(document: str, address_for: Callable[[Block], str], tmp_path: Path) -> None:
    """In the order of the document, in one folder, as a reader would."""
    write_pictures(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    write_programs(tmp_path / ".programs")
    for block in blocks_of(document, *RUN):
        # Port 0: that of the documents may be taken here, which dtn doctor would find amiss.
        own = {"DTN_DATABASE_URL": f"sqlite:///{tmp_path}/own.db", "DTN_PORT": "0"}
        if block.wants_key:
            own["DTN_API_KEY"] = KEY
        address = address_for(block)
        run(with_dtn_of_here(block), address, tmp_path, tmp_path / ".programs", **own)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("bash", "curl http://127.0.0.1:8000/nothing\ntrue\n"),
        ("bash", "dtn transfer nothing.png | cat\n"),
        ("python", "from service.client import Nobody\n"),
        ("python", "import warnings; warnings.warn('old', DeprecationWarning)\n"),
    ],
)
def test_snippets_that_fail(
    language: str, text: str, address_for: Callable[[Block], str], tmp_path: Path
) -> None:
    write_programs(tmp_path / ".programs")
    block = Block("none", 1, language, text)
    with pytest.raises(AssertionError):
        run(block, address_for(block), tmp_path, tmp_path / ".programs")


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_console_lines_could_run(block: Block) -> None:
    for words in console.lines_of(block.text):
        try:
            console.check(words)
        except click.UsageError as error:
            pytest.fail(f"{block}: {words}: {error.format_message()}")


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "dtn train digits --no-such-option 3",
        "dtn train no_such_preset",
        "dtn reproduce table9",
        "dtn no_such_command",
        "torchrun -m service train digits --no-such-option",
        "docker compose up --scale nothing=3",
        "docker compose --profile nothing up",
        "kubectl apply -k docker/kubernetes/nothing",
        'pip install "dtn[nothing]"',
        "DTN_NOTHING=1 dtn serve",
        "rm -rf runs",
    ],
)
def test_console_lines_that_could_not(line: str) -> None:
    (words,) = console.lines_of(line)
    with pytest.raises((AssertionError, click.ClickException)):
        console.check(words)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_all_blocks_are_checked(document: str) -> None:
    text = text_of(document)
    for block in blocks_of(document):
        assert block.language in RUN + CHECKED, block
        text = text.replace(f"```{block.language}\n{block.text}```", "")
    assert "```" not in text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Those within the project: the file is there, and so is the heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_are_there(document: str) -> None:
    """From the root, or from service/ as docs/architecture.md has them."""
    for name in re.findall(r"`([\w/.-]+(?:\.(?:py|cfg|sh|toml|yml)|/))`", text_of(document)):
        assert (ROOT / name).exists() or (ROOT / "service" / name).exists(), name


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_route_is_described(tmp_path: Path) -> None:
    """With curl and in Python: between its heading and the next there is a block of each."""
    sections = re.split(r"^## ", text_of("docs/api.md"), flags=re.MULTILINE)
    paths = create_app(Settings(database_url=f"sqlite:///{tmp_path}/dtn.db")).openapi()["paths"]
    for path, methods in paths.items():
        for method in methods:
            route = f"`{method.upper()} {path}`"
            found = [section for section in sections if route in section]
            assert found, route
            assert any("```bash" in s and "```python" in s for s in found), route


def test_every_error_is_described() -> None:
    text = text_of("docs/api.md")
    for code, status in STATUS.items():
        assert f"| {status} | `{code}` |" in text


def test_every_error_of_the_client_is_described() -> None:
    text = text_of("docs/client.md")
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.ClientError):
            assert f"`{name}`" in text


def test_every_setting_is_described() -> None:
    text = text_of("docs/operations.md")
    for name, field in Settings.model_fields.items():
        variable, told = describe(name, field)
        default = re.search(r" \[default: (.*)\]$", told, re.DOTALL)
        assert default
        # What depends on the machine is told in words.
        shown = {"models": "`models`", "workers": "the cores"}.get(name, f"`{default[1]}`")
        assert f"| `{variable.split()[0]}` | {field.description} | {shown} |" in text


def test_every_metric_is_described(address_for: Callable[[Block], str]) -> None:
    text = text_of("docs/operations.md")
    metrics = httpx.get(f"{address_for(Block('', 0, '', ''))}/metrics").text
    names = set(re.findall(r"^# HELP (dtn_\w+)", metrics, re.MULTILINE))
    assert names
    for name in names:
        if not name.endswith("_created"):
            assert f"| `{name}` |" in text


def test_every_alert_is_described() -> None:
    groups = yaml.safe_load((ROOT / "docker/alerts.yml").read_text())["groups"]
    text = text_of("docs/operations.md")
    for rule in (rule for group in groups for rule in group["rules"]):
        assert f"| {rule['alert']} | {rule['labels']['severity']} |" in text


def test_every_command_is_described() -> None:
    text = "".join(map(text_of, DOCUMENTS))
    for name in main.list_commands(click.Context(main)):
        assert re.search(rf"\bdtn {name}\b", text), name


def test_sizes_of_emoji() -> None:
    assert "`size=" + "|".join(map(str, get_args(EmojiSize))) + "`" in text_of("docs/api.md")


def test_the_models_have_cards() -> None:
    """The README links each card, and names the version that is shipped."""
    for folder in sorted((ROOT / "models").iterdir()):
        if not (folder / "manifest.json").is_file():
            continue
        manifest = json.loads((folder / "manifest.json").read_text())
        reference = f"{manifest['name']}@{manifest['version']}"
        assert f"[{reference}](models/{folder.name}/CARD.md)" in text_of("README.md")
