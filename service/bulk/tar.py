"""Bulk work's tar shards, as WebDataset has them: pictures in plain tar files, not compressed."""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
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


def find_in_tars(
    files: Sequence[Path], base: Path, extension: str, size: int, complain: Complain
) -> Iterator[Group]:
    """The pictures of shards, `size` of one shard at a time; only headers are read.

    With an `extension`, such as `jpg` or `left.png`, only members that have it after the first
    dot of their name, as WebDataset counts. A shard's damaged rest is complained of.
    """
    for file in files:
        label = file.relative_to(base).as_posix()
        found: list[Found] = []
        try:
            with tarfile.open(file, "r:", errors="backslashreplace") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined] # it would keep all of them
                    if not member.isreg() or member.sparse or not wanted(member.name, extension):
                        continue
                    name = member.name.removeprefix("./")
                    stem = f"{label.removesuffix('.tar')}/{without_ending(name)}"
                    place = member.offset_data, member.size
                    found.append(Found(f"{label}/{name}", stem, place))
                    if len(found) == size:
                        yield Group(str(file), found)
                        found = []
        except (OSError, tarfile.TarError) as error:
            complain(f"{file}: {error.strerror if isinstance(error, OSError) else error}")
        if found:
            yield Group(str(file), found)


def wanted(member: str, extension: str) -> bool:
    if not extension:
        return is_picture(member)
    return member.rpartition("/")[2].partition(".")[2] == extension


def read_tar(file: str, places: Sequence[Place], max_bytes: int) -> Iterator[Content]:
    """The content of members of the shard `file`."""
    try:
        tar = Path(file).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        yield from [error] * len(places)
        return
    with tar:
        for place in places:
            offset, size = cast(tuple[int, int], place)
            if size > max_bytes:
                yield too_large(max_bytes)
                continue
            try:
                tar.seek(offset)
                content = tar.read(size)
            except OSError as error:
                yield error
            else:
                yield content if len(content) == size else OSError(0, "the shard ends before")


class TarWriter:
    """Writes a shard: each picture and, where there is a distance, beside it a .json with it."""

    def __init__(self, staged: Path) -> None:
        self.file = staged.open("wb")
        self.tar = tarfile.open(fileobj=self.file, mode="w")  # noqa: SIM115 - closed in close()

    def add(self, written: Written, content: bytes) -> None:
        self.add_member(written.name, content)
        if written.f_distance is not None:
            told = json.dumps({"key": written.key, "f_distance": written.f_distance})
            self.add_member(without_ending(written.name) + ".json", told.encode())

    def add_member(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self.tar.addfile(member, BytesIO(content))

    def close(self) -> None:
        """On the disk when it returns."""
        self.tar.close()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
