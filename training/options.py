"""Options that several of the training commands have."""

from pathlib import Path

import click
import torch

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder with the npz or the original files of SVHN and MNIST.",
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
upscaler_option = click.option(
    "--upscaler",
    type=click.Path(path_type=Path),
    default=Path("models/emoji/upscale.onnx"),
    show_default=True,
    help="upscale.onnx of `dtn upscaler`, which enlarges the emoji.",
)


def on_device(name: str) -> str:
    """`cuda` or `cpu` of --device. Raises ValueError where there is no CUDA device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = name == "cuda"  # sizes are fixed: its search pays
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device here: use --device cpu")
    return name
