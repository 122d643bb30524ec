"""Where graphs run: on the device asked for, or not at all; a GPU is pretended."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from service.cuda import LANES, SIZES, CudaSession, LaneSession
from service.manifest import ModelError
from service.models import Model, load_models
from service.sessions import Company, CPUSession
from tests.service.dummy import noise

Make = Callable[..., Path]


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA is available"
)
def test_cuda_is_refused_where_there_is_none(models_dir: Path) -> None:
    with pytest.raises(ModelError, match="DTN_DEVICE=cuda: this onnxruntime has no CUDA"):
        Model(models_dir / "digits", "cuda")


class OnGpu:
    """A session that says it is on the GPU, and notes how many runs there are at once."""

    def __init__(self, session: Any) -> None:
        self.session, self.running, self.most = session, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def run(self, names: list[str] | None, feed: dict[str, np.ndarray]) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(0.02)
        self.running -= 1
        return self.session.run(names, feed)


def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """An onnxruntime built with CUDA, on a machine without: it falls back in silence."""
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    asked: list[object] = []
    real = ort.InferenceSession

    def fall_back(content: bytes, options: object, providers: list[object]) -> object:
        asked.extend(providers)
        return real(content, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    monkeypatch.setattr(ort, "preload_dlls", lambda: asked.append("preload"), raising=False)
    monkeypatch.setattr(ort, "InferenceSession", fall_back)
    return asked


def test_cuda_is_refused_where_it_is_not_really_in_use(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend_cuda(monkeypatch)
    with pytest.raises(ModelError, match=r"could not start CUDA.* would use CPUExecutionProvider"):
        Model(models_dir / "digits", "cuda")
    assert asked[0] == "preload"
    assert asked[1][0] == "CUDAExecutionProvider"  # type: ignore[index]


@pytest.mark.parametrize("tf32", [False, True])
def test_a_gpu_rounds_numbers_where_the_manifest_allows_it(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, tf32: bool
) -> None:
    asked = pretend_cuda(monkeypatch)
    Model(make_model(tf32=tf32), "auto")
    _, options = asked[1]  # type: ignore[misc]
    assert (options["use_tf32"], options["prefer_nhwc"]) == ("01"[tf32], "01"[tf32])


def test_auto_takes_the_cpu_where_cuda_does_not_work_and_says_so(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = pretend_cuda(monkeypatch)
    with caplog.at_level("INFO"):
        models = load_models(models_dir, "digits", "auto", threads=1)
    assert asked[0] == "preload"
    assert {card.provider for card in models.cards()} == {"CPUExecutionProvider"}
    assert "digits@1 runs on cpu (CPUExecutionProvider)" in caplog.text
    assert "CUDA is not used: onnxruntime could not start CUDAExecutionProvider" in caplog.text


def test_auto_takes_the_cpu_where_a_first_run_on_cuda_fails(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_cuda(monkeypatch)
    fall_back = ort.InferenceSession

    class Broken(OnGpu):
        def run(self, names: list[str] | None, feed: dict[str, np.ndarray]) -> Any:
            raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED\nmore")

    def session(content: bytes, options: object, providers: list[object]) -> object:
        real = fall_back(content, options, providers)
        return real if providers == ["CPUExecutionProvider"] else Broken(real)

    monkeypatch.setattr(ort, "InferenceSession", session)
    assert Model(models_dir / "plain", "auto").device == "cpu"
    assert "CUDA is not used: a first run failed: CUDNN_STATUS_NOT_INITIALIZED" in caplog.text
    with pytest.raises(ModelError, match="DTN_DEVICE=cuda: a first run failed: CUDNN"):
        Model(models_dir / "plain", "cuda")


def test_cpu_does_not_touch_cuda(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pretend_cuda(monkeypatch)
    assert Model(models_dir / "digits", "cpu").device == "cpu"
    assert asked == ["CPUExecutionProvider"] * 2


def test_sessions_are_set_up_to_share_the_cores(models_dir: Path) -> None:
    session = Model(models_dir / "digits", threads=3).sessions["transfer"]
    options = session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_session_never_changes_its_device_while_it_runs(models_dir: Path) -> None:
    session = Model(models_dir / "digits").sessions["transfer"]
    assert session._enable_fallback is False


@pytest.fixture
def on_gpu(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model that takes the CPU for a GPU."""
    pretend_cuda(monkeypatch)
    fall_back = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", lambda *a, **k: OnGpu(fall_back(*a, **k)))
    return Model(models_dir / "digits", "cuda")


