"""Two folders to try `dtn train custom` with: printed digits, labelled, and handwritten ones."""

from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from training.data import read_idx, read_npz
from training.render import font_files

PRINTED, HANDWRITTEN = 3000, 5000
SIDE = 32


def printed_digit(digit: int, font: Path, rng: Random) -> Image.Image:
    """One digit, dark on light paper as a printer has it: grey, 32x32."""
    paper, ink = rng.randint(215, 255), rng.randint(0, 70)
    large = 4 * SIDE
    image = Image.new("L", (large, large), paper)
    face = ImageFont.truetype(font, rng.randint(84, 128))
    place = large / 2 + rng.uniform(-6, 6), large / 2 + rng.uniform(-6, 6)
    ImageDraw.Draw(image).text(place, str(digit), ink, font=face, anchor="mm")
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def write_example(folder: Path, data: Path) -> list[Path]:
    """Write folder/printed/0 ... 9 and folder/handwritten; returns the two.

    Handwritten digits are those of MNIST's test split in `data`, without their labels. Raises
    FileNotFoundError where it is not there.
    """
    stem = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
    if (data / "mnist_test.npz").is_file():
        digits, _ = read_npz(data / "mnist_test.npz")
    elif all((data / name).is_file() for name in stem):
        digits, _ = read_idx(*(data / name for name in stem))
    else:
        files = " ".join(f"--file {name}" for name in stem)
        raise FileNotFoundError(f"no MNIST in {data}: run `dtn data {files}` first")
    rng, fonts = Random(0), font_files()  # noqa: S311
    printed, handwritten = folder / "printed", folder / "handwritten"
    for i in tqdm(range(PRINTED), "printed", leave=False):
        place = printed / str(i % 10)
        place.mkdir(parents=True, exist_ok=True)
        printed_digit(i % 10, rng.choice(fonts), rng).save(place / f"{i:04d}.png")
    handwritten.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(tqdm(digits[:HANDWRITTEN], "handwritten", leave=False)):
        Image.fromarray(pixels).save(handwritten / f"{i:04d}.png")
    return [printed, handwritten]
