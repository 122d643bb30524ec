import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training import table4 as t4
from training.face_data import Faces
from training.recognisers import Recogniser
from training.table4 import enlarge, ranks, row, search, show, table4

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def faces(name: str, **colours: tuple[int, int, int]) -> Faces:
    """Flat pictures; a file "Ann_1" shows Ann, one without a number nobody."""
    files = list(colours)
    identities = [file.split("_")[0] if "_" in file else "" for file in files]
    pictures = torch.tensor(list(colours.values()), dtype=torch.uint8)
    return Faces(name, files, identities, pictures[:, :, None, None].expand(-1, -1, 152, 152))


PHOTOS = (
    faces(
        "lfw",
        Ann_1=(200, 30, 0),
        Bob_1=(0, 200, 0),
        Ann_2=(200, 40, 0),
        Bob_2=(0, 200, 60),
        Ann_3=(200, 30, 0),
        Cid_1=(0, 0, 255),
    ),
    faces("generated", a=(0, 200, 20), b=(0, 0, 255)),
)


def test_a_search_leaves_out_a_person_s_other_pictures() -> None:
    found = search(["Ann", "", "Bob", "Ann", "Ann", "Cid", "Bob"], ["Ann", "Bob"])
    assert found.probes == [0, 2]
    assert found.mates == [3, 6]
    assert found.gallery == [3, 6, 1, 5]


@pytest.mark.parametrize("people", [["Ann", "Bob"], []])
def test_a_search_needs_pairs(people: list[str]) -> None:
    with pytest.raises(ValueError, match="two pictures each"):
        search(["Ann", "Ann", "Bob"], people)


def test_ranks_by_hand() -> None:
    gallery = torch.tensor([[1.0, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [0.6, 0.8]])
    probes = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    # Cosines of (1, 0): 1, .8, .6, 0, .6; of (0, 1): 0, .6, .8, 1, .8.
    found = ranks(probes, torch.tensor([0, 2, 4, 0]), gallery)
    assert found.tolist() == [1, 3.5, 2.5, 5]


def test_measures_by_hand() -> None:
    found = row("j", "p", torch.tensor([1.0, 1, 4, 5, 6, 100]), 200)
    assert (found.n, found.gallery) == (6, 200)
    assert (found.median, found.mean) == (4.5, 19.5)
    assert (found.rank_1, found.rank_5) == (2 / 6, 4 / 6)
    assert (found.median_share, found.mean_share) == (0.0225, 0.0975)


def test_enlarges_bytes_and_leaves_full_size_alone() -> None:
    picture = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    large = enlarge(picture)
    assert (large.shape, large.dtype) == ((2, 152, 152, 3), torch.uint8)
    assert enlarge(large) is large
    flat = torch.full((1, 64, 64, 3), 7, dtype=torch.uint8)
    assert (enlarge(flat) == 7).all()
    edge = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    edge[:, :, 32:] = 255  # bicubic overshoots; bytes must not wrap round
    assert enlarge(edge)[0, 0, 90:, 0].min() > 200
    assert enlarge(edge)[0, 0, :62, 0].max() < 50


def test_table4_by_hand(judge: Recogniser, tmp_path: Path) -> None:
    avatars = torch.tensor([GREEN, BLUE], dtype=torch.uint8)[:, None, None].expand(-1, 64, 64, 3)
    transfers = {
        "photo": t4.photo,
        "small": t4.small_photo,
        "nearest": t4.nearest_avatar(avatars, lambda x: (x[:, 0, 0, 0] == 0).long()),
        "random": t4.random_avatar(avatars),
    }
    table = table4(PHOTOS, ["Ann", "Bob"], [judge], tmp_path, transfers, in_s=["b", "Ann_3"])
    assert (table.people, table.gallery) == (2, 5)
    assert table.gallery_of == {"lfw": 3, "generated": 2}  # Ann_2, Bob_2, Cid; a, b
    assert table.gallery_in_s == 1  # Ann_3 is not in the gallery
    rows = {found.probe: found for found in table.rows}
    # Ann_2 comes first for Ann_1; for Bob_1, "a" is before Bob_2.
    photo = rows["photo"]
    assert (photo.mean, photo.rank_1, photo.rank_5, photo.gallery) == (1.5, 0.5, 1, 5)
    assert rows["small"] == dataclasses.replace(photo, probe="small")
    # Ann's avatar is green: Bob_2 and "a" are before Ann_2. Bob's is blue: Cid and "b" are.
    assert (rows["nearest"].median, rows["nearest"].mean) == (3, 3)
    assert rows["random"].n == 2

    kept = t4.write(table, tmp_path)
    assert json.loads(kept.read_text())["rows"][0]["judge"] == "MobileFaceNet"
    text = show(kept)
    assert "paper: DTN" in text
    assert "Our gallery: 3 lfw, 2 generated; 1 of it were in s." in text


def test_an_embedding_is_kept_until_its_pictures_change(judge: Recogniser, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = t4.embeddings(judge, PHOTOS[0], cache)
    assert [path.name for path in cache.iterdir()] == ["MobileFaceNet-lfw.npz"]
    with np.load(cache / "MobileFaceNet-lfw.npz") as kept:
        values = {name: kept[name] for name in kept}
    values["embeddings"] = values["embeddings"] * 0
    np.savez(cache / "MobileFaceNet-lfw.npz", **values)
    assert not t4.embeddings(judge, PHOTOS[0], cache).any()  # taken from the cache
    images = PHOTOS[0].images.clone()
    other = Faces("lfw", PHOTOS[0].files, PHOTOS[0].identities, images)
    torch.testing.assert_close(t4.embeddings(judge, other, cache) + first, first)
    images[0, 0, 0, 0] += 1
    assert t4.embeddings(judge, other, cache).any()


def test_the_paper_s_row_is_the_paper_s() -> None:
    manual, dtn = t4.PAPER
    assert (dtn.median, dtn.mean, dtn.rank_1, dtn.rank_5) == (16, 535.47, 0.2288, 0.3475)
    assert (manual.median, manual.mean, manual.gallery) == (16311, 27992.34, 100_001)
