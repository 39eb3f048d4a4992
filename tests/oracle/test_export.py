"""A scratch adapter in peft's file format: peft loads it, and the model gives the same logits."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from three_ways import apart, descend, fill_lora
from torch import nn

from course.peft_export import export_to_peft
from lorafy.scratch import (
    SimpleGPTForClassification,
    freeze_all_but_lora,
    merge_lora,
    replace_linear_with_lora,
)
from tolerances import FLOAT64_ROUNDING

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

LENGTHS = torch.tensor([7, 3, 5, 1])
IDS = torch.randint(0, 40, (4, 7), generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 2])


def small_gpt() -> SimpleGPTForClassification:
    model = SimpleGPTForClassification(40, 12, num_classes=3, width=16, num_heads=2, num_layers=2, hidden=24)
    return model.double().eval()


def trained(scaling: Any = "paper", also: tuple[str, ...] = ("head",)) -> SimpleGPTForClassification:
    model = small_gpt()
    replace_linear_with_lora(model, rank=4, alpha=6, scaling=scaling, skip=("head",))
    freeze_all_but_lora(model, also=also)
    fill_lora(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    descend(parameters, lambda _: nn.functional.cross_entropy(model(IDS, LENGTHS), LABELS), steps=3)
    return model


@pytest.mark.parametrize("scaling", ["paper", "plain"])
@pytest.mark.parametrize("also", [("head",), ()], ids=["head", "LoRA alone"])
def test_peft_loads_it_and_gives_the_same_logits(scaling: Any, also: tuple[str, ...], tmp_path: Path) -> None:
    model = trained(scaling, also)
    folder = export_to_peft(model, tmp_path / "adapter", also=also)
    base = small_gpt()
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
    exact = model(IDS, LENGTHS)
    assert apart(loaded(IDS, LENGTHS), exact) <= FLOAT64_ROUNDING
    assert apart(base(IDS, LENGTHS), exact) > 0.1
    merged = loaded.merge_and_unload().state_dict()
    for name, tensor in merge_lora(model).state_dict().items():
        assert apart(merged[name], tensor) <= FLOAT64_ROUNDING, name


def test_alpha_is_written_as_the_paper_has_it(tmp_path: Path) -> None:
    for scaling, alpha in (("paper", 6), ("plain", 24)):
        folder = export_to_peft(trained(scaling), tmp_path / scaling)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert (config["r"], config["lora_alpha"]) == (4, alpha)


def test_what_peft_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one rank and one alpha"):
        export_to_peft(small_gpt(), tmp_path / "a")
    with pytest.raises(ValueError, match=r"feed_forward\.up has LoRA"):
        export_to_peft(trained(), tmp_path / "b", also=("feed_forward",))
    with pytest.raises(ValueError, match="no module of the model is called haed"):
        export_to_peft(trained(), tmp_path / "c", also=("haed",))
    assert not list(tmp_path.iterdir())
