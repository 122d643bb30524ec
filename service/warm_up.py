"""A model's first runs, before anybody waits for one: every graph answers as its manifest says, all
is allocated, and how many pictures a run should draw is known.
"""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from service.cuda import RECORDED, SIZES, CudaSession, LaneSession
from service.manifest import EMOJI_SHAPE, UPSCALED, ModelError, Tensor
from service.pictures import Pixels
from service.problems import Problem
from service.sessions import first_line

if TYPE_CHECKING:
    from service.models import Model

log = logging.getLogger(__name__)

# Heights and widths that a model must cope with before it counts as ready: usual ones, then
# the extremes that make a letterbox round a side to nothing.
WARM_UP_SIZES = ((32, 32), (96, 96), (97, 43), (1, 1), (1, 200), (200, 1))

# Pictures of one run on a CPU, tried at warm-up until a run takes LONG_RUN_S; more hardly pay
# there, and let others wait. On a GPU all SIZES are tried.
RUN_SIZES = (1, 2, 4, 8, 16)
LONG_RUN_S = 0.04
# Sizes are as good as the fastest per picture where they take at most so many times its seconds.
# Of these a CPU takes the largest: what is measured there scatters, and small runs lose more than
# large ones. A GPU takes the smallest, lest it be too many to begin a second run beside.
AS_GOOD = {"cpu": 1.1, "cuda": 1.02}
# What a run costs beside itself where all cores are busy: threads are woken, arrays put together,
# caches filled anew.
HANDLING_S = {"cpu": 1e-3, "cuda": 3e-4}
TRIAL_SIDE = 32


def warm_up(model: "Model") -> None:
    """Run every graph on small pictures, so that the first request finds all allocated, and
    find how many pictures one run should draw.

    Raises ModelError where a graph fails or answers other than its manifest says.
    """
    try:
        warm_lanes(model)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"{model.reference}: warm-up: {first_line(error)}") from error
    for distance in (False, True) if model.has_distance else (False,):
        for height, width in WARM_UP_SIZES:
            x = np.full((1, height, width, 3), 127, np.uint8)
            where = f"{model.reference}: warm-up with {width} x {height} pixels"
            try:
                y, f_distance = model.run(x, distance)
            except Exception as error:  # as above
                raise ModelError(f"{where}: {first_line(error)}") from error
            if y.dtype != np.uint8 or y.shape != output_shape(model.manifest.output, y.shape):
                raise ModelError(f"{where}: answers {y.dtype}{list(y.shape)}")
            if distance and (len(f_distance) != 1 or f_distance[0] is None):
                raise ModelError(f"{where}: the distance is {f_distance}")
    try:
        warm_up_others(model)
        with model.company:  # the same by the sessions of runs that are not alone
            warm_up_others(model)
    except Problem as problem:
        raise ModelError(f"{model.reference}: warm-up: {problem.__cause__}") from problem
    for size in SIZES:
        prepare(model, size)
    model.most = best_size(model)
    record(model)


def run(model: "Model", size: int, distance: bool) -> None:
    """Raises ModelError where a run of that many usual pictures fails."""
    try:
        model.run(trial(model, size), distance)
    except Exception as error:  # onnxruntime's exceptions share no base class
        where = f"{model.reference}: warm-up with {size} pictures"
        raise ModelError(f"{where}: {first_line(error)}") from error


def warm_lanes(model: "Model") -> None:
    """On a GPU, run every graph on each thread that runs any. Raises as onnxruntime does."""
    large = np.full((1, *EMOJI_SHAPE), 127, np.uint8)
    for role, session in model.sessions.items():
        if isinstance(session, LaneSession):
            feed = {session.input: large if role == "upscale" else trial(model, 1)}
            session.warm_up(model.outputs(role), feed)


def sessions_of_g(model: "Model") -> dict[str, CudaSession]:
    """Of G on a GPU, by role."""
    return {r: each for r, each in model.sessions.items() if isinstance(each, CudaSession)}


