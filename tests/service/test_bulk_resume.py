"""Bulk work that is killed, started again, or started twice."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from service.bulk.chunks import BulkError, Chunk, Done, Job, Kind
from service.bulk.draw import Drawer
from service.bulk.folder import find_in_folder
from service.bulk.ledger import Ledger, staging_in
from service.bulk.local import draw_local
from tests.service.bulk_inputs import lines, outputs, picture, write_folder

PICTURES = 300
KINDS: list[Kind] = ["folder", "tar", "parquet"]
BAD = {"bad.png", "worse.png"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 good pictures and two bad ones, in folders."""
    pictures = {f"{i % 7}/{i}.png": picture(i) for i in range(PICTURES)}
    bad = dict.fromkeys(BAD, b"no picture")
    return write_folder(tmp_path_factory.mktemp("bulk") / "in", pictures | bad)


def complete(out: Path) -> bool:
    """Whether each picture is there once, and nothing else."""
    if sorted(outputs(out)) != sorted(f"{i % 7}/{i}.png" for i in range(PICTURES)):
        return False
    assert sum(line["pictures"] for line in lines(out, "manifest")) == PICTURES
    assert sorted(line["key"] for line in lines(out, "rejects")) == sorted(BAD)
    known = {"bulk.db", "manifest.jsonl", "rejects.jsonl"}
    endings = {path.suffix for path in out.rglob("*") if path.is_file() and path.name not in known}
    assert len(endings) == 1
    return True


# A command that is killed


