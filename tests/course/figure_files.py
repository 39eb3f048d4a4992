"""A matplotlib backend for tests: show() writes the open figures as figure-01.png, ... into the current folder."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg


class FigureManager(FigureManagerBase):
    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:
        for number in plt.get_fignums():
            count = len(list(Path.cwd().glob("figure-*.png")))
            plt.figure(number).savefig(f"figure-{count + 1:02d}.png")
        plt.close("all")


class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager
