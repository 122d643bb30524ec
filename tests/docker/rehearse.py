"""Does by hand what `docker build` and `docker run` do with a Dockerfile, where there is no Docker.

    python3.12 -m tests.docker.rehearse docker/Dockerfile --into FOLDER

Run it as root with the Python that the images have, on a machine with debootstrap. Every COPY and
RUN of every stage is carried out in a scratch root of its own, the sizes of the files in the last
one are added up, and what it must not hold is looked for. With --serve its CMD is started as its
USER, with a root that cannot be written to, asked for its health, for a picture and for a person,
and stopped by its STOPSIGNAL. The official base image cannot be had without a registry of images:
Debian's own packages and the Python that runs this stand in for it.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docker.dockerfile import (
    Context,
    DockerfileError,
    Stage,
    expand,
    pairs,
    read_stages,
)
from tests.docker.roots import PATH, copy_root, in_root, make_base, size
from tests.docker.serve import serve, train

ROOT = Path(__file__).parent.parent.parent
# How this machine reaches its package index; nothing of it stays in an image.
PASSED = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
SHOWN = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "rustc", "nvcc")
MB = 1_000_000


class Rehearsal:
    """The roots of a Dockerfile's stages below a folder."""

    def __init__(self, folder: Path, shown: list[str], arguments: dict[str, str]) -> None:
        self.folder = folder
        self.shown = [path for path in (*SHOWN, *shown) if Path(path).exists()]
        self.arguments = arguments
        self.context = Context(ROOT)
        self.base = folder / "base"
        self.environments: dict[str, dict[str, str]] = {}
        if not self.base.exists():
            part = folder / "base.part"  # one that was interrupted is no base
            shutil.rmtree(part, ignore_errors=True)
            make_base(part)
            part.rename(self.base)

    def root(self, stage: str) -> Path:
        """Where the files of a stage are."""
        return self.folder / f"stage-{stage}"

    def build(self, stage: Stage) -> None:
        """Carry out all instructions of a stage."""
        root = self.root(stage.name)
        shutil.rmtree(root, ignore_errors=True)
        before = self.environments.get(stage.base)
        copy_root(self.base if before is None else self.root(stage.base), root)
        env = self.environments[stage.name] = dict(before or {"PATH": PATH})
        arguments: dict[str, str] = {}
        workdir, user = "/", "0:0"
        for each in stage.instructions:
            print(f"{stage.name}: {each.name} {each.text}", flush=True)
            text = expand(each.text, arguments | env) if each.name != "RUN" else each.text
            if each.name == "ARG":
                name, _, default = text.partition("=")
                arguments[name] = self.arguments.get(name, default)
            elif each.name == "ENV":
                env |= pairs(text)
            elif each.name == "WORKDIR":
                workdir = text
                (root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif each.name == "USER":
                user = text
            elif each.name == "COPY":
                self.copy(root, workdir, text.split())
            elif each.name == "RUN":
                self.run(root, text, arguments | env, user, workdir)

    def copy(self, root: Path, workdir: str, words: list[str]) -> None:
        """COPY [--from=STAGE] SOURCE... TARGET, of files or of a folder's files."""
        options = [word for word in words if word.startswith("--")]
        *sources, target = (word for word in words if not word.startswith("--"))
        to = root / (Path(workdir) / target).as_posix().lstrip("/")
        if options:
            (option,) = options
            other = self.root(option.removeprefix("--from="))
            for source in sources:
                copy_root(other / source.lstrip("/"), to)
            return
        for source in sources:
            single = (ROOT / source).is_file()
            for name in self.context.files(source):
                inside = Path(name.name) if single else name.relative_to(source)
                into = to / inside if not single or target.endswith("/") else to
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, into)

    def run(self, root: Path, text: str, env: dict[str, str], user: str, workdir: str) -> None:
        """RUN in shell form, in mounts that vanish with it."""
        passed = {k: v for k, v in os.environ.items() if k.startswith(PASSED)}
        lines = ["mount --make-rprivate /"]
        lines += [f"mount -t proc proc {shlex.quote(str(root / 'proc'))}"]
        lines += [f"mount --bind /dev {shlex.quote(str(root / 'dev'))}"]
        made: list[Path] = []
        for path in self.shown:
            inside = root / path.lstrip("/")
            if not inside.exists():
                made.append(inside)
                if Path(path).is_dir():
                    inside.mkdir(parents=True)
                else:
                    inside.parent.mkdir(parents=True, exist_ok=True)
                    inside.touch()
            lines.append(f"mount -o bind,ro {shlex.quote(path)} {shlex.quote(str(inside))}")
        words = in_root(root, ["/bin/sh", "-c", text], user, workdir)
        lines.append(shlex.join(["exec", *words]))
        subprocess.run(
            ["unshare", "--mount", "/bin/sh", "-euc", "\n".join(lines)],
            env=passed | {"HOME": "/root"} | env,
            check=True,
        )
        for inside in made:
            inside.rmdir() if inside.is_dir() else inside.unlink()


def account(base: Path, root: Path) -> None:
    """Print what the last stage holds, by folder."""
    whole, below = size(root), size(base)
    print(f"stand-in for the base image: {below / MB:.0f} MB")
    print(f"added by the last stage: {(whole - below) / MB:.0f} MB, together {whole / MB:.0f} MB")
    packages = next(root.glob("venv/lib/python3*/site-packages"))
    folders = [("models", root / "models"), *((p.name, p) for p in packages.iterdir())]
    sizes = sorted(((size(p), name) for name, p in folders if p.is_dir()), reverse=True)
    for bytes_, name in sizes[:12]:
        print(f"{bytes_ / MB:8.1f} MB  {name}")


def forbidden(root: Path, training: bool) -> list[str]:
    """What a last stage must not hold, and holds."""
    folders = [root / name for name in ("bin", "usr/bin", "usr/local/bin", "venv/bin")]
    found = [f for name in COMPILERS for f in (folder / name for folder in folders) if f.exists()]
    packages = next(root.glob("venv/lib/python3*/site-packages"))
    names = () if training else ("torch", "pip", "setuptools")
    found += [packages / name for name in names if (packages / name).exists()]
    return [str(path.relative_to(root)) for path in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("--into", type=Path, required=True,
        help="folder for the roots; its base is kept, and used again")  # fmt: skip
    parser.add_argument("--show", action="append", default=[], metavar="PATH",
        help="show a path of this machine to RUN lines, such as a folder of wheels")  # fmt: skip
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE",
        help="with --serve, a variable that is set otherwise than in the image")  # fmt: skip
    parser.add_argument("--serve", action="store_true", help="also start the CMD and ask it")
    parser.add_argument(
        "--training", action="store_true", help="the last stage may hold torch, and must train"
    )
    given = parser.parse_args()
    arguments = dict(word.split("=", 1) for word in given.build_arg)
    rehearsal = Rehearsal(given.into, given.show, arguments)
    stages = read_stages(given.dockerfile)
    try:
        for stage in stages:
            rehearsal.build(stage)
    except (DockerfileError, subprocess.CalledProcessError) as error:
        sys.exit(f"{given.dockerfile}: {error}")
    last = rehearsal.root(stages[-1].name)
    account(rehearsal.base, last)
    if found := forbidden(last, given.training):
        sys.exit(f"{given.dockerfile}: the last stage holds {', '.join(found)}")
    env = rehearsal.environments[stages[-1].name]
    if given.training:
        train(last, stages[-1], env)
    if given.serve:
        other = dict(word.split("=", 1) for word in given.env)
        serve(last, stages[-1], env | other)


if __name__ == "__main__":
    main()
