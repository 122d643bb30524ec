import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.manifest import ModelError, read_file, read_manifest

Make = Callable[..., Path]


def test_a_manifest_says_what_model_it_is(make_model: Make) -> None:
    manifest = read_manifest(make_model())
    assert manifest.reference == "digits@1"
    assert set(manifest.graphs) == {"transfer", "distance"}


def test_keys_of_a_later_schema_minor_are_ignored(make_model: Make) -> None:
    assert read_manifest(make_model(authors=["someone"])).name == "digits"


GRAPH = {"file": "model.onnx", "sha256": "0" * 64, "bytes": 1}
ALL = dict.fromkeys(("transfer", "distance", "detect"), GRAPH)
ALIGNMENT = {"side": 152, "left_eye": [0.365, 0.48], "right_eye": [0.635, 0.48]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "schema"),
        ({"name": "../digits"}, "name"),
        ({"name": "other"}, "is of 'other@1'"),
        ({"version": "1\r\nX-Header: x"}, "version"),
        ({"graphs": {}}, "no `transfer`"),
        ({"graphs": {"transfer": GRAPH | {"sha256": "abc"}}}, "graphs.transfer.sha256"),
        ({"graphs": {"transfer": GRAPH, "other": GRAPH}}, "graphs.other"),
        ({"distance_output": None}, "distance_output"),
        ({"input": {"name": "x", "dtype": "float32", "shape": ["N", 3, 8, 8]}}, "input.dtype"),
        ({"output": {"name": "y", "dtype": "uint8", "shape": ["N", 8, 8, 2]}}, "output.shape"),
        ({"metrics": {"accuracy": 0.9}}, "metrics.accuracy"),
        ({"limits": None}, "limits"),
        ({"weights": {"file": "weights.bin"}}, "weights.sha256"),
        ({"alignment": ALIGNMENT}, "graphs has no `detect`"),
        ({"alignment": ALIGNMENT, "graphs": {"transfer": GRAPH}}, "no `detect`, no `distance`"),
        ({"alignment": ALIGNMENT, "graphs": ALL}, "the output of a model with alignment is [64"),
        ({"alignment": ALIGNMENT | {"left_eye": [0.7, 0.5]}}, "left_eye is not left of"),
        ({"alignment": ALIGNMENT | {"left_eye": [-0.1, 0.5]}}, "alignment.left_eye.0"),
        ({"alignment": ALIGNMENT | {"side": 0}}, "alignment.side"),
    ],
)
def test_an_invalid_manifest_is_refused_in_one_line(
    make_model: Make, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError) as refused:
        read_manifest(make_model(**changes))
    assert reason in str(refused.value)
    assert "manifest.json" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '"digits"', "\xff"])
def test_what_is_no_manifest_is_refused(make_model: Make, content: str) -> None:
    folder = make_model()
    (folder / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match="manifest"):
        read_manifest(folder)


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        read_manifest(tmp_path)


def test_a_graph_of_another_hash_is_refused(make_model: Make) -> None:
    folder = make_model()
    graph = read_manifest(folder).graphs["transfer"]
    content = read_file(folder, graph)
    (folder / graph.file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError, match=f"sha256 is .*, the manifest says {graph.sha256}"):
        read_file(folder, graph)


def test_a_missing_graph_is_refused(make_model: Make) -> None:
    folder = make_model()
    graph = read_manifest(folder).graphs["distance"]
    (folder / graph.file).unlink()
    with pytest.raises(ModelError, match=r"distance\.onnx: No such file"):
        read_file(folder, graph)


def test_a_graph_of_another_size_is_refused(make_model: Make) -> None:
    folder = make_model()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["transfer"]["bytes"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="bytes, the manifest says"):
        read_file(folder, read_manifest(folder).graphs["transfer"])


@pytest.mark.parametrize("how", ["../outside.onnx", "absolute", "link"])
def test_a_graph_outside_the_folder_is_refused(make_model: Make, how: str) -> None:
    folder = make_model()
    graph = read_manifest(folder).graphs["transfer"]
    outside = folder.parent / "outside.onnx"
    outside.write_bytes((folder / graph.file).read_bytes())
    if how == "link":
        (folder / graph.file).unlink()
        (folder / graph.file).symlink_to(outside)
        file = graph.file
    else:
        file = str(outside) if how == "absolute" else how
    with pytest.raises(ModelError, match="outside the model folder"):
        read_file(folder, graph.model_copy(update={"file": file}))
