import io
import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from service.bulk import sources as bulk_sources
from service.cli import main
from tests.service.bulk_inputs import (
    lines,
    outputs,
    picture,
    write_folder,
    write_parquet,
    write_tar,
)
from tests.service.dummy import encoded
from tests.service.dummy_faces import photo_of

Bulk = Callable[..., Result]


@pytest.fixture
def bulk(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Bulk:
    """dtn bulk with one worker. Paths and numbers may be given as they are."""
    monkeypatch.setenv("DTN_MODELS", str(models_dir))
    monkeypatch.setenv("DTN_WORKERS", "1")
    return lambda *arguments: CliRunner().invoke(main, ["bulk", *map(str, arguments)])


def summed(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    return json.loads(result.output.splitlines()[-1])


def grey(content: bytes) -> int:
    return int(np.asarray(Image.open(io.BytesIO(content)))[0, 0])


# What comes in, what goes out


def test_a_folder_becomes_a_folder(bulk: Bulk, tmp_path: Path) -> None:
    pictures = {f"{i % 3}/{i}.png": picture(i) for i in range(20)}
    given = write_folder(tmp_path / "in", {**pictures, "notes.txt": b"x", ".hidden/1.png": b"x"})
    result = bulk(given, tmp_path / "out", "--chunk", 7, "--json")
    summary = summed(result)
    assert (summary["model"], summary["drawn"], summary["rejected"]) == ("digits@1", 20, 0)
    drawn = outputs(tmp_path / "out")
    assert {name: grey(content) for name, content in drawn.items()} == {
        f"{i % 3}/{i}.png": i for i in range(20)
    }
    assert [line["pictures"] for line in lines(tmp_path / "out", "manifest")] == [7, 7, 6]


def test_tar_shards_become_tar_shards(bulk: Bulk, tmp_path: Path) -> None:
    for shard in range(2):
        members = {
            f"{i}.{end}": picture(shard * 10 + i) for i in range(3) for end in ("png", "cls")
        }
        write_tar(tmp_path / "in" / f"s-{shard}.tar", members)
    summed(bulk(tmp_path / "in", tmp_path / "out", "--json"))
    assert {name: grey(content) for name, content in outputs(tmp_path / "out").items()} == {
        f"s-{shard}/{i}.png": shard * 10 + i for shard in range(2) for i in range(3)
    }
    assert lines(tmp_path / "out", "manifest") == [
        {"file": f"00000{shard}.tar", "pictures": 3, "rejected": 0} for shard in range(2)
    ]


def test_parquet_becomes_parquet(bulk: Bulk, tmp_path: Path) -> None:
    rows = [picture(i) for i in range(9)]
    write_parquet(tmp_path / "in" / "p.parquet", [*rows, None], group=4)
    result = bulk(tmp_path / "in", tmp_path / "out", "--chunk", 3, "--distance", "--json")
    assert summed(result)["rejected"] == 1
    found = [
        row
        for file in sorted((tmp_path / "out").glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    assert sorted(row["key"] for row in found) == [f"p.parquet/{i}" for i in range(9)]
    for row in found:
        number = int(row["key"].rpartition("/")[2])
        assert row["name"] == f"p/{number}.png"
        assert grey(row["image"]) == number
        assert row["f_distance"] == pytest.approx(number / 255)


def test_pictures_as_the_datasets_library_keeps_them_are_found(bulk: Bulk, tmp_path: Path) -> None:
    table = pa.table({"photo": [{"bytes": picture(5), "path": "a.png"}], "label": [1]})
    pq.write_table(table, tmp_path / "in.parquet")
    result = bulk(tmp_path / "in.parquet", tmp_path / "out", "--column", "photo", "--to", "folder")
    assert result.exit_code == 0, result.output
    assert list(outputs(tmp_path / "out")) == ["in/0.png"]


@pytest.mark.parametrize("target", ["folder", "tar", "parquet"])
@pytest.mark.parametrize("ending", ["png", "webp", "jpeg"])
def test_every_kind_and_format_is_written(
    bulk: Bulk, tmp_path: Path, target: str, ending: str
) -> None:
    given = write_folder(tmp_path / "in", {"a.b.png": picture(100)})
    result = bulk(given, tmp_path / "out", "--to", target, "--format", ending)
    assert result.exit_code == 0, result.output
    ((name, content),) = outputs(tmp_path / "out").items()
    assert name == f"a.b.{ending}"
    assert (Image.open(io.BytesIO(content)).format or "").lower() == ending
    assert result.output.startswith("digits@1: 1 drawn, 0 rejected, 0 unreadable in ")


def test_distances_go_beside_the_pictures_of_a_shard(bulk: Bulk, tmp_path: Path) -> None:
    given = write_folder(tmp_path / "in", {"a.png": picture(51)})
    assert bulk(given, tmp_path / "out", "--to", "tar", "--distance").exit_code == 0
    told = json.loads(outputs(tmp_path / "out")["a.json"])
    assert told == {"key": "a.png", "f_distance": pytest.approx(0.2)}


def test_pictures_of_all_sizes_are_drawn_together(bulk: Bulk, tmp_path: Path) -> None:
    sizes = {f"{i}.png": picture(i, side=1 + i % 5) for i in range(60)}
    assert bulk(write_folder(tmp_path / "in", sizes), tmp_path / "out").exit_code == 0
    drawn = outputs(tmp_path / "out")
    assert {int(Path(name).stem): grey(content) for name, content in drawn.items()} == {
        i: i for i in range(60)
    }


def test_faces_become_emojis(bulk: Bulk, tmp_path: Path) -> None:
    photos = {
        "a.png": encoded(photo_of((50, 50, 90, "red"))),
        "b.png": encoded(photo_of()),
    }
    given = write_folder(tmp_path / "in", photos)
    result = bulk(given, tmp_path / "out", "--model", "emoji", "--size", 128, "--to", "parquet")
    assert result.exit_code == 0, result.output
    (row,) = pq.read_table(tmp_path / "out" / "000000.parquet").to_pylist()
    assert Image.open(io.BytesIO(row["image"])).size == (128, 128)
    assert 0 < row["f_distance"] < 1
    assert [(each["key"], each["code"]) for each in lines(tmp_path / "out", "rejects")] == [
        ("b.png", "no_face")
    ]


def test_a_pattern_picks_shards_and_an_ending_their_members(bulk: Bulk, tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a"):
        members = {"1.left.png": picture(1), "1.right.png": picture(2)}
        write_tar(tmp_path / "in" / f"{name}.tar", members)
    pattern = tmp_path / "in" / "tr*" / "*.tar"
    result = bulk(pattern, tmp_path / "out", "--column", "left.png", "--to", "folder")
    assert result.exit_code == 0, result.output
    assert sorted(outputs(tmp_path / "out")) == ["train/a/1.left.png", "train/b/1.left.png"]


def test_no_two_pictures_get_the_same_name(bulk: Bulk, tmp_path: Path) -> None:
    names = ["1.png", "1.jpg", "1.bmp", "1.jpg.png", "1.gif", "b/1.gif"]
    given = write_folder(tmp_path / "in", {name: picture(i) for i, name in enumerate(names)})
    assert bulk(given, tmp_path / "out", "--chunk", 2).exit_code == 0
    drawn = outputs(tmp_path / "out")
    assert sorted(map(grey, drawn.values())) == list(range(6))
    assert {"1.png", "b/1.png"} < set(drawn)


def test_names_that_are_not_utf_8_are_written_down_and_read(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(1))
    assert bulk(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert len(outputs(tmp_path / "out")) == 1


# Bad pictures


def test_bad_pictures_are_listed_and_the_others_drawn(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTN_MAX_BYTES", "5000")
    monkeypatch.setenv("DTN_MAX_PIXELS", "1000")
    bad = {
        "text.png": b"no picture",
        "half.png": picture(1)[:-30],
        "bytes.png": picture(1) + bytes(6000),
        "pixels.png": picture(1, side=100),
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    codes = {
        "text.png": "not_an_image",
        "half.png": "not_an_image",
        "bytes.png": "too_large",
        "pixels.png": "too_large",
        "vector.png": "unsupported_format",
    }
    good = {f"{i}.png": picture(i) for i in range(3)}
    given = write_folder(tmp_path / "in", bad | good)
    for target in ("folder", "tar", "parquet"):
        out = tmp_path / target
        summary = summed(bulk(given, out, "--to", target, "--json"))
        assert (summary["drawn"], summary["rejected"]) == (3, 5)
        rejects = lines(out, "rejects")
        assert {each["key"]: each["code"] for each in rejects} == codes
        assert all(each["detail"] for each in rejects)
        assert sorted(outputs(out)) == sorted(good)
        summary = summed(bulk(given, out, "--to", target, "--json"))
        assert (summary["drawn"], summary["rejected"], summary["rejected_in_all"]) == (0, 0, 5)
        assert lines(out, "rejects") == rejects


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "a//b.png"])
def test_names_that_lead_out_of_out_are_rejected(bulk: Bulk, tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "in.tar", {name: picture(1), "good.png": picture(2)})
    out = tmp_path / "deep" / "out"
    assert bulk(tmp_path / "in.tar", out, "--to", "folder").exit_code == 0
    assert list(outputs(out)) == ["in/good.png"]
    assert [each["code"] for each in lines(out, "rejects")] == ["invalid_parameter"]
    assert not list(tmp_path.rglob("evil*"))


def test_what_cannot_be_read_is_told_and_tried_again(bulk: Bulk, tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "in" / "a.tar", {f"{i}.png": picture(i) for i in range(5)})
    content = whole.read_bytes()
    (tmp_path / "in" / "b.tar").write_bytes(content[:3000])
    (tmp_path / "in" / "c.tar").write_bytes(b"no shard" * 100)
    result = bulk(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 2
    assert "b.tar" in result.output
    assert "c.tar" in result.output
    for name in ("b.tar", "c.tar"):
        (tmp_path / "in" / name).write_bytes(content)
    assert bulk(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert len(outputs(tmp_path / "out")) == 15


# Limits


def test_no_more_than_the_limit_is_looked_at(bulk: Bulk, tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", {f"{i}.png": picture(i) for i in range(9)})
    arguments = tmp_path / "in.tar", tmp_path / "out", "--chunk", 2, "--json", "--limit"
    assert summed(bulk(*arguments, 5))["drawn"] == 5
    assert summed(bulk(*arguments, 5))["drawn"] == 0
    assert summed(bulk(*arguments, 8))["drawn"] == 3
    assert sorted(outputs(tmp_path / "out")) == [f"in/{i}.png" for i in range(8)]


# What is refused


def test_an_out_begun_otherwise_is_refused(bulk: Bulk, tmp_path: Path) -> None:
    given = write_folder(tmp_path / "in", {"a.png": picture(1)})
    other = write_folder(tmp_path / "other", {"a.png": picture(2)})
    out = tmp_path / "out"
    assert bulk(given, out).exit_code == 0
    for arguments, what in (
        ((given, out, "--model", "plain"), "model digits@1, not plain@1"),
        ((given, out, "--format", "webp"), "format png, not webp"),
        ((given, out, "--to", "tar"), "OUT of kind folder, not tar"),
        ((given, out, "--distance"), "distance no, not yes"),
        ((other, out), f"IN {given}, not {other}"),
    ):
        result = bulk(*arguments)
        assert result.exit_code == 2
        assert result.output == f"Error: {out} was begun with {what}; take another OUT\n"
    assert list(outputs(out)) == ["a.png"]


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    return result.output.removeprefix("Error: ").strip()


def test_bad_arguments_are_refused_in_one_line(bulk: Bulk, tmp_path: Path) -> None:
    given = write_folder(tmp_path / "in", {"a.png": picture(1)})
    used = write_folder(tmp_path / "used", {"mine.txt": b"x"})
    write_folder(tmp_path / "empty", {"notes.txt": b"x"})
    write_parquet(tmp_path / "p" / "a.parquet", [picture(1)], label=[1])
    out = tmp_path / "out"
    assert "no such file" in refused(bulk(tmp_path / "none", out))
    assert "no such file" in refused(bulk(tmp_path / "*.tar", out))
    assert "neither empty nor" in refused(bulk(given, used))
    assert "drawn again" in refused(bulk(given, given / "out"))
    assert "lies in" in refused(bulk(given, tmp_path))
    assert "no pictures" in refused(bulk(tmp_path / "empty", out))
    assert "there is: digits, emoji, plain" in refused(bulk(given, out, "--model", "nosuch"))
    assert "no distance graph" in refused(bulk(given, out, "--model", "plain", "--distance"))
    assert "no file *.tar" in refused(bulk(given, out, "--from", "tar"))
    assert "is no folder" in refused(bulk(given / "a.png", out, "--from", "folder"))
    assert "is wanted" in refused(bulk(given / "a.png", out))
    assert "no column 'x'" in refused(bulk(tmp_path / "p", tmp_path / "o", "--column", "x"))
    assert "is int64" in refused(bulk(tmp_path / "p", tmp_path / "o", "--column", "label"))
    assert bulk(tmp_path / "p", tmp_path / "o").exit_code == 0  # what was refused left no trace
    assert (tmp_path / "used" / "mine.txt").read_bytes() == b"x"


def test_a_model_that_fails_in_the_workers_is_told(
    bulk: Bulk, tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(output={"name": "y", "dtype": "uint8", "shape": ["N", 9, 9, 1]})
    monkeypatch.setenv("DTN_MODELS", str(folder.parent))
    given = write_folder(tmp_path / "in", {"a.png": picture(1)})
    assert "warm-up" in refused(bulk(given, tmp_path / "out"))


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("pyarrow", ["--to", "parquet"]), ("ray", ["--engine", "ray"])],
)
def test_a_missing_extra_is_named(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, arguments: list[str]
) -> None:
    monkeypatch.setattr(
        bulk_sources, "find_spec", lambda name: None if name == module else find_spec(name)
    )
    given = write_folder(tmp_path / "in", {"a.png": picture(1)})
    told = refused(bulk(given, tmp_path / "out", *arguments))
    assert told == f'{module} is not installed; pip install "dtn[bulk]"'


def test_folders_and_shards_need_no_extra(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.parquet", "ray", "service.bulk.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    given = write_folder(tmp_path / "in", {"a.png": picture(1)})
    assert bulk(given, tmp_path / "out", "--to", "tar").exit_code == 0
