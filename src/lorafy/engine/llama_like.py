"""What Llama, Mistral, Qwen2 and Qwen3 share: RMS norms, rotary positions, grouped key heads, a gated feed-forward."""

from __future__ import annotations

from typing import Any

import torch

from .decoder import Decoder, Layer
from .weights import Reader, Unsupported, activation_name, base_of


def read_decoder(
    body: Any, config: Any, head: Any, reader: Reader, *, attends_to_all: bool, norms_heads: bool
) -> Decoder:
    """body: a Llama without its language head, or one of its kin, peft's adapters inside. head: that one.

    attends_to_all: no layer looks through a sliding window. norms_heads: queries and keys are RMS-normed, each head by
    itself.
    """
    if not attends_to_all:
        raise Unsupported("attention over a sliding window")
    if body.rotary_emb.rope_type in ("dynamic", "longrope"):
        raise Unsupported("rotary positions that depend on the length of the batch")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_width = body.layers[0].self_attn.head_dim
    last = len(body.layers) - 1
    layers = []
    for index, block in enumerate(body.layers):
        attention = block.self_attn
        gammas = None
        if norms_heads:
            norms = [reader.norm(attention.q_norm)] * heads + [reader.norm(attention.k_norm)] * kv_heads
            gammas = torch.stack([norm.weight for norm in norms])
        layers.append(
            Layer(
                first_norm=reader.norm(block.input_layernorm),
                **reader.projections(attention.q_proj, attention.k_proj, attention.v_proj, apart=index == last),
                gammas=gammas,
                epsilon=config.rms_norm_eps,
                out=reader.linear(attention.o_proj),
                second_norm=reader.norm(block.post_attention_layernorm),
                up=reader.linear(block.mlp.gate_proj, block.mlp.up_proj),
                down=reader.linear(block.mlp.down_proj),
                scale=attention.scaling,
                attention_dropout=reader.dropout(attention.attention_dropout),
                out_dropout=reader.dropout(0.0),
                down_dropout=reader.dropout(0.0),
            )
        )

    def angles(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            # (1, M); on three axes (3, 1, M)
            cosine, sine = body.rotary_emb(positions.new_empty(0, dtype=torch.float32), positions.unsqueeze(-2))
        return cosine[0].contiguous(), sine[0].contiguous()

    return Decoder(
        words=base_of(body.embed_tokens).weight.detach(),
        word_rows=reader.token_rows(body.embed_tokens),
        positions=None,
        first_position=0,
        embedding_dropout=reader.dropout(0.0),
        layers=layers,
        angles=angles,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_width=head_width,
        activation=activation_name(config.hidden_act),
        gated=True,
        last_norm=reader.norm(body.norm),
        head=reader.linear(head),
        head_rows=reader.token_rows(head),
        dtype=reader.dtype,
    )