@pytest.fixture
def start(
    given: Path, models_dir: Path, tmp_path: Path
) -> Iterator[Callable[[Kind], subprocess.Popen[str]]]:
    """Starts dtn bulk to tmp_path/out, four pictures at a time."""
    started: list[subprocess.Popen[str]] = []

    def start(target: Kind) -> subprocess.Popen[str]:
        program = "from service.cli import main; main()"
        options = ["--to", target, "--chunk", "4", "--workers", "2", "--json"]
        process = subprocess.Popen(
            [sys.executable, "-c", program, "bulk", given, tmp_path / "out", *options],
            env=os.environ | {"DTN_MODELS": str(models_dir)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_lines(file: Path, count: int) -> None:
    for _ in range(6000):
        if file.exists() and file.read_text().count("\n") >= count:
            return
        time.sleep(0.01)
    pytest.fail("nothing was committed within a minute")


@pytest.mark.parametrize("target", KINDS)
def test_killed_and_started_again_every_picture_is_there_once(
    start: Callable[[Kind], subprocess.Popen[str]], tmp_path: Path, target: Kind
) -> None:
    out = tmp_path / "out"
    for commits in (3, 20):
        process = start(target)
        wait_for_lines(out / "manifest.jsonl", commits)
        process.kill()
        process.wait()
    before = sum(line["pictures"] for line in lines(out, "manifest")[:19])  # 20 may not count
    assert not complete_or_fails(out)
    process = start(target)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    summary = json.loads(output)
    assert summary["drawn_in_all"] == PICTURES
    assert 0 < summary["drawn"] <= PICTURES - before
    assert complete(out)


def complete_or_fails(out: Path) -> bool:
    try:
        return complete(out)
    except AssertionError:
        return False


def test_workers_end_with_who_gave_them_work(
    start: Callable[[Kind], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start("tar")
    wait_for_lines(tmp_path / "out" / "manifest.jsonl", 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("the system does not list a process's children")
    workers = [int(child) for child in children.read_text().split()]
    assert len(workers) >= 2
    process.kill()
    process.wait()
    for _ in range(6000):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            return
        time.sleep(0.01)
    pytest.fail("workers are left after a minute")


def test_two_runs_at_once_are_refused(
    start: Callable[[Kind], subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = start("tar")
    wait_for_lines(tmp_path / "out" / "manifest.jsonl", 1)
    first.send_signal(signal.SIGSTOP)  # it would else be done too soon
    second = start("tar")
    _, errors = second.communicate(timeout=300)
    assert second.returncode == 2
    assert errors == f"Error: {tmp_path / 'out'} is in use by another run\n"
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 0, errors
    assert complete(tmp_path / "out")


# Every moment at which it may be killed


@pytest.fixture
def open_run(given: Path, models_dir: Path, tmp_path: Path) -> Callable[..., tuple[Ledger, Job]]:
    def open_run(target: Kind) -> tuple[Ledger, Job]:
        out = tmp_path / "out"
        job = Job(
            model=models_dir / "digits",
            device="cpu",
            threads=1,
            picture_format="png",
            size=256,
            distance=False,
            max_bytes=10_000,
            max_pixels=10_000,
            source="folder",
            column="",
            target=target,
            staging=staging_in(out),
        )
        return Ledger(out, target, {"model": "digits@1"}, job.staging), job

    return open_run


def planned(ledger: Ledger, given: Path, size: int = 50) -> Iterator[Chunk]:
    return ledger.plan(find_in_folder(given, size, pytest.fail), ".png", None)


def draw_here(chunks: Iterator[Chunk], job: Job) -> Iterator[Done]:
    drawer = Drawer(job)
    for chunk in chunks:
        yield drawer(chunk, job.staging / f"{chunk.number}-here")


class Killed(Exception):  # noqa: N818 - it is no error
    """Stands for kill -9: what comes after it does not happen."""


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("moment", ["drawn", "half published", "published", "taken down"])
def test_at_no_moment_is_a_picture_lost_or_doubled(
    given: Path,
    open_run: Callable[[Kind], tuple[Ledger, Job]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: Kind,
    moment: str,
) -> None:
    ledger, job = open_run(target)
    drawn = draw_here(planned(ledger, given), job)
    ledger.commit(next(drawn))
    ledger.commit(next(drawn))
    moves = count()

    def move_some(path: Path, to: Path) -> None:
        if next(moves) == 20 or target != "folder":
            raise Killed
        path.rename(to)

    @contextmanager
    def begin(then: bool) -> Iterator[None]:
        if then:
            ledger.database.execute("BEGIN")
            yield
        raise Killed

    done = next(drawn)
    with monkeypatch.context() as patch:
        if moment == "half published":
            patch.setattr(Path, "replace", move_some)
        else:
            patch.setattr(ledger, "transaction", partial(begin, moment == "taken down"))
        if moment != "drawn":
            with pytest.raises(Killed):
                ledger.commit(done)
    ledger.database.close()  # what the system does for a process that is killed

    ledger, job = open_run(target)
    with closing(ledger):
        for done in draw_here(planned(ledger, given, size=64), job):
            ledger.commit(done)
        assert ledger.totals() == (PICTURES, len(BAD))
    assert complete(tmp_path / "out")


def test_a_chunk_published_twice_under_other_names_is_there_once(
    open_run: Callable[[Kind], tuple[Ledger, Job]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order in which a folder lists its files, and so who gets a name first, may change."""
    first = write_folder(tmp_path / "first", {"1.jpg": picture(1)})
    both = write_folder(tmp_path / "both", {"1.jpg": picture(1), "1.gif": picture(2)})
    ledger, job = open_run("folder")
    ledger.names.add("1.png")  # of 1.gif, found before, in a chunk that is never committed
    (done,) = draw_here(planned(ledger, first), job)
    assert [each.name for each in done.written] == ["1.jpg.png"]
    ledger.publish(done)
    ledger.database.close()

    ledger, job = open_run("folder")
    with closing(ledger):
        for name in ("1.jpg", "1.gif"):
            only = write_folder(tmp_path / name, {name: (both / name).read_bytes()})
            for done in draw_here(planned(ledger, only), job):
                ledger.commit(done)
    assert sorted(outputs(tmp_path / "out")) == ["1.gif.png", "1.png"]


# Pictures that come later, workers that die


def test_pictures_that_were_added_are_drawn_and_no_others(
    open_run: Callable[[Kind], tuple[Ledger, Job]], tmp_path: Path
) -> None:
    given = write_folder(tmp_path / "in", {f"{i}.png": picture(i) for i in range(0, 20, 2)})
    for expected in (10, 20):
        ledger, job = open_run("tar")
        with closing(ledger):
            found = list(draw_here(planned(ledger, given, size=6), job))
            for done in found:
                ledger.commit(done)
        assert sum(len(done.written) for done in found) == 10
        assert len(outputs(tmp_path / "out")) == expected
        write_folder(given, {f"{i}.png": picture(i) for i in range(1, 20, 2)})


def test_the_work_of_a_worker_that_dies_is_done_by_another(
    given: Path, open_run: Callable[[Kind], tuple[Ledger, Job]], tmp_path: Path
) -> None:
    ledger, job = open_run("tar")
    with closing(ledger):
        for number, done in enumerate(draw_local(planned(ledger, given), job, 2)):
            ledger.commit(done)
            if number == 1:
                for worker in multiprocessing.active_children():
                    worker.kill()
    assert complete(tmp_path / "out")


def test_pictures_of_which_workers_die_end_the_run(
    given: Path, open_run: Callable[[Kind], tuple[Ledger, Job]]
) -> None:
    ledger, job = open_run("tar")
    over = threading.Event()

    def kill_all() -> None:
        while not over.wait(0.01):
            for worker in multiprocessing.active_children():
                worker.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with closing(ledger), pytest.raises(BulkError, match=r"workers died \(exit code -9\)"):
            list(draw_local(planned(ledger, given), job, 2))
    finally:
        over.set()
        killer.join()
    assert not multiprocessing.active_children()


def test_an_out_that_cannot_be_written_to_ends_the_run(
    given: Path, open_run: Callable[[Kind], tuple[Ledger, Job]], tmp_path: Path
) -> None:
    ledger, job = open_run("tar")
    (job.staging).rmdir()
    with closing(ledger), pytest.raises(BulkError, match="No such file"):
        list(draw_local(planned(ledger, given), job, 1))
