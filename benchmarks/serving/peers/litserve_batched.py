"""LitServe with its batcher, a worker per core."""

import litserve
import numpy as np
from fastapi import Response

from benchmarks.serving.device import MAX_BATCH, MAX_WAIT_MS, model_workers, open_session, port
from benchmarks.serving.peers.codec import decode, encode


class Digits(litserve.LitAPI):
    def setup(self, device):
        self.session = open_session()

    def decode_request(self, request):
        return decode(request["file"].file.read())

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.session.run(["y"], {"x": x})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return Response(encode(output), media_type="image/png")


if __name__ == "__main__":
    api = Digits(max_batch_size=MAX_BATCH, batch_timeout=MAX_WAIT_MS / 1000, api_path="/transfer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=model_workers())
    server.run(host="127.0.0.1", port=port(), generate_client_file=False, log_level="warning")
