"""The small GPT: causal, deaf to padding where it reads the last real token, and equal to torch's own attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lorafy.scratch import CausalSelfAttention, SimpleGPTForClassification, count_parameters
from lorafy.scratch.gpt import Read
from tolerances import FLOAT64_ROUNDING

PAD = 19


def small_gpt(read: Read = "last_real", seed: int = 123) -> SimpleGPTForClassification:
    model = SimpleGPTForClassification(
        20, 32, num_classes=3, width=16, num_heads=2, num_layers=2, hidden=24, read=read, seed=seed
    )
    return model.double().eval()


def padded_rows(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    texts = [[1, 2, 3, 4], [5], [6, 7]]
    rows = [text + [PAD] * (width - len(text)) for text in texts]
    return torch.tensor(rows), torch.tensor([len(text) for text in texts])


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)


@pytest.mark.parametrize("width", [5, 9, 32])
def test_padding_never_changes_what_is_read_at_the_last_real_token(width: int) -> None:
    model = small_gpt()
    together = model(*padded_rows(width))
    ids, lengths = padded_rows(4)
    alone = torch.cat([model(row[None, :length], length[None]) for row, length in zip(ids, lengths, strict=True)])
    close(together, alone)


def test_padding_changes_what_is_read_at_the_last_position() -> None:
    model = small_gpt("last_position")
    narrow, wide = model(*padded_rows(4)), model(*padded_rows(9))
    assert ((narrow - wide).abs().max(-1).values > 1e-3).all()
    # A row without padding is read at the same place by both.
    close(narrow[0], small_gpt()(*padded_rows(4))[0])


def test_what_is_computed_is_not_more_than_the_longest_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model, widths = small_gpt(), []
    embed = model.token_embedding.forward

    def watched(ids: torch.Tensor) -> torch.Tensor:
        widths.append(ids.shape[1])
        return embed(ids)

    monkeypatch.setattr(model.token_embedding, "forward", watched)
    model(*padded_rows(32))
    assert widths == [4]


def test_a_token_does_not_see_what_comes_after_it() -> None:
    model = small_gpt()
    ids = torch.randint(0, 19, (2, 8), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 19
    before, after = model.next_token_logits(ids), model.next_token_logits(changed)
    close(after[:, :5], before[:, :5])
    assert ((after - before)[:, 5:].abs().amax(-1) > 1e-6).all()


def test_attention_by_hand_is_torchs() -> None:
    layer = CausalSelfAttention(12, 3, dropout=0.0).double().eval()
    x = torch.randn(2, 7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k, v = (part(x).view(2, 7, 3, 4).transpose(1, 2) for part in (layer.query, layer.key, layer.value))
    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    close(layer(x), layer.output(expected.transpose(1, 2).reshape(2, 7, 12)))


def test_next_token_logits_are_tied_to_the_embedding() -> None:
    model = small_gpt()
    ids = torch.tensor([[1, 2, 3]])
    assert model.next_token_logits(ids).shape == (1, 3, 20)
    close(model.next_token_logits(ids), model.hidden_states(ids) @ model.token_embedding.weight.T)


def test_the_course_size() -> None:
    """256 wide, 8 heads, 4 layers, 512 inside; the numbers counted by hand."""
    model = SimpleGPTForClassification(vocab_size=757, context_length=200)
    block = 4 * (256 * 256 + 256) + (256 * 512 + 512) + (512 * 256 + 256) + 4 * 256
    total = 757 * 256 + 200 * 256 + 4 * block + 2 * 256 + (256 * 2 + 2)
    assert count_parameters(model) == (total, total)
    attention = model.blocks[0].attention
    assert isinstance(attention, CausalSelfAttention) and attention.num_heads == 8


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = small_gpt().state_dict()
    torch.manual_seed(2)
    two, other = small_gpt().state_dict(), small_gpt(seed=4).state_dict()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="33 tokens"):
        small_gpt().hidden_states(torch.zeros(1, 33, dtype=torch.long))
    with pytest.raises(ValueError, match="shared out evenly"):
        SimpleGPTForClassification(10, 8, width=10, num_heads=4)
    with pytest.raises(ValueError, match="last_real"):
        SimpleGPTForClassification(10, 8, read="last")  # type: ignore[arg-type]  # what is refused
