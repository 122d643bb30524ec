import numpy as np
import pytest

from training.render import font_files, house_number, house_numbers


def test_fonts_come_with_the_training_extra() -> None:
    assert len(font_files()) >= 50


def test_a_seed_draws_the_same_house_number() -> None:
    fonts = font_files()
    one, other = (house_number(7, fonts, seed=5) for _ in range(2))
    assert np.array_equal(one, other)
    assert one.shape == (32, 32, 3)
    assert not np.array_equal(one, house_number(7, fonts, seed=6))


def test_a_different_digit_is_a_different_picture() -> None:
    fonts = font_files()
    assert not np.array_equal(house_number(1, fonts, seed=5), house_number(8, fonts, seed=5))


def test_a_pen_draws_another_picture() -> None:
    fonts = font_files()
    pen = house_number(7, fonts, seed=5, pen=1.0)
    assert not np.array_equal(pen, house_number(7, fonts, seed=5))
    assert np.array_equal(pen, house_number(7, fonts, seed=5, pen=1.0))


def test_every_digit_comes_equally_often() -> None:
    pictures, labels = house_numbers(300)  # more than a byte counts
    assert pictures.shape == (300, 32, 32, 3)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [number % 10 for number in range(300)]
    assert pictures.std((1, 2, 3)).min() > 1  # none is blank


def test_all_cores_draw_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = house_numbers(30, seed=2, pen=0.5)
    monkeypatch.setattr("training.render.APIECE", 1)
    drawn, labels = house_numbers(30, seed=2, pen=0.5)
    assert np.array_equal(drawn, expected)
    assert labels[:12].tolist() == [*range(10), 0, 1]
