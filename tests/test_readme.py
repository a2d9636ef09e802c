"""Every block of the README runs, and its shown output is what comes out.

`console` blocks: lines that begin with `$ tfthaw` or `$ python` are run in order, in one directory for the whole README
with the demo model as `model.ckpt-1000.*`. Lines below a command are its output: each must come out, where a number
stands for any number and `...` for anything. A command must succeed unless its shown output is an error (`tfthaw: ...`)
or its answer is no. `python` blocks are run as scripts in the same directory.
"""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest

from tfthaw.formats.names import format_table

README = Path(__file__).resolve().parents[1] / "README.md"
RUNNABLE = ("tfthaw", "python")
ANSWERS_NO = ("diff", "match", "verify", "scan")


@dataclass
class Command:
    line: str
    shown: list[str] = field(default_factory=list)


def blocks(text):
    """Return the fenced blocks of a Markdown text as (language, line number, content)."""
    return [
        (match[1], text[: match.start()].count("\n") + 1, match[2])
        for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def commands(content):
    """Return the commands of a console block with the output that is shown below each."""
    found = []
    for line in content.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        elif found and line.strip():
            found[-1].shown.append(line)
    return found


def pattern(line):
    """Return what a shown line matches: spaces and digits loosely, `...` anything."""
    words = re.sub(r"\s+", " ", line.strip())
    text = re.escape(words).replace(r"\.\.\.", ".*").replace("…", ".*")
    numbers = re.sub(r"\d+(?:\\\.\d+)?", lambda _: r"\d+(?:\.\d+)?", text)
    return re.compile(numbers.replace(r"\ ", r"\s+"))


def run_command(command, directory):
    """Run one command and judge it."""
    words = shlex.split(command.line, comments=True)
    program = {"tfthaw": [sys.executable, "-m", "tfthaw"], "python": [sys.executable]}[words[0]]
    done = _run([*program, *words[1:]], directory)
    output = done.stdout + done.stderr
    assert "Traceback" not in output, output
    shows_error = any(line.startswith("tfthaw: ") for line in command.shown)
    answers_no = words[0] == "tfthaw" and len(words) > 1 and words[1] in ANSWERS_NO
    allowed = {1, 2} if shows_error else {0, 1} if answers_no else {0}
    assert done.returncode in allowed, f"{command.line}: exit status {done.returncode}\n{output}"
    loose = re.sub(r"[ \t]+", " ", output)
    for line in command.shown:
        assert pattern(line).search(loose), f"{command.line}\nshown but not printed: {line!r}\n{output}"


def _run(command, directory):
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)


def run_block(language, content, directory):
    """Run one block."""
    if language == "python":
        done = _run([sys.executable, "-c", content], directory)
        assert done.returncode == 0, done.stderr
        return
    for command in commands(content):
        if command.line.split()[0] in RUNNABLE:
            run_command(command, directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    place = tmp_path_factory.mktemp("readme")
    for item in Path(str(files("tfthaw.demo"))).iterdir():
        if item.name.startswith("model.ckpt-1000") or item.name in ("checkpoint", "heldout.npz", "labels.txt"):
            shutil.copy(item, place)
    (place / "examples").symlink_to(README.parent / "examples")
    return place


RUN = [block for block in blocks(README.read_text(encoding="utf-8")) if block[0] in ("python", "console")]


@pytest.mark.tf
@pytest.mark.parametrize(("language", "line", "content"), RUN, ids=[f"line-{line}" for _, line, _ in RUN])
def test_every_block_of_the_readme_runs(language, line, content, directory):
    run_block(language, content, directory)


def test_the_readme_shows_the_command_and_the_library():
    assert {language for language, _, _ in RUN} == {"python", "console"}


SAMPLE = """\
Text.

```console
$ tfthaw inspect model.ckpt-1000 \\
    --json
{
...
$ pip install nothing-at-all
```

```python
import tfthaw
```
"""


def test_blocks_are_found_with_their_lines():
    assert [(language, line) for language, line, _ in blocks(SAMPLE)] == [("console", 3), ("python", 11)]


def test_commands_keep_their_output():
    first, second = commands(blocks(SAMPLE)[0][2])
    assert (shlex.split(first.line), first.shown) == (["tfthaw", "inspect", "model.ckpt-1000", "--json"], ["{", "..."])
    assert (second.line, second.shown) == ("pip install nothing-at-all", [])


@pytest.mark.parametrize("content", [
    "$ tfthaw inspect not-there\n",
    "$ tfthaw inspect model.ckpt-1000\nnever printed\n",
    "$ tfthaw convert model.ckpt-1000 x --to nothing\n",
])  # fmt: skip
def test_a_wrong_console_block_fails(content, directory):
    with pytest.raises(AssertionError):
        run_block("console", content, directory)


def test_a_right_console_block_passes(directory):
    shown = "$ tfthaw inspect model.ckpt-1000\n  checkpoint, 1 KiB, ...\n$ tfthaw inspect gone\ntfthaw: ...\n"
    run_block("console", shown, directory)


def test_a_wrong_python_block_fails(directory):
    with pytest.raises(AssertionError):
        run_block("python", "import tfthaw\ntfthaw.open('not-there')\n", directory)


def test_the_table_of_formats_is_the_code():
    assert format_table() in README.read_text(), f"the README's table should be:\n{format_table()}"
