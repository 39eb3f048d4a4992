"""The ranks of the adapted layers, where a method changes them: over the steps a picture, at the end a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from ..metrics import numbers
from .sections import Cell, Column, Section, Table
from .style import BLUE, INK, MUTED, headline, new_figure, plot_style, save

RANKS = LinearSegmentedColormap.from_list("ranks", ["#FFFFFF", "#D6E6F4", "#8FC1E3", "#3585BF", "#08396B"])
"""White is rank 0: a layer that is the base's own."""

ROW_INCHES, MOST_INCHES = 0.135, 12.0
NUMBERED_ROWS = 60
"""With more rows not each one has room for its number."""


@dataclass(frozen=True, slots=True)
class Row:
    """A layer: its kind, such as `attention.self.query`, and its number in the stack, or None where it stands alone."""

    name: str
    kind: str
    number: int | None


def draw_ranks(lines: list[dict[str, Any]], num_steps: int | None, path: Path) -> Path | None:
    """Draws ranks.jsonl up to step `num_steps` (None: its own last one); None where there are no lines."""
    if not lines:
        return None
    rows = rows_of(lines[0]["ranks"])
    steps = [line["step"] for line in lines]
    edges = [*steps, max(num_steps or 0, steps[-1] + 1)]
    ranks = np.array([[line["ranks"][row.name] for line in lines] for row in rows])
    with plot_style():
        height = min(ROW_INCHES * len(rows), MOST_INCHES)
        figure = new_figure(9.2, height + 3.6)
        above, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, height])
        draw_total(above, edges, ranks.sum(axis=0))
        most = int(ranks.max())
        levels = BoundaryNorm(np.arange(-0.5, most + 1.5), RANKS.N)
        mesh = axes.pcolormesh(edges, np.arange(len(rows) + 1), ranks, cmap=RANKS, norm=levels)
        name_rows(axes, rows)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(edges[0], edges[-1])
        bar = figure.colorbar(mesh, ax=axes, location="bottom", fraction=0.03, aspect=50, pad=0.02, label="rank")
        bar.set_ticks(sorted({0, *range(0, most + 1, max(1, most // 8)), most}))
        bar.ax.tick_params(length=0)
        headline(figure, *title(rows, ranks))
        return save(figure, path)


def draw_total(axes: Axes, edges: Sequence[int], totals: np.ndarray) -> None:
    """Draws the sum of all ranks as steps, and writes its last value."""
    axes.stairs(totals, edges, baseline=None, color=BLUE, linewidth=2)
    axes.set_ylim(0, 1.12 * totals.max())
    axes.set_ylabel("all ranks")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    place: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "top", "color": INK}
    axes.annotate(numbers.count(totals[-1]), (edges[-1], totals[-1]), (-4, -4), fontsize=10, **place)


def name_rows(axes: Axes, rows: Sequence[Row]) -> None:
    """Numbers on the left, kinds on the right, a line between two kinds."""
    bands = bands_of(rows)
    every = max(1, round(len(rows) / NUMBERED_ROWS))
    numbered = [i for i, row in enumerate(rows) if row.number is not None and row.number % every == 0]
    axes.set_yticks([i + 0.5 for i in numbered], [str(rows[i].number) for i in numbered], fontsize=8)
    axes.set_ylabel("layer of the stack")
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(axis="y", length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks([start + len(of) / 2 for _, start, of in bands], [kind for kind, _, _ in bands], fontsize=9)
    right.tick_params(length=0, labelcolor=INK)
    right.spines[:].set_visible(False)
    axes.hlines([start for _, start, _ in bands[1:]], 0, 1, transform=axes.get_yaxis_transform(), color=MUTED, lw=0.8)


def title(rows: Sequence[Row], ranks: np.ndarray) -> tuple[str, str]:
    """How many ranks are left, and the layers with the fewest and the most."""
    last = ranks[:, -1]
    least, most = int(last.argmin()), int(last.argmax())
    counted = f"{numbers.count(last.sum())} of {numbers.count(ranks[:, 0].sum())} ranks are left in {len(rows)} layers"
    return counted, f"most: {said(rows[most])} with {last[most]}; fewest: {said(rows[least])} with {last[least]}"


def said(row: Row) -> str:
    """A layer in words."""
    return row.kind if row.number is None else f"{row.kind} of layer {row.number}"


def rows_of(names: Iterable[str]) -> list[Row]:
    """The layers by kind, each kind in the order of the stack. The first number in a name is the layer's."""
    split = {name: _split(name) for name in names}
    stacks = {stack for stack, number, _ in split.values() if number is not None}
    rows = []
    for name, (stack, number, kind) in split.items():
        own = stack.rpartition(".")[2] if len(stacks) > 1 and number is not None else ""  # two stacks: say which
        rows.append(Row(name, f"{own} {kind}".strip(), number))
    order = {kind: place for place, kind in enumerate(dict.fromkeys(row.kind for row in rows))}
    return sorted(rows, key=lambda row: (order[row.kind], row.number or 0))


def _split(name: str) -> tuple[str, int | None, str]:
    """`bert.encoder.layer.3.output.dense` -> (`bert.encoder.layer`, 3, `output.dense`)."""
    parts = name.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if place is None:
        return "", None, ".".join(parts[-2:])
    return ".".join(parts[:place]), int(parts[place]), ".".join(parts[place + 1 :])


def bands_of(rows: Sequence[Row]) -> list[tuple[str, int, list[Row]]]:
    """Kind, first place and rows of each kind."""
    bands: dict[str, list[Row]] = {}
    for row in rows:
        bands.setdefault(row.kind, []).append(row)
    places = np.cumsum([0, *map(len, bands.values())]).tolist()
    return [(kind, start, of) for (kind, of), start in zip(bands.items(), places, strict=False)]


def rank_sections(results: Mapping[str, Any]) -> list[Section]:
    """A table with the ranks of each kind of layer, from eval_results.json; nothing where no method changed them."""
    ranks: Mapping[str, int] | None = results.get("ranks")
    if not ranks:
        return []
    columns = [
        Column("layers", "name"),
        *(Column(name, "number") for name in ("how many", "ranks", "each", "from", "to")),
    ]
    rows = []
    for kind, _, of in bands_of(rows_of(ranks)):
        kept = [ranks[row.name] for row in of]
        figures = [str(len(of)), numbers.count(sum(kept)), f"{sum(kept) / len(of):.1f}", str(min(kept)), str(max(kept))]
        rows.append([Cell(text) for text in (kind, *figures)])
    note = f"{numbers.count(sum(ranks.values()))} in {len(ranks)} layers"
    return [Table("Ranks", columns, rows, note=note)]
