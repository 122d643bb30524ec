"""The servers that are raced: how each is installed, started and asked."""

import json
import struct
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.serving.device import ROOT

ModelName = Literal["digits", "standin"]

HERE = Path(__file__).resolve().parent
BOUNDARY = "----------------------------bench"


@dataclass(frozen=True)
class Body:
    """A request's body and the headers that describe it."""

    content: bytes
    headers: dict[str, str]


def multipart(picture: bytes) -> Body:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photo.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    content = head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Body(content, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def raw(picture: bytes) -> Body:
    return Body(picture, {"Content-Type": "application/octet-stream"})


def v2_binary(picture: bytes) -> Body:
    """The Open Inference Protocol with its binary extension, as Triton speaks it."""
    image = {"name": "image", "shape": [1, 1], "datatype": "BYTES"}
    return v2_tensor(image, struct.pack("<I", len(picture)) + picture)


def v2_tensor(tensor: dict[str, Any], content: bytes, wanted: str = "y") -> Body:
    """The same of any one tensor, which is described but for its size."""
    asked = {
        "inputs": [tensor | {"parameters": {"binary_data_size": len(content)}}],
        "outputs": [{"name": wanted, "parameters": {"binary_data": True}}],
    }
    head = json.dumps(asked).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return Body(head + content, headers)


def v2_json(picture: bytes) -> Body:
    """The same protocol where it has JSON only. The id keeps a picture's answers identical."""
    tensor = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [b64encode(picture).decode()],
    }
    content = json.dumps({"id": "bench", "inputs": [tensor]}).encode()
    return Body(content, {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Server:
    """One contestant. `stem` names its files in peers/; ours has none."""

    name: str
    path: str
    body: Callable[[bytes], Body]
    sends: str  # what the client sends, for the table
    stem: str = ""

    @property
    def python(self) -> Path:
        """The interpreter of the environment that it runs in."""
        return HERE / ".venvs" / self.name / "bin" / "python" if self.stem else Path(sys.executable)

    @property
    def requirements(self) -> Path:
        return HERE / "peers" / f"{self.stem}.txt"

    @property
    def installed(self) -> bool:
        """Whether its environment was made, to the end."""
        return not self.stem or self.stamp.exists()

    @property
    def stamp(self) -> Path:
        """A file that an environment gets once all is in it."""
        return self.python.parents[1] / "installed"

    def command(self, model: ModelName) -> list[str]:
        if self.stem:
            return [str(self.python), str(HERE / "peers" / f"{self.stem}.py")]
        if model == "standin":
            return [str(self.python), "-m", "benchmarks.serving.standin"]
        return [str(self.python), "-m", "service", "serve"]

    def request(self, port: int, picture: bytes) -> bytes:
        """The bytes of a whole HTTP request."""
        body = self.body(picture)
        headers = body.headers | {
            "Host": f"127.0.0.1:{port}",
            "Content-Length": str(len(body.content)),
        }
        lines = [f"POST {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body.content


OURS = Server("ours", "/transfer", multipart, "multipart")
PEERS = [
    Server("mosec", "/inference", raw, "raw", "mosec_tuned"),
    Server("fastapi", "/transfer", multipart, "multipart", "fastapi_tutorial"),
    Server("litserve", "/transfer", multipart, "multipart", "litserve_batched"),
    Server("pytriton", "/v2/models/digits/infer", v2_binary, "V2 binary", "pytriton_batched"),
    Server("mlserver", "/v2/models/digits/infer", v2_json, "V2 JSON", "mlserver_rest"),
    Server("bentoml", "/transfer", multipart, "multipart", "bentoml_batched"),
    Server("ray", "/transfer", multipart, "multipart", "ray_batched"),
    Server("torchserve", "/predictions/digits", raw, "raw", "torchserve_batched"),
]
BARE_LOOP = Server("bare-loop", "", raw, "", "bare_loop")  # not raced, but installed as peers are
SERVERS = {server.name: server for server in [OURS, *PEERS]}

__all__ = ["BARE_LOOP", "OURS", "PEERS", "ROOT", "SERVERS", "Body", "ModelName", "Server"]
