"""How many pictures one run should draw, as warm-up finds it."""

import time
from pathlib import Path

from service.models import Model
from service.pictures import Pixels
from service.warm_up import best_of


def test_warm_up_finds_how_many_pictures_pay(models_dir: Path) -> None:
    class PerRun(Model):
        """A model whose runs take a millisecond and 50 us a picture."""

        def run(self, x: Pixels, distance: bool) -> tuple[Pixels, list[float | None]]:
            time.sleep(0.001 + len(x) * 0.00005)
            return super().run(x, distance)

    per_run = PerRun(models_dir / "digits")
    per_run.device = "cuda"  # on the CPU, sleeping does not count
    per_run.warm_up()
    assert per_run.most >= 16


def test_on_a_cpu_runs_that_take_long_are_not_made_longer(models_dir: Path) -> None:
    class Slow(Model):
        """A model whose every run computes for 50 ms."""

        def run(self, x: Pixels, distance: bool) -> tuple[Pixels, list[float | None]]:
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                pass
            return super().run(x, distance)

    slow = Slow(models_dir / "digits")
    slow.warm_up()
    assert slow.most == 1


def test_on_a_cpu_a_size_of_run_that_was_measured_badly_does_not_make_runs_small() -> None:
    seconds = {1: 4.87, 2: 3.38, 4: 2.34, 8: 2.86, 16: 2.37, 32: 2.41}
    assert best_of(seconds, "cpu") == 32
    assert best_of(seconds, "cuda") == 4
    slower = seconds | {16: 2.6, 32: 2.7}
    assert best_of(slower, "cpu") == 4
