"""What IN is: a folder of pictures, tar shards, or Parquet files."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from service.bulk.chunks import BulkError, Complain, Group, Kind
from service.bulk.folder import find_in_folder
from service.bulk.tar import find_in_tars

MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Source:
    """IN, and what finds its pictures: so many at a time, and complains of what it cannot read."""

    kind: Kind
    groups: Callable[[int, Complain], Iterator[Group]]
    column: str = ""


def open_source(given: str, kind: Kind | None, column: str | None, out: Path) -> Source:
    """IN as it was given: a folder, a file, or a pattern such as `shards/*.tar`.

    Unless its kind is said it is what lies in it. Keys begin below the folder, or the part of
    the pattern before the first `*`. Raises BulkError where there is no such thing, or where
    OUT would be read as if it were IN.
    """
    base, files = look(given)
    kind = kind or kind_of(base, files)
    if kind == "folder" and files is not None:
        raise BulkError(f"{given} is no folder")
    inside = [base] if files is None else files
    if any(each.resolve().is_relative_to(out.resolve()) for each in inside):
        raise BulkError(f"{given} lies in {out}")
    if files is None and out.resolve().is_relative_to(base.resolve()):
        raise BulkError(f"{out} lies in {given}: its pictures would be drawn again")
    if kind == "folder":
        return Source(kind, partial(find_in_folder, base))
    files = sorted(base.rglob(f"*.{kind}")) if files is None else files
    if not files:
        raise BulkError(f"{given} has no file *.{kind}")
    if kind == "tar":
        return Source(kind, partial(find_in_tars, files, base, column or ""))
    require_extra("pyarrow")
    from service.bulk.parquet import find_in_parquet  # noqa: PLC0415 - of the extra `bulk`

    column = column or "image"
    return Source(kind, partial(find_in_parquet, files, base, column), column)


def require_extra(module: str) -> None:
    """Raises BulkError where a module of the extra `bulk` is not installed."""
    if find_spec(module) is None:
        raise BulkError(f'{module} is not installed; pip install "dtn[bulk]"')


def look(given: str) -> tuple[Path, list[Path] | None]:
    """The folder that IN is or lies in, and its files, None where it is the folder itself.

    Raises BulkError where there is nothing.
    """
    path = Path(given)
    if path.is_dir():
        return path, None
    if path.exists():
        return path.parent, [path]
    base = next(part for part in path.parents if not MAGIC.search(str(part)))
    files = sorted(base.glob(str(path.relative_to(base)))) if MAGIC.search(given) else []
    if not files:
        raise BulkError(f"{given}: there is no such file or folder")
    return base, files


def kind_of(base: Path, files: list[Path] | None) -> Kind:
    """What IN holds: shards, if there is one. Raises BulkError for files that are none."""
    kinds: tuple[Kind, Kind] = ("tar", "parquet")
    for kind in kinds:
        if files is None and next(base.glob(f"*.{kind}"), None):
            return kind
        if files is not None and all(file.suffix == f".{kind}" for file in files):
            return kind
    if files is None:
        return "folder"
    raise BulkError(f"{files[0]}: a folder, *.tar or *.parquet is wanted")
