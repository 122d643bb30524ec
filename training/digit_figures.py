"""The paper's figures of digits: 2a, 3 and 9a."""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.config import of_digits
from training.figures import SCALE, grid, pair_grid
from training.networks import to_unit
from training.render import house_numbers
from training.rows import DTN_PLUS, TABLE3, TABLE3_PLUS
from training.run import Run, open_run
from training.train import OMITTED, Trained, load

FIGURES = ("2a", "3", "9a")
MARGIN = 22  # pixels above a panel, for its name


def transferred(trained: Trained, pairs: int, rendered: bool) -> Image.Image:
    """Figure 2a, or 9a of a reverse run: inputs in odd columns, G(x) to the right of each.

    `rendered` house numbers are ours to publish; SVHN's pictures are not.
    """
    pictures = trained.measured.images[:pairs]
    if rendered:
        drawn = torch.from_numpy(house_numbers(pairs, seed=1)[0]).permute(0, 3, 1, 2)
        pictures = drawn.to(pictures.device)
    return pair_grid(pictures, trained.transfer(pictures))


@torch.no_grad()
def order_of_threes(trained: Trained, pictures: Tensor) -> Tensor:
    """Indices of `pictures`, sorted by how surely the judge reads a 3 in G(x), surest first."""
    logits = trained.judge(to_unit(trained.transfer(pictures)))
    return F.softmax(logits, 1)[:, OMITTED].argsort(descending=True)


def threes(run: Run, data: Path, count: int) -> Image.Image:
    """Figure 3: a random subset of SVHN's 3s, and what each run of Table 3 makes of them.

    `run` is the DTN's, digits_paper-seedN, or DTN+'s, digits-seedN; the others stand beside it
    under the names that `dtn reproduce table3`, or table3_plus, gives them. Raises ValueError
    where one is not finished, and where there is no such table.
    """
    tables = {table[0].preset: table for table in (TABLE3, (DTN_PLUS, *TABLE3_PLUS))}
    if run.name not in tables:
        raise ValueError(f"Figure 3 begins with a run of {' or '.join(tables)}, not of {run.name}")
    panels: list[tuple[str, Tensor]] = []
    chosen = torch.empty(0)
    for letter, row in zip("bcdef", tables[run.name], strict=True):
        folder = run.folder.with_name(run.folder.name.replace(run.name, row.preset, 1))
        trained = load(open_run(folder, str(run.device)), data)
        if not panels:
            measured = trained.measured
            shown = measured.images[measured.labels == OMITTED]
            random = torch.Generator().manual_seed(0)
            chosen = shown[torch.randperm(len(shown), generator=random)[:count].to(shown.device)]
            chosen = chosen[order_of_threes(trained, chosen)]
            panels.append(("(a) x", chosen))
        panels.append((f"({letter}) {row.label}", trained.transfer(chosen)))
    return titled(
        [(title, grid((pictures,), columns=min(12, len(chosen)))) for title, pictures in panels], 3
    )


def titled(panels: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Panels of one size in rows, each under its title."""
    width, height = (side * SCALE for side in panels[0][1].size)
    rows = -(-len(panels) // columns)
    cell = (width + MARGIN, height + MARGIN)
    sheet = Image.new("RGB", (columns * cell[0] - MARGIN, rows * cell[1]), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for i, (title, image) in enumerate(panels):
        x, y = i % columns * cell[0], i // columns * cell[1]
        draw.text((x, y + 2), title, "black", font)
        sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, y + MARGIN))
    return sheet


def draw(run: Run, figure: str, data: Path, pairs: int, rendered: bool) -> Image.Image:
    """`figure` of a finished run. Raises ValueError where the run is of the other direction."""
    reverse = of_digits(run.config).reverse
    if (figure == "9a") != reverse:
        way = "from MNIST to SVHN" if reverse else "from SVHN to MNIST"
        raise ValueError(f"Figure {figure} is of the other direction: {run.folder} goes {way}")
    if figure == "3":
        return threes(run, data, pairs)
    return transferred(load(run, data), pairs, rendered)
