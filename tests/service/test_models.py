import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.manifest import ModelError
from service.models import Model, Models, load_models
from service.problems import Problem
from tests.service.dummy import dummy_graph, noise
from tests.service.dummy_faces import UPSCALE, graph, photo_of, write_face_model

Make = Callable[..., Path]


@pytest.mark.parametrize("size", [(30, 40), (1, 1), (200, 3)])
def test_pixels_are_those_of_bare_onnxruntime(models_dir: Path, size: tuple[int, int]) -> None:
    x = np.stack([noise(*size, seed=seed) for seed in range(3)])
    bare = ort.InferenceSession(models_dir / "digits" / "distance.onnx")
    y, f_distance = bare.run(["y", "f_distance"], {"x": x})
    model = Model(models_dir / "digits")
    assert np.array_equal(model(x)[0], y)
    assert model(x)[1] == [None, None, None]
    assert np.array_equal(model(x, distance=True)[0], y)
    assert model(x, distance=True)[1] == [float(d) for d in f_distance]


def test_a_distance_that_is_no_number_is_none(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(models_dir / "digits")
    y, d = np.zeros((2, 32, 32, 1), np.uint8), np.array([np.nan, np.inf], np.float32)

    class Session:
        def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [y, d]

    monkeypatch.setitem(model.sessions, "distance", Session())
    assert model(noise(8, 8)[None], distance=True)[1] == [None, None]


def test_a_failing_run_is_the_pictures_fault(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        Problem, match="digits@1 cannot process a picture of 0 x 7 pixels"
    ) as raised:
        Model(models_dir / "digits")(np.zeros((1, 7, 0, 3), np.uint8))
    assert raised.value.code == "invalid_parameter"
    assert "failed on a picture of shape (7, 0, 3)" in caplog.text


def test_a_card_says_what_is_in_use(models: Models) -> None:
    digits, emoji, plain = models.cards()
    assert (digits.model, digits.default, plain.default) == ("digits@1", True, False)
    assert emoji.alignment is not None
    assert (digits.device, digits.provider) == ("cpu", "CPUExecutionProvider")
    assert digits.sha256 == digits.graphs["transfer"].sha256
    assert set(digits.graphs) == {"transfer", "distance"}
    assert set(plain.graphs) == {"transfer"}
    assert digits.metrics["transfer_accuracy"]["value"] == 0.5


@pytest.mark.parametrize("reference", ["plain", "plain@1"])
def test_a_model_is_found_by_name_and_version(models: Models, reference: str) -> None:
    assert models.find(reference).reference == "plain@1"
    assert models.find(None).reference == "digits@1"


@pytest.mark.parametrize("reference", ["", "@", "@1", "digits@", "digits@2", "DIGITS", "../digits"])
def test_no_other_model_is_found(models: Models, reference: str) -> None:
    with pytest.raises(Problem, match="there is: digits@1, emoji@1, plain@1") as raised:
        models.find(reference)
    assert raised.value.code == "unknown_model"


def graphs(content: bytes) -> dict[str, dict[str, object]]:
    digest = sha256(content).hexdigest()
    return {"transfer": {"file": "model.onnx", "sha256": digest, "bytes": len(content)}}


def test_a_file_that_is_no_graph_is_refused(make_model: Make) -> None:
    folder = make_model(graphs=graphs(b"no graph"))
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"model\.onnx: onnxruntime refuses the graph"):
        Model(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input": {"name": "z", "dtype": "uint8", "shape": ["N", "H", "W", 3]}}, "inputs"),
        ({"output": {"name": "z", "dtype": "uint8", "shape": ["N", 32, 32, 1]}}, "no output"),
        ({"distance_output": "z"}, "no output"),
    ],
)
def test_a_graph_of_other_inputs_and_outputs_is_refused(
    make_model: Make, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        Model(make_model(**changes))


@pytest.mark.parametrize("fixed", ["N", "H", "W"])
def test_a_graph_that_takes_one_size_only_is_refused(make_model: Make, fixed: str) -> None:
    content = dummy_graph(distance=False, fixed=fixed)
    folder = make_model(graphs=graphs(content))
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="takes one size only"):
        Model(folder)


def test_warm_up_finds_an_output_of_another_shape(make_model: Make) -> None:
    shape = {"name": "y", "dtype": "uint8", "shape": ["N", 64, 64, 1]}
    with pytest.raises(ModelError, match=r"warm-up with 32 x 32 .* answers uint8\[1, 32, 32, 1\]"):
        Model(make_model(output=shape)).warm_up()


