import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service import cli
from service.cli import OWN, registered, summary, texts
from tests.service.test_commands import Point, refused, register

Dtn = Callable[..., Result]
HEAVY = ("torch", "onnx", "onnxruntime", "fastapi", "numpy", "scipy", "sqlalchemy", "httpx", "PIL")


@pytest.fixture
def dtn() -> Dtn:
    return lambda *arguments: CliRunner().invoke(cli.main, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("typed", "meant"), [("srve", "dtn serve"), ("trian", "dtn train"), ("model", "dtn models")]
)
def test_an_unknown_command_is_told_the_nearest(dtn: Dtn, typed: str, meant: str) -> None:
    result = dtn(typed)
    refused(result, f"No such command '{typed}'; did you mean {meant}")


def test_a_command_like_no_other_is_told_where_to_look(dtn: Dtn) -> None:
    refused(dtn("fly"), "No such command 'fly'; dtn --help lists them")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--nonsense"], "No such option '--nonsense'. See dtn --help."),
        (["serve", "--prot", "1"], "See dtn serve --help."),
        (["serve", "--port", "x"], "Invalid value for '--port': 'x' is not a valid integer"),
        (["transfer"], "Missing argument 'PHOTOS...'. See dtn transfer --help."),
        (["transfer", "a.png", "--size", "65"], "'65' is not one of '64', '128', '256', '512'"),
        (["train", "nobody"], "'nobody' is not one of"),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_misuse_is_one_line(dtn: Dtn, arguments: list[str], reason: str) -> None:
    refused(dtn(*arguments), reason)


def test_no_command_is_a_call_for_help(dtn: Dtn) -> None:
    result = dtn()
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_every_own_command_is_there_under_its_name_with_help(dtn: Dtn) -> None:
    for name in OWN:
        result = dtn(name, "--help")
        assert result.exit_code == 0, result.output
        assert f"Usage: dtn {name} " in result.output


# The line of --help of other packages' commands


def test_each_command_of_others_is_told_in_its_own_words() -> None:
    told = dict(texts())
    assert set(told) == {*OWN, *registered()}
    for name, point in registered().items():
        command = cli.load(name, point.module, point.attr, "training")
        assert told[name] == (command.help or "").partition("\n")[0]
        assert not told[name].startswith("From the package")


def test_where_there_is_no_word_the_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Point("a", "not_installed.cli", "a"), Point("b", "service.cli", "gone"))
    told = dict(texts())
    assert told["a"] == "From the package `not_installed`."
    assert told["b"] == "From the package `service`."
    assert summary("service.cli", "main") == "Train a Domain Transfer Network, export it, serve it."


PROGRAM = """
import sys
for name in {heavy}:
    sys.modules[name] = None  # makes an import of it fail
from service.cli import main
main({arguments}, prog_name="dtn")
"""


def light(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """dtn where nothing heavy can be imported."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY, arguments=list(arguments))],
        env={"PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    result = light("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Download SVHN" in result.stdout


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(dtn: Dtn, shell: str) -> None:
    result = dtn("completion", shell)
    assert result.exit_code == 0
    assert f"_DTN_COMPLETE={shell}_complete" in result.stdout


def test_completion_imports_nothing_heavy() -> None:
    result = light(_DTN_COMPLETE="bash_complete", COMP_WORDS="dtn tra", COMP_CWORD="1")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["plain,transfer", "plain,train"]


def test_completion_of_what_cannot_be_imported_is_silent() -> None:
    result = light(_DTN_COMPLETE="bash_complete", COMP_WORDS="dtn train --", COMP_CWORD="2")
    assert (result.returncode, result.stderr) == (0, "")


BASH = """
eval "$(dtn completion bash)"
complete -p dtn
ask() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _dtn_completion dtn
    echo "$*: ${COMPREPLY[*]}"
}
ask dtn do
ask dtn transfer --conc
ask dtn transfer a.png --format ""
ask dtn completion ""
ask dtn --vers
"""


def test_bash_completes_by_the_script(tmp_path: Path) -> None:
    command = tmp_path / "dtn"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service "$@"\n')
    command.chmod(0o755)
    result = subprocess.run(
        ["bash", "--norc", "-c", BASH],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(Path(cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.splitlines() == [
        "complete -o nosort -F _dtn_completion dtn",
        "dtn do: doctor",
        "dtn transfer --conc: --concurrency",
        "dtn transfer a.png --format : png webp jpeg",
        "dtn completion : bash zsh fish",
        "dtn --vers: --version",
    ], result.stderr
