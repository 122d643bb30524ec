"""BentoML as documented for batches: a service that decodes before one with a batchable API."""

import os
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import bentoml
import numpy as np

from benchmarks.serving.device import MAX_BATCH, model_workers, open_session, port
from benchmarks.serving.peers.codec import decode, encode


@bentoml.service(workers=model_workers(), traffic={"timeout": 60})
class Digits:
    def __init__(self) -> None:
        self.session = open_session()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
    def run(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(["y"], {"x": x})[0]


@bentoml.service(workers=1, traffic={"timeout": 60})
class Api:
    digits = bentoml.depends(Digits)

    @bentoml.api(route="/transfer")
    async def transfer(
        self, file: Path
    ) -> Annotated[bytes, bentoml.validators.ContentType("image/png")]:
        y = await self.digits.to_async.run(decode(file.read_bytes())[None])  # noqa: ASYNC240 - as documented
        return encode(np.asarray(y, np.uint8)[0])


if __name__ == "__main__":
    os.environ |= {"BENTOML_DO_NOT_TRACK": "1", "BENTOML_HOME": mkdtemp()}
    program = str(Path(sys.executable).with_name("bentoml"))
    here = Path(__file__)
    service = f"{here.stem}:Api"
    where = ["--working-dir", str(here.parent), "--host", "127.0.0.1", "--port", str(port())]
    os.execv(program, [program, "serve", service, *where])  # noqa: S606
