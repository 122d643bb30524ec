"""Ray Serve with @serve.batch, a replica per core."""

import time

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.serving.device import MAX_BATCH, MAX_WAIT_MS, model_workers, open_session, port
from benchmarks.serving.peers.codec import decode, encode


@serve.deployment(
    num_replicas=model_workers(), max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5}
)
class Digits:
    def __init__(self) -> None:
        self.session = open_session()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT_MS / 1000)
    async def run(self, x: list) -> list:
        return list(self.session.run(["y"], {"x": np.stack(x)})[0])

    async def __call__(self, request: Request) -> Response:
        form = await request.form()
        y = await self.run(decode(await form["file"].read()))
        return Response(encode(y), media_type="image/png")


if __name__ == "__main__":
    ray.init(
        include_dashboard=False,
        object_store_memory=200_000_000,
        _node_ip_address="127.0.0.1",
        logging_level="error",
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port()})
    serve.run(Digits.bind(), route_prefix="/transfer", name="digits")
    while True:
        time.sleep(1)
