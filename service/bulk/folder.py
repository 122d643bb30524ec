"""Bulk work's folders: a tree of pictures, one file each."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from service.bulk.chunks import (
    Complain,
    Content,
    Found,
    Group,
    Place,
    Written,
    is_picture,
    too_large,
    without_ending,
)


def find_in_folder(root: Path, size: int, complain: Complain) -> Iterator[Group]:
    """The pictures of a tree, `size` at a time, in the order the file system has them in.

    Hidden files and folders are left out, links to folders not followed.
    """
    found: list[Found] = []
    for path in walk(root, "", complain):
        # A name need not be UTF-8; the key is what can be written down of it.
        key = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        found.append(Found(key, without_ending(key), path))
        if len(found) == size:
            yield Group(str(root), found)
            found = []
    if found:
        yield Group(str(root), found)


def walk(root: Path, below: str, complain: Complain) -> Iterator[str]:
    """Paths of pictures, below `root` and with slashes. No more than one folder's subfolders
    are held at each level."""
    folders = []
    try:
        with os.scandir(root / below) as entries:
            for entry in entries:
                path = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        folders.append(path)
                elif is_picture(entry.name) and entry.is_file():
                    yield path
    except OSError as error:
        complain(f"{root / below}: {error.strerror}")
    for folder in folders:
        yield from walk(root, folder, complain)


def read_folder(file: str, places: Sequence[Place], max_bytes: int) -> Iterator[Content]:
    """The content of pictures below the folder `file`."""
    for place in places:
        path = Path(file, cast(str, place))
        try:
            with path.open("rb") as picture:
                content = picture.read(max_bytes + 1)
            yield content if len(content) <= max_bytes else too_large(max_bytes)
        except OSError as error:
            yield error


class FolderWriter:
    """Writes each picture to a file that is numbered until it is published."""

    def __init__(self, staged: Path) -> None:
        self.staged = staged
        self.staged.mkdir()
        self.count = 0

    def add(self, written: Written, content: bytes) -> None:
        (self.staged / str(self.count)).write_bytes(content)
        self.count += 1

    def close(self) -> None:
        """Nothing is open."""


def publish_folder(staged: Path, written: Sequence[Written], out: Path) -> None:
    """Move the files to their places."""
    for number, picture in enumerate(written):
        target = out / picture.name
        try:
            (staged / str(number)).replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            (staged / str(number)).replace(target)
    staged.rmdir()
