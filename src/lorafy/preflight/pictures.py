"""How much of what is read are pictures."""

from __future__ import annotations

from collections.abc import Mapping

from ..types import Encoded, Finding


def check_pictures(encoded: Mapping[str, Encoded]) -> list[Finding]:
    """A note on pictures and their tokens in the training split; a task that shows pictures calls it."""
    train = encoded["train"].features
    shown = [picture for feature in train for picture in feature.pictures]
    if not shown:
        return [Finding("pictures", "warning", "no training row shows a picture", "name data.columns.images")]
    of_pictures, tokens = sum(picture.num_tokens for picture in shown), sum(map(len, train))
    different = {picture.picture.sha256: picture.num_tokens for picture in shown}
    least, most = min(different.values()), max(different.values())
    blind = sum(not feature.pictures for feature in train)
    message = (
        f"{of_pictures:,} of {tokens:,} training tokens are pictures' ({of_pictures / tokens:.0%}): {len(shown):,} "
        f"pictures, {len(different):,} different ones, {least} to {most} tokens each"
    )
    if blind:
        message += f"; {blind:,} of {len(train):,} sequences show none"
    return [Finding("pictures", "note", message)]
