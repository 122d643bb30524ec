"""Runs the CMD of a stage's root as `docker run --read-only --cap-drop ALL` would, and asks it."""

import http.client
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.docker.dockerfile import Stage, exec_form, health_command
from tests.docker.roots import in_root

PICTURE = Path(__file__).parent.parent / "pictures/house_number.png"
READY_S = 120
STOP_S = 60


def contained(root: Path, stage: Stage, words: list[str]) -> list[str]:
    """The command that runs `words` as the stage's USER in a root that cannot be written to.

    /tmp is empty memory, and each VOLUME a writable copy of its folder in the image.
    """
    quoted = shlex.quote(str(root))
    lines = [
        "mount --make-rprivate /",
        f"mount --bind {quoted} {quoted}",
        f"mount -o remount,bind,ro {quoted}",
        f"mount -t proc proc {quoted}/proc",
        f"mount --bind /dev {quoted}/dev",
        f"mount -t tmpfs tmpfs {quoted}/tmp",  # noqa: S108 - of the root
    ]
    for volume in " ".join(stage.all("VOLUME")).split():
        inside = root / volume.lstrip("/")
        kept = root.parent / f"volume-{inside.name}"
        shutil.rmtree(kept, ignore_errors=True)
        subprocess.run(["cp", "-a", str(inside), str(kept)], check=True)
        lines.append(f"mount --bind {shlex.quote(str(kept))} {shlex.quote(str(inside))}")
    user, _, group = stage.last("USER").partition(":")
    drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    drop += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    lines.append(shlex.join(["exec", *in_root(root, [*drop, *words])]))
    return ["unshare", "--mount", "/bin/sh", "-euc", "\n".join(lines)]


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer. Raises OSError where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "image/png"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> float:
    """Seconds until /health/ready said 200."""
    start = time.monotonic()
    while time.monotonic() < start + READY_S:
        if process.poll() is not None:
            raise SystemExit(f"CMD has ended with {process.returncode}")
        try:
            if ask(port, "GET", "/health/ready")[0] == http.HTTPStatus.OK:
                return time.monotonic() - start
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("CMD is not ready in time")


def serve(root: Path, stage: Stage, env: dict[str, str]) -> None:
    """Start the CMD, ask it, run the HEALTHCHECK, send the STOPSIGNAL. Exits where one fails."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = env | {"DTN_PORT": str(port)}
    process = subprocess.Popen(contained(root, stage, exec_form(stage.last("CMD"))), env=env)
    try:
        print(f"ready after {wait_until_ready(process, port):.1f} s")
        status, picture = ask(port, "POST", "/transfer", PICTURE.read_bytes())
        expect("POST /transfer is answered with a PNG", status == 200 and picture[1:4] == b"PNG")
        status, answer = ask(port, "GET", "/persons/nobody")
        expect("the database is made and asked", b'"unknown_person"' in answer)
        health = contained(root, stage, health_command(stage.last("HEALTHCHECK")))
        expect("HEALTHCHECK", subprocess.run(health, env=env, check=False).returncode == 0)
        touch = contained(root, stage, ["touch", "/etc/written"])
        refused = subprocess.run(touch, env=env, check=False, capture_output=True)
        expect("the root cannot be written to", b"Read-only file system" in refused.stderr)
        status_file = Path(f"/proc/{process.pid}/status").read_text()
        uid = stage.last("USER").partition(":")[0]
        expect(f"runs as user {uid}", f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status_file)
        expect("without capabilities", "CapBnd:\t0000000000000000" in status_file)
        process.send_signal(signal.Signals[stage.last("STOPSIGNAL")])
        expect("ends with 0 when told to stop", process.wait(STOP_S) == 0)
    finally:
        process.kill()
        process.wait()


def train(root: Path, stage: Stage, env: dict[str, str]) -> None:
    """Ask for a training command's help, which imports torch. Exits where that fails."""
    words = contained(root, stage, ["dtn", "train", "--help"])
    expect("dtn train is there", subprocess.run(words, env=env, check=False).returncode == 0)
    words = contained(root, stage, ["touch", *stage.last("VOLUME").split()])
    expect("what is mounted can be written to", subprocess.run(words, check=False).returncode == 0)


def expect(what: str, holds: bool) -> None:
    """Print what holds, exit with 1 where it does not."""
    print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
    if not holds:
        raise SystemExit(1)
