"""Classifiers that several runs have in common: f and the judge are trained once, then lent.

A run of a table differs from its neighbours in g and D alone. What was taught in the same way,
from the same pictures and with the same seed, is the same network.
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from training.config import DigitsConfig, of_digits
from training.dann import train_dann
from training.parallel import first_alone, rank
from training.rows import DANN
from training.run import Run
from training.train import JUDGE_SEED, train, write_metrics


def shelf_names(config: DigitsConfig) -> dict[str, str]:
    """Of f.pt and judge.pt of a run: their names on the shelf, by all that makes them."""
    common = [config.holdout, config.bf16]
    made_by = {
        "f.pt": [dataclasses.asdict(config.f), config.seed, "f" in config.omit, *common],
        "judge.pt": [dataclasses.asdict(config.judge), JUDGE_SEED, config.reverse, *common],
    }
    return {
        name: hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12] + "-" + name
        for name, parts in made_by.items()
    }


def lend(run: Run, shelf: Path) -> None:
    """Give `run` the finished classifiers that it has not yet begun."""
    for name, kept in shelf_names(of_digits(run.config)).items():
        if (shelf / kept).exists() and not (run.folder / name).exists():
            copy(shelf / kept, run.folder / name)


def keep(run: Run, shelf: Path) -> None:
    """Put the classifiers of the finished `run` on the shelf."""
    shelf.mkdir(parents=True, exist_ok=True)
    for name, kept in shelf_names(of_digits(run.config)).items():
        if not (shelf / kept).exists():
            copy(run.folder / name, shelf / kept)


def copy(source: Path, target: Path) -> None:
    """Whole or not at all, whoever else copies to there."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / target.name
        shutil.copyfile(source, part)
        part.replace(target)


def train_digits(
    run: Run, data: Path, shelf: Path | None = None, adapt: bool = False
) -> dict[str, Any]:
    """Train what `run` has not finished yet, with classifiers of `shelf` where it is given; its
    metrics, which rank 0 has measured. With `adapt`, those of a classifier taught on G(s), too.
    """
    if run.name == DANN.preset:
        return train_dann(run, data)
    if shelf is not None:
        first_alone(lambda: lend(run, shelf))
    trained = train(run, data)
    if rank() > 0:
        return {}
    metrics = write_metrics(run, trained, adapt)
    if shelf is not None:
        keep(run, shelf)
    return metrics
