"""What passes between those that find pictures, those that draw them, and the ledger."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Protocol

from service.problems import Problem
from service.schemas import PictureFormat

Kind = Literal["folder", "tar", "parquet"]

# Where a picture is in its file: a path below a folder, offset and bytes in a tar shard, row
# group and row in it of Parquet.
Place = str | tuple[int, int]

# What a file with pictures in it may be called.
SUFFIXES = frozenset(
    ".png .jpg .jpeg .webp .gif .bmp .tif .tiff .heic .heif .avif".split()  # noqa: SIM905
)


class BulkError(Exception):
    """Why a run cannot begin or go on, in one line."""


class Found(NamedTuple):
    """A picture of IN."""

    key: str  # no other picture of IN has it
    stem: str  # its name in OUT, without the format's ending, where no other one has that
    place: Place


class Group(NamedTuple):
    """Pictures that were found in one file, or below one folder."""

    file: str
    found: list[Found]


class Item(NamedTuple):
    """A picture that is to be drawn."""

    key: str
    name: str  # in OUT, with the format's ending, or empty where it cannot be written
    place: Place


class Chunk(NamedTuple):
    """What one worker draws in one go, and what is committed in one."""

    number: int
    file: str
    items: list[Item]


class Written(NamedTuple):
    """A picture that was drawn and written to where its chunk is kept until it is committed."""

    key: str
    name: str
    f_distance: float | None


class Rejected(NamedTuple):
    """A picture that will never be drawn, and why: a Problem's code and detail."""

    key: str
    code: str
    detail: str


class Failed(NamedTuple):
    """A picture that could not be read. The next run tries it again."""

    key: str
    reason: str


@dataclass
class Done:
    """What has become of a chunk."""

    number: int
    staged: str = ""  # the file or folder with what was drawn
    written: list[Written] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """All that a worker, perhaps on another machine, needs to know."""

    model: Path  # its folder
    device: Literal["auto", "cpu", "cuda"]
    threads: int
    picture_format: PictureFormat
    size: int  # of emojis
    distance: bool
    max_bytes: int
    max_pixels: int
    source: Kind
    column: str
    target: Kind
    staging: Path


Complain = Callable[[str], None]
Content = bytes | Problem | OSError
Read = Callable[[str, Sequence[Place], int], Iterator[Content]]


class Writer(Protocol):
    """Writes the pictures of one chunk to a file or folder that nobody looks at yet."""

    def add(self, written: Written, content: bytes) -> None: ...

    def close(self) -> None: ...


def too_large(max_bytes: int) -> Problem:
    return Problem("too_large", f"the picture has more than {max_bytes} bytes")


def is_picture(name: str) -> bool:
    """Whether a file's name, hidden ones excepted, is one of a picture."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def without_ending(path: str) -> str:
    """`a/b.jpg` -> `a/b`."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.rpartition(".")[0]
