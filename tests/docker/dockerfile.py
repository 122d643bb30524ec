"""Reads the part of the Dockerfile language that docker/Dockerfile* use; refuses the rest."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

KNOWN = ("ARG", "COPY", "ENV", "RUN", "WORKDIR", "USER", "EXPOSE", "VOLUME", "LABEL")
KNOWN += ("STOPSIGNAL", "HEALTHCHECK", "CMD")
VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}")


class DockerfileError(Exception):
    """What of a Dockerfile this reader does not know."""


@dataclass(frozen=True)
class Instruction:
    """Such as RUN, with the rest of its line, continued lines joined."""

    name: str
    text: str
    line: int


@dataclass
class Stage:
    """What follows a FROM."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """The texts of all instructions of a name."""
        return [each.text for each in self.instructions if each.name == name]

    def last(self, name: str) -> str:
        """The one that counts where only one can. Raises IndexError where there is none."""
        return self.all(name)[-1]


def read_stages(path: Path) -> list[Stage]:
    """The stages of a Dockerfile. Raises DockerfileError."""
    stages: list[Stage] = []
    for each in read_instructions(path.read_text()):
        if each.name == "FROM":
            base, *rest = each.text.split()
            if rest and rest[0].upper() != "AS":
                raise DockerfileError(f"line {each.line}: {each.text}")
            stages.append(Stage(base, rest[1] if rest else str(len(stages))))
        elif each.name in KNOWN and stages:
            stages[-1].instructions.append(each)
        else:
            raise DockerfileError(f"line {each.line}: {each.name} is not known here")
    return stages


def read_instructions(text: str) -> Iterator[Instruction]:
    """Instructions in order; a comment ends none that is continued, as in Docker's reader."""
    joined, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and not joined):
            continue
        start = start if joined else number
        if line.rstrip().endswith("\\"):
            joined += line.rstrip()[:-1] + " "
            continue
        name, _, rest = (joined + line).strip().partition(" ")
        joined = ""
        yield Instruction(name.upper(), rest.strip(), start)
    if joined:
        raise DockerfileError(f"line {start}: continued by nothing")


def expand(text: str, variables: dict[str, str]) -> str:
    """`text` with $NAME and ${NAME} replaced; what is not set becomes nothing."""
    return VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)


def pairs(text: str) -> dict[str, str]:
    """`A=1 B="2 3"` as a dictionary."""
    return dict(word.split("=", 1) for word in shlex.split(text))


def exec_form(text: str) -> list[str]:
    """The words of `["a", "b"]`. Raises DockerfileError on the shell form, which hides signals."""
    try:
        words = json.loads(text)
    except json.JSONDecodeError:
        raise DockerfileError(f"not in exec form: {text}") from None
    return [str(word) for word in words]


def health_command(text: str) -> list[str]:
    """The words of a HEALTHCHECK's command, without its options."""
    return exec_form(text[text.index("CMD ") + 4 :])


class Context:
    """The files that `docker build .` would send: a folder less what .dockerignore leaves out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = (folder / ".dockerignore").read_text().splitlines()
        self.patterns = [line.strip() for line in lines if line.strip() and line[0] != "#"]

    def holds(self, path: str) -> bool:
        """Whether a file is sent: the last pattern that fits it or a folder of it decides."""
        parts = path.split("/")
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        sent = True
        for pattern in self.patterns:
            if any(fits(name, pattern.removeprefix("!")) for name in above):
                sent = pattern.startswith("!")
        return sent

    def files(self, source: str) -> list[Path]:
        """The files of a COPY's source, relative to the folder. Raises DockerfileError."""
        start = self.folder / source
        found = [start] if start.is_file() else sorted(p for p in start.rglob("*") if p.is_file())
        names = [path.relative_to(self.folder) for path in found]
        names = [name for name in names if self.holds(name.as_posix())]
        if not names:
            raise DockerfileError(f"COPY {source}: nothing of it is in the context")
        return names


def fits(path: str, pattern: str) -> bool:
    """Whether a pattern of .dockerignore names this path. `*` ends at a slash, `**/` does not."""
    if pattern.startswith("**/"):
        return fnmatch(path.rpartition("/")[2], pattern[3:])
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)
