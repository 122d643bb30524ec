"""Triton through pytriton, whose wheel carries a tritonserver: its dynamic batcher, a callable."""

from pathlib import Path

import numpy as np
import pytriton
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.serving.device import MAX_BATCH, MAX_WAIT_MS, open_session, port
from benchmarks.serving.peers.codec import decode, encode

# The interpreter inside Triton's stub can be older than the standard library it loads, whose
# resource tracker then misses a method of C's RLock. Python's own RLock has it.
MENDED = """
import threading
if not hasattr(threading.RLock(), "_recursion_count"):
    threading._CRLock = None
"""

session = open_session()


@batch
def infer(image):
    x = np.stack([decode(bytes(one[0])) for one in image])
    (y,) = session.run(["y"], {"x": x})
    return {"y": np.array([[encode(one)] for one in y], dtype=object)}


def mend_stub():
    """Put MENDED at the start of what pytriton runs in the stub, once."""
    file = Path(pytriton.__file__).parent / "proxy" / "data.py"
    text = file.read_text()
    if MENDED not in text:
        at = text.index("\nimport ")
        file.write_text(text[:at] + MENDED + text[at:])


if __name__ == "__main__":
    mend_stub()
    here = "127.0.0.1"
    config = TritonConfig(
        http_address=here,
        http_port=port(0),
        grpc_address=here,
        grpc_port=port(1),
        metrics_address=here,
        metrics_port=port(2),
        allow_gpu_metrics=False,
    )
    delay = DynamicBatcher(max_queue_delay_microseconds=MAX_WAIT_MS * 1000)
    with Triton(config=config) as triton:
        triton.bind(
            "digits",
            infer,
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="y", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=delay),
        )
        triton.serve()
