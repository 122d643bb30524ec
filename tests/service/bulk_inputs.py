"""Pictures to carry over, of every kind, and what came of them."""

import json
import tarfile
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.pictures import encode


def picture(number: int, side: int = 8) -> bytes:
    """A PNG of one grey that tells its number, up to 255."""
    return encode(np.full((side, side, 3), number % 256, np.uint8), "png")


def write_folder(folder: Path, pictures: Mapping[str, bytes]) -> Path:
    for name, content in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(file: Path, members: Mapping[str, bytes]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return file


def write_parquet(file: Path, rows: list[bytes | None], group: int = 1000, **more: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": rows} | more), file, row_group_size=group)
    return file


def outputs(out: Path) -> dict[str, bytes]:
    """Every picture in OUT by its name. Fails where one is there twice."""
    found: list[tuple[str, bytes]] = []
    for path in sorted(out.rglob("*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    assert file is not None
                    found.append((member.name, file.read()))
        elif path.suffix == ".parquet":
            for row in pq.read_table(path).to_pylist():
                found.append((row["name"], row["image"]))
        elif path.suffix in (".png", ".webp", ".jpeg"):
            found.append((path.relative_to(out).as_posix(), path.read_bytes()))
    twice = [name for name, times in Counter(name for name, _ in found).items() if times > 1]
    assert not twice
    return dict(found)


def lines(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
