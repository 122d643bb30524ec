"""What dtn doctor looks at beside the service: Python, packages, cores, memory, files, port."""

import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from service.client import Client
from service.doctor.finding import GIB, Finding, Mark, size
from service.settings import Settings, cores

OLDEST = (3, 11)
LEAST_FILES = 1024
LEAST_DISK, SOME_DISK = 64 * 1024**2, GIB
BYTES_PER_PIXEL = 6  # RGB, and a copy while it is turned or made RGB
NO_LIMIT = 1 << 60  # what cgroups of version 1 say where there is none
OPTIONAL = ("onnxruntime", "onnxruntime-gpu", "psycopg", "pillow-heif", "opentelemetry-sdk")
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - to look for it


def look_at_python() -> Iterator[Finding]:
    told = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < OLDEST:
        yield Finding("fail", "Python", told, "install Python 3.11 or newer")
    else:
        yield Finding("ok", "Python", told)


def look_at_packages() -> Iterator[Finding]:
    """Those that the service needs, and those that it may use."""
    try:
        wanted = [line for line in requires("dtn") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        yield Finding(
            "warn", "packages", "dtn itself is not installed", "pip install -e . in its folder"
        )
        return
    names = [re.split(r"[^A-Za-z0-9._-]", line)[0] for line in wanted]
    if sys.platform == "win32":
        names.remove("uvloop")
    there, missing = installed(names)
    if missing:
        told = f"missing: {', '.join(missing)}"
        yield Finding("fail", "packages", told, f"pip install {' '.join(missing)}")
    else:
        yield Finding("ok", "packages", ", ".join(there))
    more, absent = installed(OPTIONAL)
    runtimes, _ = installed(RUNTIMES)
    told = f"{', '.join(more) or 'none'}; not installed: {', '.join(absent) or 'none'}"
    if len(runtimes) == 1:
        yield Finding("ok", "more packages", told)
    elif runtimes:
        advice = 'they overwrite each other: uninstall both, then pip install "dtn[gpu]"'
        yield Finding("warn", "more packages", told, advice)
    else:
        advice = 'models need onnxruntime: pip install "dtn[cpu]", or "dtn[gpu]" where CUDA is'
        yield Finding("fail", "more packages", told, advice)


def installed(names: list[str] | tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Those that are installed, with versions, and the others."""
    there, missing = [], []
    for name in names:
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return there, missing


def look_at_cores(settings: Settings, root: Path = Path("/")) -> Iterator[Finding]:
    quota = cgroup_cores(root)
    told = f"{cores()} for this process, {settings.workers} workers"
    if quota is None:
        yield Finding("ok", "cores", told)
        return
    told += f", a container's limit of {quota:g}"
    if settings.workers > max(1, round(quota)):
        advice = f"set DTN_WORKERS={max(1, round(quota))}: more only wait for each other"
        yield Finding("warn", "cores", told, advice)
    else:
        yield Finding("ok", "cores", told)


def look_at_memory(settings: Settings, root: Path = Path("/")) -> Iterator[Finding]:
    free = free_memory(root)
    if free is None:
        return
    need = settings.max_buffered_bytes + settings.workers * settings.max_pixels * BYTES_PER_PIXEL
    told = f"{size(free)} free; uploads and decoding may take {size(need)} at once"
    if free < need:
        advice = (
            "lower DTN_MAX_PIXELS, DTN_WORKERS or DTN_MAX_BUFFERED_BYTES, "
            "lest large pictures at once make the system end the service"
        )
        yield Finding("warn", "memory", told, advice)
    else:
        yield Finding("ok", "memory", told)


def free_memory(root: Path) -> int | None:
    """Bytes that this process can still get: of the machine, within what its container has."""
    found = []
    for line in read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        for folder in cgroups(root):
            most, used = read(folder / limit), read(folder / usage)
            if most.isdecimal() and used.isdecimal() and int(most) < NO_LIMIT:
                found.append(max(0, int(most) - int(used)))
    return min(found, default=None)


def cgroup_cores(root: Path) -> float | None:
    """CPU time per time that a container gets; None without a limit."""
    found = []
    for folder in cgroups(root):
        quota = read(folder / "cpu.max").split() or [
            read(folder / "cpu/cpu.cfs_quota_us"),
            read(folder / "cpu/cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and all(part.isdecimal() for part in quota):
            found.append(int(quota[0]) / int(quota[1]))
    return min(found, default=None)


def cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, from its own to the outermost."""
    top = root / "sys/fs/cgroup"
    own = next(
        (
            line.removeprefix("0::").strip("/")
            for line in read(root / "proc/self/cgroup").splitlines()
            if line.startswith("0::")
        ),
        "",
    )
    folder = top / own
    while folder != top and folder.is_relative_to(top):
        yield folder
        folder = folder.parent
    yield top


def read(path: Path) -> str:
    """A small file's text; none where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def look_at_files() -> Iterator[Finding]:
    """How many files, connections included, may be open."""
    try:
        import resource  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < LEAST_FILES:
        told = f"{soft}, a connection takes one each"
        yield Finding("warn", "open files", told, "ulimit -n 65536 before dtn serve")
    else:
        limit = "no limit" if soft < 0 else str(soft)
        yield Finding("ok", "open files", f"{limit}, a connection takes one each")


def look_at_port(settings: Settings) -> Iterator[Finding]:
    """Whether the service could listen where it is set to."""
    host, port = settings.host, settings.port
    where = f"{host} port {port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if is_served(host, port):
            yield Finding("ok", "port", f"{where}: the service runs there already, and is ready")
        else:
            advice = "set DTN_PORT or DTN_HOST to another, or end what listens there"
            yield Finding("fail", "port", f"{where}: {error.strerror or error}", advice)
    else:
        yield Finding("ok", "port", f"{where} is free" if port else "a free one will be taken")
    if not settings.api_keys and host not in ("127.0.0.1", "::1", "localhost"):
        advice = "set DTN_API_KEYS, unless only those who may use it can reach it"
        yield Finding(
            "warn", "access", f"{host} is not only this machine, and no key is set", advice
        )


def is_served(host: str, port: int) -> bool:
    shown = EVERYWHERE.get(host) or (f"[{host}]" if ":" in host else host)
    with suppress(ValueError), Client(f"http://{shown}:{port}", timeout=2, deadline=5) as client:
        return client.ready()
    return False


def look_at_disk(folder: Path) -> Iterator[Finding]:
    """Room for the database, in the nearest folder that exists."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    told = f"{size(free)} free for the database in {there}"
    if free >= SOME_DISK:
        yield Finding("ok", "disk", told)
    else:
        mark: Mark = "warn" if free >= LEAST_DISK else "fail"
        yield Finding(mark, "disk", told, "make room, or set DTN_DATABASE_URL to another disk")
