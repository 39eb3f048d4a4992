"""The operations for a GPU, on a CPU: there they are plain torch, but for one call that torch has on a GPU alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lorafy.kernels import gpu


def plain_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_starts: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    *,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """What torch says of varlen_attn, refusing what it leaves undefined. (T, heads, D)"""
    assert starts.dtype == query_starts.dtype == torch.int32
    assert int(starts[-1]) == len(k) == len(v) and int(query_starts[-1]) == len(q), "a row of no sequence"
    assert int(starts.diff().max()) == longest >= int(query_starts.diff().max())
    if causal:
        assert torch.equal(starts, query_starts), "where the mask then begins is a matter of the version"
    group = q.shape[1] // k.shape[1]
    outs = []
    for (a, b), (c, d) in zip(pairwise(query_starts.tolist()), pairwise(starts.tolist()), strict=True):
        keys, values = (x[c:d].repeat_interleave(group, 1) for x in (k, v))
        scores = scale * torch.einsum("qhd,khd->hqk", q[a:b], keys)
        if causal:
            scores = scores.masked_fill(torch.ones(b - a, d - c, dtype=torch.bool).triu(1), -torch.inf)
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values))
    return torch.cat(outs)


@pytest.fixture(params=[True, False], ids=["groups in the kernel", "groups repeated"])
def varlen_on_a_cpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(gpu, "varlen", plain_varlen)
    monkeypatch.setattr(gpu, "_groups_itself", lambda: request.param)
