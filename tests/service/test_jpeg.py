"""JPEGs decoded at a part of their size, to the pixel as Pillow does."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service import pictures
from service.jpeg import decode_jpeg
from service.pictures import decode, decode_photo
from service.problems import Problem
from tests.service.dummy import noise


def jpeg(width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    """A picture of soft shapes and some grain, as a JPEG."""
    soft = Image.fromarray(noise(7, 5)).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).integers(-8, 9, (height, width, 3))
    pixels = np.clip(np.asarray(soft).astype(int) + grain, 0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def by_pillow(content: bytes, long_side: int) -> pictures.Pixels:
    with Image.open(BytesIO(content)) as picture:
        sent = max(picture.size)
        width, height = (max(1, side * long_side // sent) for side in picture.size)
        picture.draft(None, (width, height))
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(403, 277), (37, 91), (16, 16), (9, 400), (12, 64)])
def test_pixels_are_those_of_pillow(
    size: tuple[int, int], subsampling: str, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = jpeg(*size, subsampling=subsampling, progressive=progressive)
    used: list[object] = []

    def decode_and_tell(*arguments: object) -> object:
        used.append(decode_jpeg(*arguments))  # type: ignore[arg-type]
        return used[-1]

    monkeypatch.setattr(pictures, "decode_jpeg", decode_and_tell)
    for part in (2, 3, 4, 7, 8, 20):
        long_side = max(1, max(size) // part)
        assert np.array_equal(decode(content, 10**6, long_side), by_pillow(content, long_side))
    assert len(used) == 6
    assert all(pixels is not None for pixels in used)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_colours_are_left_to_pillow(mode: str) -> None:
    content = jpeg(80, 60, mode)
    assert np.array_equal(decode(content, 10**6, 20), by_pillow(content, 20))


def test_whole_jpegs_are_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pictures, "decode_jpeg")
    assert decode(jpeg(80, 60), 10**6, 80).shape == (60, 80, 3)


def test_how_much_a_jpeg_was_shrunk_and_which_way_is_up_are_told() -> None:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    photo = decode_photo(jpeg(80, 60, exif=exif), 10**6, 20)
    assert (photo.picture.size, photo.shrunk) == ((15, 20), 4)


def test_a_broken_jpeg_is_refused_as_pillow_does() -> None:
    content = jpeg(400, 300)[:4000]
    assert decode_jpeg(content, 50, 38) is None
    with pytest.raises(Problem) as caught:
        decode(content, 10**6, 50)
    assert caught.value.code == "not_an_image"


def test_a_jpeg_of_another_size_than_it_seemed_is_not_decoded() -> None:
    assert decode_jpeg(jpeg(80, 60), 10, 8) is not None
    assert decode_jpeg(jpeg(80, 60), 10, 7) is None
    assert decode_jpeg(jpeg(8000, 10), 10, 2) is None
