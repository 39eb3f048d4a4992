"""GPT-2: Radford et al. 2019."""

from __future__ import annotations

from typing import Any

from ...objectives import TOKENS
from ..decoder import Decoder, Layer
from ..weights import Reader, Unsupported, activation_name, base_of

READS = TOKENS


def read(model: Any, reader: Reader) -> Decoder:
    """model: GPT2LMHeadModel, peft's adapters inside."""
    body, config = model.transformer, model.config
    if config.add_cross_attention:
        raise Unsupported("a GPT-2 with cross-attention")
    if config.reorder_and_upcast_attn:
        raise Unsupported("a GPT-2 with reorder_and_upcast_attn")
    width = config.hidden_size
    last = len(body.h) - 1
    layers = []
    for index, block in enumerate(body.h):
        attention = block.attn
        whole = reader.linear(attention.c_attn)
        layers.append(
            Layer(
                first_norm=reader.norm(block.ln_1),
                qkv=whole if index < last else None,
                q=reader.columns(whole, 0, width) if index == last else None,
                kv=reader.columns(whole, width, 3 * width) if index == last else None,
                gammas=None,
                epsilon=0.0,
                out=reader.linear(attention.c_proj),
                second_norm=reader.norm(block.ln_2),
                up=reader.linear(block.mlp.c_fc),
                down=reader.linear(block.mlp.c_proj),
                scale=attention.scaling,
                attention_dropout=reader.dropout(attention.attn_dropout),
                out_dropout=reader.dropout(attention.resid_dropout),
                down_dropout=reader.dropout(block.mlp.dropout),
            )
        )
    return Decoder(
        words=base_of(body.wte).weight.detach(),
        word_rows=reader.token_rows(body.wte),
        positions=body.wpe.weight.detach(),
        first_position=0,
        embedding_dropout=reader.dropout(body.drop),
        layers=layers,
        angles=None,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_attention_heads,
        head_width=width // config.num_attention_heads,
        activation=activation_name(config.activation_function),
        gated=False,
        last_norm=reader.norm(body.ln_f),
        head=reader.linear(model.lm_head),
        head_rows=reader.token_rows(model.lm_head),
        dtype=reader.dtype,
    )