def test_cuda_in_use_is_told_and_runs_take_turns(on_gpu: Model) -> None:
    card = on_gpu.card(default=False)
    assert (card.device, card.provider) == ("cuda", "CUDAExecutionProvider")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(on_gpu, [noise(8, 8)[np.newaxis]] * 8))
    assert len(answers) == 8
    assert on_gpu.sessions["transfer"].session.most == LANES


def test_a_gpu_has_a_session_for_every_size_of_run_before_it_is_ready(on_gpu: Model) -> None:
    on_gpu.warm_up()
    assert on_gpu.most >= 64  # 20 ms a run, whatever its size
    for role in ("transfer", "distance"):
        session = on_gpu.sessions[role]
        assert isinstance(session, CudaSession)
        assert sorted(session.sized) == [size for size in SIZES if size <= on_gpu.most]


def test_where_runs_cannot_be_recorded_they_stay_plain(
    on_gpu: Model, caplog: pytest.LogCaptureFixture
) -> None:
    on_gpu.warm_up()  # this onnxruntime has no memory on a GPU to record into
    assert caplog.text.count("are not recorded") == 2
    y, _ = on_gpu(noise(32, 32)[np.newaxis], distance=True)
    assert y.shape == (1, 32, 32, 1)


def test_a_gpu_that_is_too_small_for_a_size_of_run_does_with_smaller_ones(
    on_gpu: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = OnGpu.run

    def out_of_memory(self: OnGpu, names: list[str] | None, feed: dict[str, np.ndarray]) -> Any:
        if len(feed["x"]) > 32:
            raise RuntimeError("no memory")
        return run(self, names, feed)

    monkeypatch.setattr(OnGpu, "run", out_of_memory)
    on_gpu.warm_up()
    assert on_gpu.most == 32
    assert "no session of transfer for 48 pictures: no memory" in caplog.text


def test_photographs_are_searched_for_faces_on_the_cpu(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch)
    fall_back = ort.InferenceSession

    def on_what_is_asked(content: bytes, options: object, providers: list[object]) -> object:
        session = fall_back(content, options, providers=providers)
        return session if providers == ["CPUExecutionProvider"] else OnGpu(session)

    monkeypatch.setattr(ort, "InferenceSession", on_what_is_asked)
    model = Model(models_dir / "emoji", "cuda")
    assert (model.device, model.provider) == ("cuda", "CUDAExecutionProvider")
    assert not isinstance(model.sessions["detect"], LaneSession)
    assert isinstance(model.sessions["upscale"], LaneSession)


class Named:
    """A session that answers its name, once it may."""

    def __init__(self, name: str) -> None:
        self.name, self.may = name, Event()

    def run(self, names: list[str], feed: dict[str, Any]) -> list[str]:
        assert self.may.wait(10)
        return [self.name]


def test_a_run_that_is_alone_has_more_threads() -> None:
    narrow, wide = Named("narrow"), Named("wide")
    company = Company()
    detect, g = CPUSession(narrow, wide, company), CPUSession(narrow, None, company)
    narrow.may.set()
    assert g.run([], {}) == ["narrow"]
    with ThreadPoolExecutor() as pool:
        alone = pool.submit(detect.run, [], {})
        while company.runs == 0:
            time.sleep(0.001)
        assert detect.run([], {}) == ["narrow"]
        wide.may.set()
        assert alone.result() == ["wide"]
    assert detect.run([], {}) == ["wide"]
    with company:
        assert detect.run([], {}) == ["narrow"]


def test_a_run_that_fails_is_over() -> None:
    company = Company()
    session = CPUSession(None, None, company)
    with pytest.raises(AttributeError):
        session.run([], {})
    assert company.runs == 0


def test_what_runs_alone_answers_the_same(models_dir: Path) -> None:
    usual, wide = Model(models_dir / "emoji"), Model(models_dir / "emoji", alone=2)
    wide.warm_up()
    assert not isinstance(usual.sessions["detect"], CPUSession)
    assert wide.sessions["detect"].wide is not wide.sessions["detect"].session
    assert wide.sessions["distance"].wide is wide.sessions["distance"].session
    x = noise(64, 64)
    assert np.array_equal(usual.upscale(x), wide.upscale(x))
    for expected, found in zip(usual.detect(x), wide.detect(x), strict=True):
        assert np.array_equal(expected, found)


def test_a_model_without_such_graphs_has_one_session_each(models_dir: Path) -> None:
    model = Model(models_dir / "digits", alone=4)
    assert not any(isinstance(session, CPUSession) for session in model.sessions.values())
