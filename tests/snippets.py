"""The code blocks of the documents, and how they are run.

```bash and ```python blocks are run: in a folder that holds the pictures they name, against a
server of the shipped models. ```console blocks (and ```text ones, which bench writes) hold what
would download, train, or go on for ever; console.py checks their lines without running them.
There are no other blocks.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    if path.name != "REPRODUCTION.md"  # written by `dtn evaluate report`
)
RUN, CHECKED = ("bash", "python"), ("console", "text")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"
KEY = "a-key-of-the-tests"
TIMEOUT_S = 300
TILE = 192  # pixels of a photograph in docs/emoji.png
# Where in docs/emoji.png two photographs of one person are, and of another two people.
TILES = {"a": (2, 1), "b": (4, 1), "c": (2, 0), "d": (4, 0)}


@dataclass(frozen=True)
class Block:
    """A code block, and the number of its first line in its document."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def wants_key(self) -> bool:
        """Whether it asks a server that has API keys."""
        return "DTN_API_KEY" in self.text


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def blocks_of(document: str, *languages: str) -> list[Block]:
    """The blocks of some languages, or of all."""
    text = text_of(document)
    return [
        Block(document, text.count("\n", 0, found.start()) + 2, found[1], found[2])
        for found in BLOCK.finditer(text)
        if not languages or found[1] in languages
    ]


def write_pictures(folder: Path) -> None:
    """What the snippets name: house_number.png where a clone has it, and photographs of faces."""
    number = folder / "tests/pictures/house_number.png"
    number.parent.mkdir(parents=True, exist_ok=True)
    if not number.exists():
        shutil.copy2(ROOT / "tests/pictures/house_number.png", number)
    shutil.copy2(ROOT / "service/page/astronaut.jpg", folder / "me.jpg")
    (folder / "photos").mkdir()
    with Image.open(ROOT / "docs/emoji.png") as tiles:
        for name, (column, row) in TILES.items():
            box = (column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE)
            tiles.crop(box).convert("RGB").save(folder / f"{name}.jpg", quality=95)
            shutil.copy2(folder / f"{name}.jpg", folder / "photos" / f"{name}.jpg")


def write_programs(folder: Path) -> None:
    """`dtn` as this environment has it, and a `curl` that fails where the service refuses."""
    curl = shutil.which("curl")
    assert curl, "the documents' commands need curl"
    folder.mkdir(parents=True)
    lines = {
        "dtn": f'exec "{sys.executable}" -m service "$@"',
        "curl": f'exec "{curl}" --fail-with-body --silent --show-error "$@"',
    }
    for name, line in lines.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)


def clean_environment() -> dict[str, str]:
    """The environment without this test run's virtual environment and settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DTN_", "VIRTUAL_ENV"))}
    return kept | {"PYTHONWARNINGS": ""}


def with_dtn_of_here(block: Block) -> Block:
    """With `dtn` instead of that of the environments that make makes."""
    return replace(block, text=re.sub(r"\.venv(-serve)?/bin/dtn", "dtn", block.text))


def run(block: Block, address: str, folder: Path, programs: Path, **more: str) -> str:
    """What a block prints; fails where it fails."""
    text = block.text.replace(ADDRESS, address)
    command = {
        "bash": ["bash", "-euo", "pipefail", "-c", text],
        "python": [sys.executable, "-W", "error", "-c", text],
    }[block.language]
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment: Mapping[str, str] = clean_environment() | {"PATH": path} | more
    result = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert result.returncode == 0, f"{block}:\n{text}\n{result.stdout[-2000:]}\n{result.stderr}"
    return result.stdout
