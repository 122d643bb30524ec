"""The data sets from their homes: resumable, MD5-checked, with a progress bar."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import httpx
from tqdm import tqdm

SVHN = "http://ufldl.stanford.edu/housenumbers"
MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Remote:
    """A file, where it is, and the MD5 its publishers' users agree on."""

    name: str
    home: str
    md5: str

    @property
    def url(self) -> str:
        return f"{self.home}/{self.name}"


FILES = (
    Remote("train_32x32.mat", SVHN, "e26dedcc434d2e4c54c9b2d4a06d8373"),
    Remote("test_32x32.mat", SVHN, "eb5a983be6a315427106f1b164d9cef3"),
    Remote("extra_32x32.mat", SVHN, "a93ce644f1a588dc4d68dda5feec44a7"),
    Remote("train-images-idx3-ubyte.gz", MNIST, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    Remote("train-labels-idx1-ubyte.gz", MNIST, "d53e105ee54ea40749a09fcbcd1e9432"),
    Remote("t10k-images-idx3-ubyte.gz", MNIST, "9fb629c4189551a2d022fa330f9573f3"),
    Remote("t10k-labels-idx1-ubyte.gz", MNIST, "ec29112dd5afa0611ce80d1b7f02629c"),
)


def md5(path: Path) -> str:
    """The MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch(remote: Remote, folder: Path, client: httpx.Client) -> Path:
    """Bring `remote` into `folder`; what is there already is checked, not fetched again.

    A download that broke off goes on from where it stopped (`NAME.part`). Raises
    ConnectionError where the file cannot be had and ValueError where its MD5 is wrong, each
    with one line that says what to do.
    """
    path, part = folder / remote.name, folder / f"{remote.name}.part"
    if path.exists():
        if md5(path) == remote.md5:
            return path
        raise ValueError(f"{path} has the wrong MD5: delete it and run `dtn data` again")
    folder.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    try:
        with client.stream("GET", remote.url, headers={"Range": f"bytes={have}-"}) as answer:
            if answer.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                answer.raise_for_status()
                whole = answer.status_code == httpx.codes.OK  # the server knows no ranges
                have = 0 if whole else have
                _write(answer, part, have, remote.name)
    except httpx.HTTPError as error:
        raise ConnectionError(
            f"{remote.name} cannot be fetched ({error}); put {remote.url} into {folder} by hand"
        ) from error
    if md5(part) != remote.md5:
        part.unlink()
        raise ValueError(f"{remote.name} arrived with the wrong MD5: run `dtn data` again")
    return part.replace(path)


def _write(answer: httpx.Response, part: Path, have: int, name: str) -> None:
    """Append the body to `part`, whose first `have` bytes are kept."""
    total = have + int(answer.headers.get("Content-Length", 0))
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(desc=name, initial=have, total=total, unit="B", unit_scale=True) as progress,
    ):
        for chunk in answer.iter_bytes(CHUNK):
            file.write(chunk)
            progress.update(len(chunk))


def fetch_all(folder: Path, names: list[str] | None = None) -> list[Path]:
    """Bring the files in `names` (None: all) into `folder`; raises as `fetch` does."""
    wanted = [remote for remote in FILES if names is None or remote.name in names]
    with httpx.Client(follow_redirects=True, timeout=30) as client:
        return [fetch(remote, folder, client) for remote in wanted]
