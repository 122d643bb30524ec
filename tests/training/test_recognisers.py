from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tfjs_model import integers, node, write
from training.recognisers import (
    Crop,
    FaceNet,
    Recogniser,
    faceres,
    faceres_man,
    mobile_face,
    mobile_face_net,
)
from training.tfjs import GraphModel, read

MEAN = [
    node("x", "Placeholder"),
    node("mean", "Mean", "x", "axes", keep_dims={"b": True}),
    node("y", "Squeeze", "mean", squeeze_dims=integers(1, 2)),
]
AXES = {"axes": np.int32([1, 2])}


@pytest.fixture
def mean(tmp_path: Path) -> GraphModel:
    """A network whose embedding is the mean colour."""
    return GraphModel(read(write(tmp_path / "mean.json", MEAN, AXES)), "y")


def dot(x: float, y: float) -> torch.Tensor:
    """A white spot of one pixel's weight, its centre at (x, y), on black."""
    picture = torch.zeros(1, 3, 152, 152)
    left, top = int(x - 0.5), int(y - 0.5)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1 - abs(left + i + 0.5 - x)) * (1 - abs(top + j + 0.5 - y))
        picture[..., top + j, left + i] = weight
    return picture


def centre(picture: torch.Tensor) -> tuple[float, float]:
    weight = picture[0, 0] / picture[0, 0].sum()
    places = torch.arange(len(weight)) + 0.5
    return float(weight.sum(0) @ places), float(weight.sum(1) @ places)


@pytest.mark.parametrize(
    ("side", "zoom", "left", "right"),
    [
        (112, 1.0, (38.2946, 51.5989), (73.5318, 51.5989)),  # ArcFace's own
        (224, 0.85, (81.9008, 104.5181), (141.8041, 104.5181)),  # 112 + 2 * .85 * (x - 56)
    ],
)
def test_the_eyes_come_where_the_template_has_them(
    side: int, zoom: float, left: tuple[float, float], right: tuple[float, float]
) -> None:
    crop = Crop(side, zoom)
    y = 0.48 * 152
    assert centre(crop(dot((0.5 - 0.135) * 152, y))) == pytest.approx(left, abs=0.4)
    assert centre(crop(dot((0.5 + 0.135) * 152, y))) == pytest.approx(right, abs=0.4)


@pytest.mark.parametrize(("side", "zoom"), [(112, 1.0), (224, 0.85), (32, 1.0)])
def test_a_crop_keeps_a_flat_picture_flat_to_the_border(side: int, zoom: float) -> None:
    torch.testing.assert_close(
        Crop(side, zoom)(torch.full((1, 3, 152, 152), 0.5)), torch.full((1, 3, side, side), 0.5)
    )


def test_the_network_sees_its_own_values_and_channels(mean: GraphModel) -> None:
    net = FaceNet(Crop(16), mean, scale=127.5, offset=(10, 20, 30), channels=(2, 1, 0))
    picture = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 152, 152)
    torch.testing.assert_close(net(picture), torch.tensor([[137.5, 20.0, -97.5]]))


def test_gradients_flow_through_a_face_network(mean: GraphModel) -> None:
    x = torch.zeros(1, 3, 152, 152, requires_grad=True)
    FaceNet(Crop(112), mean)(x).sum().backward()
    assert x.grad is not None
    assert (x.grad[0, :, 40:110, 40:110] > 0).all()


def test_embeds_bytes_and_floats_alike_as_unit_vectors(mean: GraphModel) -> None:
    recogniser = Recogniser("mean", FaceNet(Crop(16), mean))
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 256, (5, 152, 152, 3), generator=generator, dtype=torch.uint8)
    embeddings = recogniser.embed(faces, batch=2)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    floats = faces.permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(recogniser.embed(floats), embeddings, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(recogniser.embed(faces.permute(0, 3, 1, 2)), embeddings)


def test_refuses_pictures_of_another_size(mean: GraphModel) -> None:
    recogniser = Recogniser("mean", FaceNet(Crop(16), mean))
    with pytest.raises(ValueError, match=r"152x152 RGB expected, not \(1, 64, 64, 3\)"):
        recogniser.embed(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


@pytest.mark.parametrize("network", [mobile_face, mobile_face_net, faceres, faceres_man])
def test_says_which_file_is_missing(tmp_path: Path, network: object) -> None:
    with pytest.raises(FileNotFoundError, match=r"\.json"):
        network(tmp_path)  # type: ignore[operator]
