"""Train, evaluate and export a Domain Transfer Network (PyTorch, offline)."""

import os

# Official onnxruntime wheels report what they do to their maker, from 1.29 on Linux, too. It must
# be set before onnxruntime is imported; whoever wants to report sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
