"""lorafy plan"""

from __future__ import annotations

from .arguments import AsJson, Overrides, Recipe, messages, print_json


def plan(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what training would do, and what it takes.

    Data, layers, parameters, tokens, memory, time. Trains nothing.
    """
    from dataclasses import asdict

    from ..api import load_recipe
    from ..metrics.numbers import duration, size
    from ..models.precision import choose_device, choose_precision
    from ..workflows.announce import announce_data, announce_model, announce_row
    from ..workflows.build import build_model
    from ..workflows.forecast import forecast
    from ..workflows.prepare import prepare

    console = messages(as_json)
    config, _ = load_recipe(recipe, overrides or [])
    prepared = prepare(config)
    announce_data(console, prepared)
    announce_row(console, prepared)
    built = build_model(prepared)
    precision = choose_precision(config.model.dtype, choose_device())
    announce_model(console, prepared, built, precision)
    cost = forecast(prepared, built, precision, console)
    rate = prepared.learning_rate
    console.print(
        f"{cost.num_steps:,} steps of {config.train.batch_size} examples ({cost.num_epochs:.2f} epochs), "
        f"{cost.num_tokens:,} tokens and {cost.padded_share:.0%} padding; "
        f"learning rate {rate:g}, {config.train.schedule}.",
        highlight=False,
    )
    console.print(
        f"About {duration(cost.seconds)} and {size(cost.memory_bytes)} of memory, measured on "
        f"{cost.sampled_steps} steps of forward and backward on this machine. Nothing was trained.",
        highlight=False,
    )
    if cost.pictures is not None:
        kept = cost.pictures
        disk = f" and {size(kept.disk_bytes)} on disk" if kept.disk_bytes else ""
        console.print(
            f"{kept.num_pictures:,} different pictures are looked at once, in about {duration(kept.seconds)}, and "
            f"kept: {size(kept.memory_bytes)} in memory{disk}. That saves about {duration(kept.seconds_saved)}.",
            highlight=False,
        )
    if as_json:
        print_json(
            {
                "data": prepared.report(),
                "targets": [asdict(group) for group in built.targets],
                "trainable_parameters": built.parameters.trainable,
                "total_parameters": built.parameters.total,
                "learning_rate": rate,
                "dtype": precision.name,
                "forecast": asdict(cost),
            }
        )
