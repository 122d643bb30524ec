"""Scratch roots that stand in for images: Debian by debootstrap, a Python copied into it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
# What the official Python images have beside Debian's least: libraries that Python is linked to.
PACKAGES = (
    *("ca-certificates", "netbase", "tzdata", "libbz2-1.0", "libffi8", "liblzma5"),
    *("libncursesw6", "libreadline8", "libsqlite3-0", "libssl3", "libuuid1", "zlib1g"),
    *("libexpat1", "libgdbm6", "libcrypt1", "libnsl2", "libtirpc3"),
)
# What Debian's slim images leave out of Debian.
NOT_SLIM = (
    *("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/groff"),
    *("usr/share/lintian", "var/lib/apt/lists", "var/cache/apt", "var/cache/debconf", "var/log"),
)
# And what the official Python images leave out of Python.
NOT_OFFICIAL = ("test", "tests", "idlelib", "__pycache__")
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_base(folder: Path) -> None:
    """A root like python:3.X-slim-bookworm, with the Python 3.X that runs this.

    That Python must have a folder of its own, as pyenv's, uv's or one below /usr/local have.
    """
    prefix = Path(sys.base_prefix)
    if prefix == Path("/usr"):
        raise SystemExit("run this with a Python that has a folder of its own, not the system's")
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase"]
    command += [f"--include={','.join(PACKAGES)}", SUITE, str(folder), MIRROR]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name in NOT_SLIM:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    inside = folder / prefix.relative_to("/")
    shutil.copytree(prefix, inside, symlinks=True, ignore=left_out)
    for parent in inside.relative_to(folder).parents:
        (folder / parent).chmod(0o755)
    for name in ("python", "python3", "pip"):
        (folder / "usr/local/bin" / name).symlink_to(prefix / "bin" / name)


def left_out(folder: str, names: list[str]) -> list[str]:
    """Of the names in a Python's folder those that the official images do not have."""
    if Path(folder).name == "site-packages":
        return [name for name in names if not name.startswith("pip")]
    return [name for name in names if name in NOT_OFFICIAL or name.endswith(".a")]


def copy_root(source: Path, target: Path) -> None:
    """A root of its own with the same files, owners and modes."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def size(folder: Path) -> int:
    """Bytes of all regular files, each once however many names it has."""
    seen: dict[int, int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            status = (Path(parent) / name).lstat()
            if not (Path(parent) / name).is_symlink():
                seen[status.st_ino] = status.st_size
    return sum(seen.values())


def in_root(root: Path, words: list[str], user: str = "0:0", workdir: str = "/") -> list[str]:
    """The command that runs `words` in a root whose /proc is there, as a user without rights."""
    enter = 'cd "$1" && shift && exec "$@"'
    inside = ["/bin/sh", "-euc", enter, "sh", workdir, *words]
    return ["chroot", f"--userspec={user}", str(root), *inside]