def prepare(model: "Model", size: int) -> None:
    """On a GPU, let runs of that many pictures have a session of their own; where that can't be,
    they have that of another size."""
    for role, session in sessions_of_g(model).items():
        try:
            session.prepare(model.outputs(role), {session.input: trial(model, size)})
        except Exception as error:  # onnxruntime's exceptions share no base class
            what = f"{model.reference}: no session of {role} for {size} pictures"
            log.warning("%s: %s", what, first_line(error))


def record(model: "Model") -> None:
    """On a GPU, record the small runs of usual pictures; where it can't, they stay plain."""
    for role, session in sessions_of_g(model).items():
        session.forget_above(model.most)
        try:
            for size in (size for size in RECORDED if size <= model.most):
                session.record(model.outputs(role), {session.input: trial(model, size)})
        except Exception as error:  # onnxruntime's exceptions share no base class
            reason = first_line(error)
            log.warning("%s: runs of %s are not recorded: %s", model.reference, role, reason)


def best_size(model: "Model") -> int:
    """How many pictures one run should draw, as best_of has it of short trials."""
    if isinstance(model.manifest.input.shape[0], int):
        return 1
    # A run of one thread is timed by what it computes, whatever else the machine does.
    alone = model.device == "cpu" and model.threads == 1
    clock = time.thread_time if alone else time.perf_counter
    seconds: dict[int, float] = {}  # per picture, by size
    on_gpu = sessions_of_g(model).get("transfer")
    sizes: Sequence[int] = RUN_SIZES if model.device == "cpu" else SIZES
    if on_gpu is not None:
        sizes = sorted(on_gpu.sized) or sizes[:1]
    for size in sizes:
        trials = []
        for _ in range(3):  # the first allocates
            start = clock()
            run(model, size, distance=False)
            trials.append((clock() - start + HANDLING_S[model.device]) / size)
        seconds[size] = min(trials)
        if on_gpu is None and seconds[size] * size > LONG_RUN_S:
            break
    return best_of(seconds, model.device)


def best_of(seconds: dict[int, float], device: Literal["cpu", "cuda"]) -> int:
    """Which of these sizes, with the seconds per picture that each took, runs should have."""
    bound = min(seconds.values()) * AS_GOOD[device]
    good = [size for size, taken in seconds.items() if taken <= bound]
    return max(good) if device == "cpu" else min(good)


def trial(model: "Model", size: int) -> Pixels:
    """That many grey pictures of a usual size."""
    side = model.manifest.alignment.side if model.manifest.alignment else TRIAL_SIDE
    return np.full((size, side, side, 3), 127, np.uint8)


def warm_up_others(model: "Model") -> None:
    """The part of warm_up that is about the graphs beside G. Raises ModelError, Problem."""
    if "detect" in model.sessions:
        for height, width in WARM_UP_SIZES:
            boxes, scores, points = model.detect(np.full((height, width, 3), 127, np.uint8))
            m = len(scores)
            shapes = [list(found.shape) for found in (boxes, scores, points)]
            if shapes != [[m, 4], [m], [m, 5, 2]]:
                raise ModelError(f"{model.reference}: warm-up: detect answers {shapes}")
    if model.has_upscale:
        large = model.upscale(np.full(EMOJI_SHAPE, 127, np.uint8))
        if large.dtype != np.uint8 or large.shape != (UPSCALED, UPSCALED, EMOJI_SHAPE[2]):
            raise ModelError(
                f"{model.reference}: warm-up: upscale answers {large.dtype}{list(large.shape)}"
            )


def output_shape(y: Tensor, actual: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an output for one picture must have; free axes are taken as they come."""
    if len(actual) != len(y.shape):
        return ()
    axes = zip(y.shape[1:], actual[1:], strict=True)
    return (1, *(said if isinstance(said, int) else found for said, found in axes))
