"""The code in README and docs runs.

Python blocks of one page share a namespace and run in order, in an empty folder. A block under
the comment `<!-- no-run: why -->` is left out. In console blocks, lines that start with `$ taut`
are run in that same folder, in the place where they stand.
"""

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)")
NO_RUN = re.compile(r"^<!-- no-run: .+ -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its code, and the line in the page where the code starts."""

    language: str
    code: str
    line: int


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a page, without those marked no-run."""
    lines, found = text.splitlines(), []
    position, skip = 0, False
    while position < len(lines):
        line = lines[position]
        fence = FENCE.match(line)
        if fence is None:
            # The mark holds for the next block, whatever blank lines are between.
            skip = bool(NO_RUN.match(line.strip())) or (skip and not line.strip())
            position += 1
            continue
        end = position + 1
        while end < len(lines) and lines[end].strip() != "```":
            end += 1
        code = [inner[len(fence["indent"]) :] for inner in lines[position + 1 : end]]
        if not skip:
            found.append(Block(fence["language"], "\n".join(code), position + 2))
        position, skip = end + 1, False
    return found


def commands_in(code: str) -> list[list[str]]:
    """Return the taut commands of a console block; a backslash continues a line."""
    joined = code.replace("\\\n", " ")
    lines = [line[2:] for line in joined.splitlines() if line.startswith("$ taut")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def run_python(block: Block, page: Path, namespace: dict) -> None:
    # Blank lines in front make line numbers in a traceback those of the page.
    code = "\n" * (block.line - 1) + block.code
    exec(compile(code, str(page), "exec"), namespace)


def run_console(block: Block, page: Path) -> None:
    for command in commands_in(block.code):
        done = subprocess.run(
            [sys.executable, "-m", "taut.cli", *command],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        where = f"{page.name}, block at line {block.line}: taut {shlex.join(command)}"
        assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "snippets"}
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.language == "python":
            run_python(block, page, namespace)
        elif block.language == "console":
            run_console(block, page)


PAGE = """\
text
```python
a = 1
```
<!-- no-run: needs a cluster -->

```python
b = 2
```
1. item
   ```python
   c = 3
   ```
```console
$ make test
$ taut fit model.py \\
    --data "my data.csv"   # a comment
verdict: good
```
"""


def test_the_reader_itself():
    blocks = blocks_of(PAGE)
    assert [(b.language, b.line) for b in blocks] == [
        ("python", 3),
        ("python", 12),
        ("console", 15),
    ]
    assert blocks[1].code == "c = 3"
    assert commands_in(blocks[2].code) == [["fit", "model.py", "--data", "my data.csv"]]
