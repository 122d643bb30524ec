"""mosec at its fastest: OpenCV, raw bodies, one session per core, all in one stage.

A stage of its own for decoding would keep a bad picture from failing its batch, at the cost of
handing every picture from process to process.
"""

import sys

import numpy as np
from mosec import Server, ValidationError, Worker

from benchmarks.serving.device import MAX_BATCH, MAX_WAIT_MS, model_workers, open_session, port
from benchmarks.serving.peers.codec import decode, encode


class Digits(Worker):
    resp_mime_type = "image/png"

    def __init__(self):
        super().__init__()
        self.session = open_session()

    def deserialize(self, data):
        try:
            return decode(data)
        except ValueError as error:
            raise ValidationError(str(error)) from error

    def forward(self, data):
        return list(self.session.run(["y"], {"x": np.stack(data)})[0])

    def serialize(self, data):
        return encode(data)


if __name__ == "__main__":
    # mosec reads its settings from the command line. Its own time limit is three seconds.
    sys.argv[1:] = f"--address 127.0.0.1 --port {port()} --timeout 60000".split()
    sys.argv += ["--log-level", "warning"]
    server = Server()
    server.append_worker(
        Digits, num=model_workers(), max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MS
    )
    server.run()
