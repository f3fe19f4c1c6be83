"""What a person sees: on terminals wide and narrow, in pipes, under old encodings, in notebooks."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import sys
import time
import warnings

import pytest

from tests import devices
from tests.conftest import ROOT, slow
from xpnet import terminal
from xpnet.training import Report

pytestmark = [
    pytest.mark.host,
    pytest.mark.needs("rich", "safetensors", "sklearn", "tomli_w"),
]

TRAIN = [sys.executable, str(ROOT / "train.py"), "digits-logistic"]


def report(epoch, **more):
    return Report(epoch, epoch * 23, 0.123456789, 0.001, 1.0, 12345.6, **more)


def on_a_terminal(command, columns, cwd, **environment):
    """Run a command on a pseudo-terminal; give its status and all that it wrote."""
    fcntl = pytest.importorskip("fcntl")
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env={**kept, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError as error:  # how Linux says that the other end is closed
            if error.errno != errno.EIO:
                raise
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(ours)
    return process.wait(timeout=60), b"".join(pieces)


def visible(written):
    """Give the lines without the sequences that move the cursor and set colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    return [line for line in re.split(r"[\r\n]+", text) if line]


@pytest.mark.parametrize("columns", [slow(40), 60, 80, slow(200)])
def test_a_terminal(tmp_path, columns):
    status, written = on_a_terminal([*TRAIN, "--out", "out"], columns, tmp_path)
    text = written.decode("utf-8")
    assert status == 0, text
    lines = visible(text)
    assert max(map(len, lines)) <= columns, max(lines, key=len)
    assert "\x1b[" in text
    assert any(re.search("60/60", line) for line in lines), lines
    assert any("cost 0.0" in line for line in lines)
    assert "Traceback" not in text
    header = next(line.split() for line in lines if line.startswith("recipe "))
    assert {"recipe", "train", "test"} <= set(header)
    assert ("samples/s" in header) == (columns >= 100)
    if columns == 60:
        assert any(re.search(r"validation accuracy 0\.\d{4} *$", line) for line in lines)
        assert not any("samples" in line for line in lines)
    if columns >= 80:
        assert any(re.search(r"\d+:\d\d left", line) for line in lines)
        assert any("validation accuracy 0.9" in line and "samples/s" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
def test_a_terminal_that_is_not_utf_8(tmp_path, encoding):
    status, written = on_a_terminal(
        [*TRAIN, "--out", "out"], 60, tmp_path, PYTHONIOENCODING=encoding
    )
    text = written.decode(encoding)
    assert status == 0, text
    assert max(map(len, visible(text))) <= 60
    assert "60/60" in text


@pytest.mark.slow
def test_a_dumb_terminal_gets_lines(tmp_path):
    status, written = on_a_terminal([*TRAIN, "--out", "out"], 80, tmp_path, TERM="dumb")
    assert status == 0
    assert "\x1b" not in written.decode()
    assert "epoch 60/60" in written.decode()


@pytest.mark.parametrize("encoding", [slow("utf-8"), slow("cp1252"), "ascii", slow("utf-16")])
def test_a_pipe_gets_plain_lines(tmp_path, encoding):
    done = subprocess.run(
        [*TRAIN, "--out", "out"],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "20"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode(encoding).splitlines()
    assert lines[0] == "digits-logistic on cpu" or lines[0].startswith("digits-logistic on cuda")
    assert re.fullmatch(
        r"  epoch  1/60  cost \d\.\d{6}  validation accuracy 0\.\d{4}  [\d,]+ samples/s  "
        r"\d+:\d\d left",
        lines[1],
    )
    assert re.match(r"  epoch 60/60  cost .* 0:00 left$", next(x for x in lines if "60/60" in x))
    assert all(line.isprintable() for line in lines)
    assert "samples/s" in lines[-3]  # no column is left out


def test_lines_come_about_once_a_second(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with terminal.Progress("title", epochs=100) as progress:
        for epoch in range(100):
            now[0] = epoch * 0.3
            progress(report(epoch))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title"
    assert len(lines) == 1 + 25 + 1
    assert lines[1] == "  epoch   1/100  cost 0.123457  12,346 samples/s  0:00 left"
    assert lines[3] == "  epoch   9/100  cost 0.123457  12,346 samples/s  0:24 left"
    assert lines[-1].startswith("  epoch 100/100  cost")


def test_a_score_that_is_no_accuracy_is_not_called_so(monkeypatch, capsys):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    for scores in ({"validation_accuracy": -0.25}, {"train_accuracy": -0.25}):
        with terminal.Progress("title", 1, "R2") as progress:
            progress(report(0, **scores))
        kind = "validation " if "validation_accuracy" in scores else ""
        assert f"  cost 0.123457  {kind}R2 -0.2500  12,346 samples/s" in capsys.readouterr().out


def test_the_last_report_of_a_run_that_is_stopped_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with terminal.Progress("title", epochs=100) as progress:
        for epoch in range(5):
            progress(report(epoch))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["1/100", "5/100"]


def test_a_table_is_aligned_as_it_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "_encodable", lambda text: text.replace("\xe9", "\\xe9"))
    terminal.print_table(("name", "n"), [("caf\xe9", "1"), ("tea", "12")], ())
    assert capsys.readouterr().out == "\nname      n\n-------  --\ncaf\\xe9   1\ntea      12\n"


def test_on_a_narrow_terminal_the_least_important_column_is_left_out_first(monkeypatch, capsys):
    header, rows = ("name", "aaaa", "bbbb", "cccc"), [("x", "1", "2", "3")]
    shown = []
    for width in (22, 21, 15, 9):
        monkeypatch.setattr(terminal, "_width", lambda width=width: width)
        terminal.print_table(header, rows, optional=("bbbb", "cccc"))
        shown.append(capsys.readouterr().out.splitlines()[1].split())
    assert shown == [[*header], ["name", "aaaa", "cccc"], ["name", "aaaa"], ["name", "aaaa"]]


def test_which_accuracy_is_shown(capsys):
    with terminal.Progress("title", epochs=1) as progress:
        progress(report(0, train_accuracy=0.75))
    with terminal.Progress("title", epochs=1) as progress:
        progress(report(0, train_accuracy=0.75, validation_accuracy=0.5, validation_cost=1.0))
    lines = capsys.readouterr().out.splitlines()
    assert "  accuracy 0.7500  " in lines[1]
    assert "  validation accuracy 0.5000  " in lines[3]


def test_after_a_problem_nothing_more_is_shown(monkeypatch):
    shown = []

    class Display:
        interval = 0

        def open(self):
            """Show nothing yet."""

        def close(self):
            """Leave nothing open."""

        def show(self, done, text, left):
            del text, left
            shown.append(done)
            raise OSError(errno.EPIPE, "gone")

    monkeypatch.setattr(terminal, "_choose_display", lambda title, total, noun: Display())
    with terminal.Progress("title", epochs=3) as progress:
        for epoch in range(3):
            progress(report(epoch))
    assert shown == [1]
    assert isinstance(progress.problem, terminal.OutputError)
    assert str(progress.problem) == "cannot write the output: gone"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600 * 30, "30:00:00")]
)
def test_the_clock(seconds, text):
    assert terminal._clock(seconds) == text


def test_costs():
    assert terminal.cost_text(0.5) == "0.500000"
    assert terminal.cost_text(123456.0) == "1.235e+05"


NOTEBOOK = """
import xpnet
from xpnet.terminal import Progress
recipe = xpnet.load_recipe("digits-logistic")
with Progress("digits", epochs=60) as progress:
    result = recipe.run(on_report=progress)
"""


@pytest.mark.slow
@pytest.mark.needs("ipykernel")
def test_a_notebook_gets_one_block_of_output(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", devices.environment()["PYTHONPATH"])
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbclient and what it imports warn of what is theirs
        nbclient.NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    lines = output.data["text/plain"].splitlines()
    assert lines[0] == "digits"
    assert lines[1].startswith("  epoch 60/60  cost 0.0")
    assert len(lines) == 2
