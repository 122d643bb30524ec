import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from tests.training.small import SIZES, grey_digits
from training.data import Digits, load_digits, read_idx, read_mat, to_split
from training.render import house_numbers


def write_mat(path: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    """An SVHN format-2 file as its authors write it: [32, 32, 3, n], the digit 0 as 10."""
    images, labels = house_numbers(n)
    y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": y})
    return images, labels


def write_idx(folder: Path, stem: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = grey_digits(n)
    head = np.array([0x803, n, 28, 28], ">u4").tobytes()
    with gzip.open(folder / f"{stem}-images-idx3-ubyte.gz", "wb") as file:
        file.write(head + images.tobytes())
    with gzip.open(folder / f"{stem}-labels-idx1-ubyte.gz", "wb") as file:
        file.write(np.array([0x801, n], ">u4").tobytes() + labels.tobytes())
    return images, labels


def test_npz_files_are_the_svhn_10k_protocol(digits: Digits) -> None:
    assert digits.protocol == "SVHN-10k"
    assert digits.sizes == SIZES | {"meter_digits": 20}
    assert digits.svhn_train.images.shape == (120, 3, 32, 32)
    assert digits.mnist_test.images.shape == (60, 1, 32, 32)
    assert digits.svhn_train.images.dtype == torch.uint8
    assert digits.svhn_train.labels.dtype == torch.int64


def test_mat_label_ten_is_the_digit_zero(tmp_path: Path) -> None:
    images, labels = write_mat(tmp_path / "test_32x32.mat", 20)
    read_images, read_labels = read_mat(tmp_path / "test_32x32.mat")
    assert np.array_equal(read_images, images)
    assert np.array_equal(read_labels, labels)
    assert read_labels.max() == 9


def test_idx_pair(tmp_path: Path) -> None:
    images, labels = write_idx(tmp_path, "t10k", 12)
    pair = read_idx(tmp_path / "t10k-images-idx3-ubyte.gz", tmp_path / "t10k-labels-idx1-ubyte.gz")
    assert np.array_equal(pair[0], images)
    assert np.array_equal(pair[1], labels)


@pytest.mark.parametrize(
    ("source", "protocol"), [("extra_32x32", "paper"), ("train_32x32", "SVHN-train")]
)
def test_original_files_name_their_protocol(tmp_path: Path, source: str, protocol: str) -> None:
    write_mat(tmp_path / f"{source}.mat", 30)
    write_mat(tmp_path / "test_32x32.mat", 20)
    write_idx(tmp_path, "train", 12)
    write_idx(tmp_path, "t10k", 10)
    digits = load_digits(tmp_path)
    assert digits.protocol == protocol
    assert digits.sizes == {
        "svhn_train": 30, "svhn_test": 20, "mnist_train": 12, "mnist_test": 10,
    }  # fmt: skip


def test_missing_files_are_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_digits(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for name in ("svhn_train", "mnist_test", "dtn data", str(tmp_path)):
        assert name in message


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "svhn_train.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"svhn_train in .+ cannot be read"):
        load_digits(tmp_path)


def test_a_narrow_picture_keeps_its_shape_and_repeats_its_edge() -> None:
    images = np.arange(20, dtype=np.uint8)[None, None, :, None].repeat(32, 1).repeat(3, 3)
    row = to_split("meter", (images, np.zeros(1, np.uint8))).images[0, 0, 5].tolist()
    assert row == [0] * 6 + list(range(20)) + [19] * 6


def test_mnist_is_scaled_up_to_the_whole_picture() -> None:
    images = np.full((1, 28, 28), 200, np.uint8)
    split = to_split("mnist", (images, np.zeros(1, np.uint8)))
    assert split.images.shape == (1, 1, 32, 32)
    assert (split.images == 200).all()


def test_a_part_is_contiguous(digits: Digits) -> None:
    part = digits.svhn_train.part(-20, None, "svhn_validation")
    assert len(part) == 20
    assert torch.equal(part.images, digits.svhn_train.images[100:])
