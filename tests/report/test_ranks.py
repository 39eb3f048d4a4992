"""The ranks of a method that changes them: the picture over the steps, the table at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_up_run import write_lines
from test_plots import RUN_PLOTS, assert_drawn

from lorafy.report.html import write_report
from lorafy.report.plots import draw_plots
from lorafy.report.ranks import bands_of, rank_sections, rows_of, title
from lorafy.report.sections import Table
from lorafy.run_directory import RunDirectory, read_json, write_json
from lorafy.workflows.draw import view_of

KINDS = ("attention.self.query", "attention.self.value", "attention.output.dense", "intermediate.dense")


def names(num_layers: int) -> list[str]:
    layers = [f"bert.encoder.layer.{layer}.{kind}" for layer in range(num_layers) for kind in KINDS]
    return [*layers, "bert.pooler.dense"]


def lines(num_layers: int) -> list[dict]:
    """Higher layers keep more; a line each tenth step."""
    of = names(num_layers)
    return [{"step": 10 * line, "ranks": {of[i]: 12 - line * (len(of) - i) // len(of) for i in range(len(of))}}
            for line in range(9)]  # fmt: skip


def test_the_picture_is_drawn_where_ranks_were_logged(make_run, tmp_path: Path):
    run = make_run()
    write_lines(run.ranks, lines(6))
    drawn = draw_plots(run, view_of(run))
    assert {path.stem for path in drawn.paths} == RUN_PLOTS | {"ranks"}
    assert_drawn(run.plots / "ranks.png")
    write_lines(run.ranks, lines(48)[:1])
    draw_plots(run, view_of(run))
    assert_drawn(run.plots / "ranks.png")


def test_the_page_shows_picture_and_table(make_run):
    run = make_run()
    write_lines(run.ranks, lines(6))
    write_json(run.eval_results, read_json(run.eval_results) | {"ranks": lines(6)[-1]["ranks"]})
    page = write_report(run, view_of(run)).read_text(encoding="utf-8")
    assert '<figure class="ranks">' in page and "<h2>Ranks" in page and "attention.self.query" in page
    bare = RunDirectory(run.path)
    bare.ranks.unlink()
    write_json(run.eval_results, {k: v for k, v in read_json(run.eval_results).items() if k != "ranks"})
    page = write_report(bare, view_of(bare)).read_text(encoding="utf-8")
    assert '<figure class="ranks">' not in page and "<h2>Ranks" not in page


def test_layers_stand_by_kind_in_the_order_of_the_stack():
    rows = rows_of(reversed(names(11)))
    assert [kind for kind, *_ in bands_of(rows)] == ["pooler.dense", *reversed(KINDS)]
    assert [row.number for row in rows if row.kind == KINDS[0]] == list(range(11))
    two = rows_of(["model.visual.blocks.0.attn.qkv", "model.language_model.layers.0.mlp.up_proj"])
    assert [row.kind for row in two] == ["blocks attn.qkv", "layers mlp.up_proj"]


def test_the_table_adds_up():
    ranks = lines(6)[-1]["ranks"]
    (table,) = rank_sections({"ranks": ranks})
    assert isinstance(table, Table)
    figures = [[cell.text for cell in row] for row in table.rows]
    assert [row[0] for row in figures] == [*KINDS, "pooler.dense"]
    assert sum(int(row[2]) for row in figures) == sum(ranks.values())
    assert table.note == f"{sum(ranks.values())} in 25 layers"
    assert rank_sections({}) == []


def test_the_title_names_the_extremes():
    rows = rows_of(names(2))
    ranks = np.array([[12, 12 - place] for place in range(9)])
    assert title(rows, ranks)[0] == "72 of 108 ranks are left in 9 layers"
    assert title(rows, ranks)[1].startswith(
        "most: attention.self.query of layer 0 with 12; fewest: pooler.dense with 4"
    )
