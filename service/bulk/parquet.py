"""Bulk work's Parquet files: pictures as a column of bytes. Needs the extra `bulk`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from service.bulk.chunks import (
    BulkError,
    Complain,
    Content,
    Found,
    Group,
    Place,
    Written,
    too_large,
)
from service.problems import Problem

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("f_distance", pa.float64()),
    ]
)
BUFFER = 1 << 20  # bytes read at once, and bytes of pictures that are written at once


def find_in_parquet(
    files: Sequence[Path], base: Path, column: str, size: int, complain: Complain
) -> Iterator[Group]:
    """The rows of files, up to `size` of one row group at a time; only the footers are read.

    Raises BulkError where a file has no such column of bytes.
    """
    for file in files:
        label = file.relative_to(base).as_posix()
        try:
            with pq.ParquetFile(file) as parquet:
                check_column(parquet.schema_arrow, column, file)
                counts = [
                    parquet.metadata.row_group(group).num_rows
                    for group in range(parquet.metadata.num_row_groups)
                ]
        except (OSError, pa.ArrowException) as error:
            complain(f"{file}: {first_line(error)}")
            continue
        row = 0
        for group, count in enumerate(counts):
            for start in range(0, count, size):
                found = []
                for place in range(start, min(start + size, count)):
                    key = f"{label}/{row + place}"
                    stem = f"{label.removesuffix('.parquet')}/{row + place}"
                    found.append(Found(key, stem, (group, place)))
                yield Group(str(file), found)
            row += count


def check_column(schema: Any, column: str, file: Path) -> None:
    """Raises BulkError where it is not of bytes, or of structs that have `bytes`."""
    if column not in schema.names:
        names = ", ".join(schema.names)
        raise BulkError(f"{file} has no column {column!r}; --column one of: {names}")
    kind = schema.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not pa.types.is_binary(kind) and not pa.types.is_large_binary(kind):
        raise BulkError(f"{file}: the column {column!r} is {kind}, not bytes")


class ParquetReader:
    """Reads rows. It goes on where it stopped: a row cannot be reached but past those before."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.at: tuple[str, int] | None = None  # the file and row group that are open
        self.next = 0  # the row that comes next in it
        self.rows: Iterator[Any] = iter(())

    def read(self, file: str, places: Sequence[Place], max_bytes: int) -> Iterator[Content]:
        """The content of rows of one file."""
        for place in places:
            group, row = cast(tuple[int, int], place)
            try:
                value = self.row(file, group, row)
            except (OSError, pa.ArrowException, StopIteration) as error:
                self.at = None
                yield OSError(0, first_line(error))
                continue
            content = value.get("bytes") if isinstance(value, dict) else value
            if content is None:
                yield Problem("not_an_image", "the row has no picture")
            else:
                yield content if len(content) <= max_bytes else too_large(max_bytes)

    def row(self, file: str, group: int, row: int) -> Any:
        if self.at != (file, group) or row < self.next:
            parquet = pq.ParquetFile(file, buffer_size=BUFFER)
            batches = parquet.iter_batches(
                64, row_groups=[group], columns=[self.column], use_threads=False
            )
            self.rows = (value for batch in batches for value in batch.column(0))
            self.at, self.next = (file, group), 0
        while self.next < row:
            next(self.rows)
            self.next += 1
        self.next += 1
        return next(self.rows).as_py()


class ParquetWriter:
    """Writes a file with a row for each picture."""

    def __init__(self, staged: Path) -> None:
        self.file = staged.open("wb")
        # Pictures are compressed already.
        self.parquet = pq.ParquetWriter(self.file, SCHEMA, compression="none")
        self.rows: list[tuple[str, str, bytes, float | None]] = []
        self.bytes = 0

    def add(self, written: Written, content: bytes) -> None:
        self.rows.append((written.key, written.name, content, written.f_distance))
        self.bytes += len(content)
        if self.bytes > 16 * BUFFER:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*self.rows, strict=True), SCHEMA, strict=True)
            ]
            self.parquet.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
            self.rows, self.bytes = [], 0

    def close(self) -> None:
        """On the disk when it returns."""
        self.flush()
        self.parquet.close()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()


def first_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or "the row group ends here"
    return str(text).partition("\n")[0]
