"""What Llama, Mistral, Qwen2 and Qwen3 share: RMS norms, rotary positions, grouped key heads, a gated feed-forward."""

from __future__ import annotations

from typing import Any

import torch

from .decoder import Decoder, Layer
from .weights import Reader, Unsupported, activation_name


def read(model: Any, reader: Reader) -> Decoder:
    """model: a Llama with its language head, or one of its kin, peft's adapters inside."""
    body, config = model.model, model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")):
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
        if hasattr(attention, "q_norm"):
            norms = [reader.norm(attention.q_norm)] * heads + [reader.norm(attention.k_norm)] * kv_heads
            gammas = torch.stack([norm.weight for norm in norms])
        q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
        layers.append(
            Layer(
                first_norm=reader.norm(block.input_layernorm),
                qkv=reader.linear(q, k, v) if index < last else None,
                q=reader.linear(q) if index == last else None,
                kv=reader.linear(k, v) if index == last else None,
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
            cosine, sine = body.rotary_emb(positions.new_empty(0, dtype=torch.float32), positions[None])
        return cosine[0].contiguous(), sine[0].contiguous()

    return Decoder(
        words=body.embed_tokens.weight.detach(),
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
        head=reader.linear(model.lm_head),
        dtype=reader.dtype,
    )
