"""Pictures made on the spot for the tests of training."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from training import avatars
from training.resnet29 import ResNet29

SIZES = {"svhn_train": 120, "svhn_test": 40, "mnist_train": 120, "mnist_test": 60}


def grey_digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    """White digits on black, 28x28, as MNIST has them."""
    labels = np.arange(n, dtype=np.uint8) % 10
    font = ImageFont.load_default(24)
    pictures = np.zeros((n, 28, 28), np.uint8)
    for i, label in enumerate(labels):
        image = Image.new("L", (28, 28))
        ImageDraw.Draw(image).text((7 + i % 3, -2 + i % 4), str(label), 255, font=font)
        pictures[i] = np.asarray(image)
    return pictures, labels


def write_artwork(folder: Path) -> Path:
    """A stand-in for facesjs: each part is a box or two; eyes are green. Returns `folder`."""
    boxes = {
        "hairBg": (60, 150, 280, 350, "$[hairColor]"),
        "body": (80, 480, 240, 120, "$[skinColor]"),
        "jersey": (100, 560, 200, 40, "$[primary]"),
        "ear": (20, 300, 30, 50, "$[skinColor]"),
        "head": (60, 110, 280, 390, "$[skinColor]"),
        "eyeLine": (120, 340, 40, 4, "#777"),
        "smileLine": (140, 430, 8, 20, "#777"),
        "miscLine": (160, 200, 80, 4, "#777"),
        "facialHair": (120, 460, 160, 40, "$[hairColor]"),
        "eye": (0, 0, 40, 20, "#00ff00"),
        "eyebrow": (0, 0, 50, 10, "$[hairColor]"),
        "mouth": (170, 430, 60, 20, "#fff"),
        "nose": (190, 360, 20, 20, "#a66"),
        "hair": (60, 100, 280, 90, "$[hairColor]"),
        "glasses": (90, 285, 220, 50, "rgba(150,150,175,.5)"),
    }
    parts: dict[str, dict[str, str]] = {layer: {} for layer in boxes}
    names = {"hairBg": "back", "facialHair": "beard"}
    for layer, (x, y, width, height, fill) in boxes.items():
        for own in (avatars.MEN, avatars.WOMEN):
            for part in own.get(names.get(layer, layer), ()):
                parts[layer][part] = ""
        for part in {
            "body": ("body",), "jersey": ("jersey",), "ear": ("ear1",),
            "eyeLine": ("line1", "line3", "line4"), "smileLine": ("line1", "line4"),
            "miscLine": avatars.WRINKLES, "facialHair": avatars.BEARDS,
            "hair": ("short-bald", "short-fade"), "glasses": avatars.GLASSES,
        }.get(layer, ()):  # fmt: skip
            parts[layer][part] = ""
        for part in parts[layer]:
            if part != "none":
                parts[layer][part] = (
                    f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" '
                    'stroke="#000" stroke-width="2"/>'
                )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "svgs.js").write_text(f"export default {json.dumps(parts)};\n")
    return folder


def write_resnet29(path: Path, seed: int = 0) -> Path:
    """A file as dlib's, with weights made here: last layer first, as dlib writes them."""
    random = np.random.default_rng(seed)

    def integer(value: int) -> bytes:
        raw = value.to_bytes((value.bit_length() + 7) // 8 or 1, "little")
        return bytes([len(raw)]) + raw

    def tensor(values: np.ndarray) -> bytes:
        header = b"".join(integer(n) for n in (2, len(values), 1, 1, 1))
        return header + values.astype("<f4").tobytes()

    def tagged(name: bytes) -> bytes:
        return b"\x01" + bytes([len(name)]) + name

    content = [b"dlib"]
    for module in ResNet29().modules():
        if isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            kernel = random.normal(0, (2 / fan) ** 0.5, module.weight.numel())
            bias = random.normal(0, 0.1, module.out_channels)
            gain = random.uniform(0.5, 1, module.out_channels)
            shift = random.normal(0, 0.1, module.out_channels)
            content += [tagged(b"con_5"), tensor(np.concatenate([kernel, bias])), b"\x01\x03"]
            content += [tagged(b"affine_"), tensor(np.concatenate([gain, shift]))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(content))
    return path


def write_faces(folder: Path, name: str, people: list[str], seed: int = 0) -> None:
    """NAME_152.zip and its CSV: a skin-coloured oval for each of `people`."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["file,identity,faces_in_source,eye_distance_px"]
    with zipfile.ZipFile(folder / f"{name}_152.zip", "w") as archive:
        for i, person in enumerate(people):
            picture = Image.new("RGB", (152, 152), tuple(random.integers(0, 256, 3).tolist()))
            draw = ImageDraw.Draw(picture)
            draw.ellipse((35, 15, 117, 145), tuple(random.integers(90, 230, 3).tolist()))
            draw.rectangle((35, 5, 117, 35), tuple(random.integers(0, 120, 3).tolist()))
            for x in (55, 97):
                draw.ellipse((x - 5, 70, x + 5, 76), "black")
            file = io.BytesIO()
            picture.save(file, "WEBP")
            archive.writestr(f"{name}_{i}.webp", file.getvalue())
            rows.append(f"{name}_{i}.webp,{person},1,41.0")
    (folder / f"{name}_152.csv").write_text("\n".join(rows) + "\n")
