"""TorchServe with its batcher: this file is the handler and, run as a script, the launcher."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from benchmarks.serving.device import MAX_BATCH, MAX_WAIT_MS, model_workers, open_session, port
from benchmarks.serving.peers.codec import decode, encode

CONFIG = """
inference_address=http://127.0.0.1:{}
management_address=http://127.0.0.1:{}
metrics_address=http://127.0.0.1:{}
disable_token_authorization=true
job_queue_size=1000
load_models=digits.mar
models={{"digits":{{"1.0":{{"defaultVersion":true,"marName":"digits.mar","minWorkers":{workers},\
"maxWorkers":{workers},"batchSize":{batch},"maxBatchDelay":{wait},"responseTimeout":60}}}}}}
"""


class Handler:
    def initialize(self, context):
        self.session = open_session()

    def handle(self, data, context):
        x = np.stack([decode(bytes(one["body"])) for one in data])
        (y,) = self.session.run(["y"], {"x": x})
        for i in range(len(data)):
            context.set_response_content_type(i, "image/png")
        return [encode(one) for one in y]


def main():
    """Pack this file into an archive, as TorchServe wants it, and serve that."""
    folder = Path(mkdtemp())
    programs = Path(sys.executable).parent
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"LOG_LOCATION": str(folder), "METRICS_LOCATION": str(folder)}
    archive = ["--model-name", "digits", "--version", "1.0", "--export-path"]
    archive += [str(folder), "--handler", __file__]
    subprocess.run([programs / "torch-model-archiver", *archive], check=True)  # noqa: S603
    config = folder / "config.properties"
    ports = [port(i) for i in range(3)]
    config.write_text(
        CONFIG.format(*ports, workers=model_workers(), batch=MAX_BATCH, wait=MAX_WAIT_MS)
    )
    program = str(programs / "torchserve")
    options = ["--start", "--foreground", "--ncs", "--disable-token-auth"]
    where = ["--ts-config", str(config), "--model-store", str(folder)]
    os.chdir(folder)
    os.execv(program, [program, *options, *where])  # noqa: S606


if __name__ == "__main__":
    main()
