"""MLServer over REST, which is JSON: pictures travel as base64. Its pool has a process per core."""

import json
import os
import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.device import MAX_BATCH, MAX_WAIT_MS, model_workers, open_session, port
from benchmarks.serving.peers.codec import decode, encode


class Digits(MLModel):
    async def load(self) -> bool:
        self.session = open_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = np.stack([decode(content) for content in Base64Codec.decode_input(payload.inputs[0])])
        (y,) = self.session.run(["y"], {"x": x})
        output = Base64Codec.encode_output("y", [encode(one) for one in y])
        return InferenceResponse(model_name=self.name, outputs=[output])


def write_settings(folder: Path) -> None:
    server = {
        "host": "127.0.0.1",
        "http_port": port(0),
        "grpc_port": port(1),
        "metrics_port": port(2),
        "parallel_workers": model_workers() if model_workers() > 1 else 0,
        "debug": False,
    }
    model = {
        "name": "digits",
        "implementation": "benchmarks.serving.peers.mlserver_rest.Digits",
        "max_batch_size": MAX_BATCH,
        "max_batch_time": MAX_WAIT_MS / 1000,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    folder = Path(mkdtemp())
    write_settings(folder)
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])  # noqa: S606
