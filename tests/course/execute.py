"""Runs a chapter as a notebook would, cell by cell, in a process and an empty folder of its own.

By hand: `python tests/course/execute.py 02_idea zh FOLDER` prints what the cells print, then how long each took, and
leaves the figures as FOLDER/figure-01.png, ...
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def execute(chapter: str, language: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a chapter (its stem) in `folder`. A warning that a cell, the course or lorafy causes ends it as an error."""
    paths = [str(ROOT), str(HERE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "module://figure_files",
                   "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    command = [sys.executable, "-X", "utf8", str(HERE / "execute.py"), chapter, language, str(folder), "--here"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)


def run_cells(chapter: str, language: str) -> None:
    from course.build import COLAB_CELL, COURSE, notebook

    warnings.filterwarnings("error", module=r"__main__|course|lorafy")
    namespace = {"__name__": "__main__"}
    cells = notebook(COURSE / "chapters" / f"{chapter}.py", language).cells
    seconds = []
    for number, cell in enumerate(cells):
        if cell.cell_type != "code" or cell.source == COLAB_CELL:
            continue
        began = time.perf_counter()
        exec(compile(cell.source, f"{chapter}, cell {number}", "exec"), namespace)
        seconds.append((time.perf_counter() - began, number))
    print(f"[{chapter}, {language}: {sum(took for took, _ in seconds):.1f} s]", file=sys.stderr)
    for took, number in sorted(seconds, reverse=True)[:5]:
        print(f"[cell {number}: {took:.1f} s]", file=sys.stderr)


if __name__ == "__main__":
    chapter, language, folder = sys.argv[1:4]
    if sys.argv[4:] == ["--here"]:
        run_cells(chapter, language)
    else:
        Path(folder).mkdir(parents=True, exist_ok=True)
        outcome = execute(chapter, language, Path(folder).resolve())
        print(outcome.stdout, outcome.stderr, sep="\n")
        sys.exit(outcome.returncode)
