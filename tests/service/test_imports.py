import os
import subprocess
import sys
from pathlib import Path

import pytest

FORBIDDEN = "torch", "training", "onnx", "scipy"

PROGRAM = """
import sys
for name in {forbidden}:
    sys.modules[name] = None  # makes an import of it fail
import {module}
from click.testing import CliRunner
from service.cli import main
result = CliRunner().invoke(main, {arguments})
print(result.output)
assert result.exit_code == 0, result.output
loaded = [name for name in {absent} if sys.modules.get(name)]
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    ("module", "arguments", "absent"),
    [
        ("service.app", ["serve", "--help"], FORBIDDEN),
        ("service.server", ["transfer", "--help"], FORBIDDEN),
        ("service.cli", ["--help"], (*FORBIDDEN, "onnxruntime", "fastapi", "numpy")),
    ],
)
def test_the_service_needs_nothing_of_training(
    module: str, arguments: list[str], absent: tuple[str, ...]
) -> None:
    program = PROGRAM.format(forbidden=FORBIDDEN, module=module, arguments=arguments, absent=absent)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Usage: " in result.stdout


def test_onnxruntime_reports_nothing_to_its_maker(models_dir: Path, tmp_path: Path) -> None:
    program = "from pathlib import Path; from service.models import Model; Model(Path({!r}))"
    result = subprocess.run(
        [sys.executable, "-c", program.format(str(models_dir / "digits"))],
        env={k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        check=True,
    )
    assert result.returncode == 0
    assert list(tmp_path.iterdir()) == []  # where it reports, a session's id lies here
