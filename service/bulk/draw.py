"""A chunk's way: bytes -> pixels -> G -> pixels -> bytes, in a worker that has a model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service.bulk.chunks import (
    BulkError,
    Chunk,
    Content,
    Done,
    Failed,
    Item,
    Job,
    Kind,
    Read,
    Rejected,
    Writer,
    Written,
)
from service.bulk.folder import FolderWriter, read_folder
from service.bulk.tar import TarWriter, read_tar
from service.emoji import draw_emoji, finish
from service.models import Model
from service.pictures import Pixels, decode, encode
from service.problems import Problem
from service.transfer import LONG_SIDE

MOST_WAITING = 64 << 20  # bytes of decoded pictures that wait for others of their shape

Drawn = tuple[Item, bytes, float | None]
Shape = tuple[int, ...]


class Drawer:
    """One worker: a model's sessions, and what opens its files. Raises ModelError."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.model = Model(job.model, job.device, job.threads)
        self.model.warm_up()
        self.read = reader(job.source, job.column)

    def __call__(self, chunk: Chunk, staged: Path) -> Done:
        """Draw a chunk's pictures into the new file or folder `staged`.

        Raises BulkError where that cannot be written.
        """
        done = Done(chunk.number, str(staged))
        try:
            writer = open_writer(self.job.target, staged)
            for item, content, f_distance in self.draw(chunk, done):
                written = Written(item.key, item.name, f_distance)
                writer.add(written, content)
                done.written.append(written)
            writer.close()
        except OSError as error:
            raise BulkError(f"{error.filename or staged}: {error.strerror}") from error
        return done

    def draw(self, chunk: Chunk, done: Done) -> Iterator[Drawn]:
        """The pictures that can be drawn; the others go to `done`."""
        places = [item.place for item in chunk.items]
        contents = self.read(chunk.file, places, self.job.max_bytes)
        good = self.good(zip(chunk.items, contents, strict=True), done)
        one_by_one = self.model.manifest.alignment is not None
        return self.draw_faces(good, done) if one_by_one else self.draw_pictures(good, done)

    def good(
        self, contents: Iterator[tuple[Item, Content]], done: Done
    ) -> Iterator[tuple[Item, bytes]]:
        """What could be read and has a name."""
        for item, content in contents:
            if not item.name:
                problem = Problem("invalid_parameter", "no file in OUT can have its name")
                reject(item, problem, done)
            elif isinstance(content, Problem):
                reject(item, content, done)
            elif isinstance(content, OSError):
                done.failed.append(Failed(item.key, content.strerror or str(content)))
            else:
                yield item, content

    def draw_faces(self, good: Iterator[tuple[Item, bytes]], done: Done) -> Iterator[Drawn]:
        """The largest face of each photo as an emoji."""
        job = self.job
        for item, content in good:
            try:
                emoji = draw_emoji(content, self.model, max_pixels=job.max_pixels)
                result = finish(emoji.y, emoji.f_distance, self.model, job.size, job.picture_format)
            except Problem as problem:
                reject(item, problem, done)
            else:
                yield item, result.content, emoji.f_distance

    def draw_pictures(self, good: Iterator[tuple[Item, bytes]], done: Done) -> Iterator[Drawn]:
        """G of whole pictures, those of one shape in one run."""
        waiting: dict[Shape, list[tuple[Item, Pixels]]] = {}
        held = 0
        for item, content in good:
            try:
                x = decode(content, self.job.max_pixels, LONG_SIDE)
            except Problem as problem:
                reject(item, problem, done)
                continue
            waiting.setdefault(x.shape, []).append((item, x))
            held += x.nbytes
            if len(waiting[x.shape]) >= self.model.most:
                batch = waiting.pop(x.shape)
                held -= sum(each.nbytes for _, each in batch)
                yield from self.run(batch, done)
            elif held > MOST_WAITING:
                for batch in waiting.values():
                    yield from self.run(batch, done)
                waiting, held = {}, 0
        for batch in waiting.values():
            yield from self.run(batch, done)

    def run(self, batch: list[tuple[Item, Pixels]], done: Done) -> Iterator[Drawn]:
        """One run of the model; where it fails its pictures are tried one by one."""
        try:
            ys, distances = self.model.run(np.stack([x for _, x in batch]), self.job.distance)
        except Exception as error:  # onnxruntime's exceptions share no base class
            if len(batch) > 1:
                for alone in batch:
                    yield from self.run([alone], done)
            else:
                item, x = batch[0]
                reject(item, self.model.blame(x, error), done)
            return
        for (item, _), y, f_distance in zip(batch, ys, distances, strict=True):
            yield item, encode(y, self.job.picture_format), f_distance


def reject(item: Item, problem: Problem, done: Done) -> None:
    done.rejected.append(Rejected(item.key, problem.code, problem.detail))


def reader(source: Kind, column: str) -> Read:
    """What reads the pictures of one kind of IN."""
    if source == "folder":
        return read_folder
    if source == "tar":
        return read_tar
    from service.bulk.parquet import ParquetReader  # noqa: PLC0415 - of the extra `bulk`

    return ParquetReader(column).read


def open_writer(target: Kind, staged: Path) -> Writer:
    """What writes the pictures of one kind of OUT."""
    if target == "folder":
        return FolderWriter(staged)
    if target == "tar":
        return TarWriter(staged)
    from service.bulk.parquet import ParquetWriter  # noqa: PLC0415 - of the extra `bulk`

    return ParquetWriter(staged)


def staging_name(chunk: Chunk, attempt: str) -> str:
    """The name of a chunk's file until it is published; each attempt has its own."""
    return f"{chunk.number}-{attempt}"