def test_warm_up_finds_a_graph_that_fails(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(models_dir / "digits")

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory\nmore")

    monkeypatch.setattr(model, "run", fail)
    with pytest.raises(ModelError, match=r"digits@1: warm-up with 32 x 32 pixels: out of memory$"):
        model.warm_up()


def test_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no models in"):
        load_models(tmp_path, "digits", "cpu", threads=1)
    with pytest.raises(ModelError, match=r"no models: .*missing: No such file"):
        load_models(tmp_path / "missing", "digits", "cpu", threads=1)


def test_a_missing_default_is_refused(models_dir: Path) -> None:
    reason = r"models\d*: no model 'nobody' .*there is: digits, emoji, plain"
    with pytest.raises(ModelError, match=reason):
        load_models(models_dir, "nobody", "cpu", threads=1)


def test_files_and_hidden_folders_beside_models_are_no_models(
    models_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(models_dir / "digits", tmp_path / "digits")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").touch()
    models = load_models(tmp_path, "digits", "cpu", threads=1)
    assert [model.reference for model in models] == ["digits@1"]


# Models of faces


def test_tensors_in_a_file_of_their_own_are_the_ones_that_were_checked(tmp_path: Path) -> None:
    folder = write_face_model(tmp_path)
    model = Model(folder)
    x = noise(64, 64)[np.newaxis]
    assert np.array_equal(model(x)[0], x)
    (folder / "weights.bin").unlink()
    assert np.array_equal(model(x)[0], x)


def test_changed_tensors_are_refused(tmp_path: Path) -> None:
    folder = write_face_model(tmp_path)
    content = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(content[:-1] + b"\xff")
    with pytest.raises(ModelError, match=r"weights\.bin: sha256 is"):
        Model(folder)


def test_tensors_that_the_manifest_does_not_name_are_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx: onnxruntime refuses the graph"):
        Model(write_face_model(tmp_path, weights=None))


def test_faces_are_detected_and_emoji_enlarged(models: Models) -> None:
    model = models.find("emoji")
    boxes, scores, points = model.detect(np.asarray(photo_of((60, 80, 120, "red"))))
    assert boxes.tolist() == [[60, 80, 180, 200]]
    assert scores.tolist() == [0.75]
    assert points[0, :2].tolist() == [[96, 128], [144, 128]]
    assert model.upscale(noise(64, 64)).shape == (512, 512, 3)
    model.warm_up()


class Failing:
    """A session that cannot run."""

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> None:
        raise RuntimeError("out of memory")


def test_a_failing_detector_or_upscaler_is_the_pictures_fault(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model(models_dir / "emoji")
    model.sessions |= {"detect": Failing(), "upscale": Failing()}
    for run in (model.detect, model.upscale):
        with pytest.raises(Problem, match="emoji@1 cannot process a picture of 9 x 8 pixels"):
            run(noise(8, 9))
    with pytest.raises(ModelError, match=r"emoji@1: warm-up: out of memory"):
        model.warm_up()
    assert "failed on a picture of shape (8, 9, 3)" in caplog.text


OTHER_OUTPUT = UPSCALE.replace("[N, 512, 512, 3] y", "[N, 512, 512, 3] z").replace("y =", "z =")


@pytest.mark.parametrize(
    ("role", "text", "reason"),
    [
        ("detect", UPSCALE, r"detect\.onnx: input 'x' takes one size only"),
        ("upscale", OTHER_OUTPUT, "has no output"),
        ("upscale", UPSCALE.replace("512", "256"), r"upscale answers uint8\[256, 256, 3\]"),
    ],
)
def test_another_graph_in_a_role_is_refused(
    tmp_path: Path, role: str, text: str, reason: str
) -> None:
    folder = write_face_model(tmp_path)
    content = graph(text)
    (folder / f"{role}.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"][role] |= {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=reason):
        Model(folder).warm_up()


def test_two_that_warm_a_model_up_do_it_once(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Model] = []

    def slowly(model: Model) -> None:
        time.sleep(0.05)
        runs.append(model)

    monkeypatch.setattr("service.models.warm_up", slowly)
    model = Model(models_dir / "digits")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: model.warm_up(), range(2)))
    assert runs == [model]


def test_a_failed_warm_up_is_tried_again(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(models_dir / "digits")
    monkeypatch.setitem(model.sessions, "transfer", Failing())
    for _ in range(2):
        with pytest.raises(ModelError, match="out of memory"):
            model.warm_up()
