"""OPT: Zhang et al. 2022."""

from __future__ import annotations

from typing import Any

from ...objectives import TOKENS
from ..decoder import Decoder, Layer
from ..weights import Reader, Unsupported, activation_name, base_of

READS = TOKENS


def read(model: Any, reader: Reader) -> Decoder:
    """model: OPTForCausalLM, peft's adapters inside."""
    body, config = model.model.decoder, model.config
    if not config.do_layer_norm_before or body.final_layer_norm is None or body.project_in is not None:
        raise Unsupported("an OPT that norms after its branches, or projects its embeddings (350m)")
    if config.layerdrop:
        raise Unsupported("layers that are dropped at random")
    last = len(body.layers) - 1
    layers = []
    for index, block in enumerate(body.layers):
        attention = block.self_attn
        layers.append(
            Layer(
                first_norm=reader.norm(block.self_attn_layer_norm),
                **reader.projections(attention.q_proj, attention.k_proj, attention.v_proj, apart=index == last),
                gammas=None,
                epsilon=0.0,
                out=reader.linear(attention.out_proj),
                second_norm=reader.norm(block.final_layer_norm),
                up=reader.linear(block.fc1),
                down=reader.linear(block.fc2),
                scale=attention.head_dim**-0.5,
                attention_dropout=reader.dropout(attention.dropout),
                out_dropout=reader.dropout(block.dropout),
                down_dropout=reader.dropout(block.dropout),
            )
        )
    return Decoder(
        words=base_of(body.embed_tokens).weight.detach(),
        word_rows=reader.token_rows(body.embed_tokens),
        positions=body.embed_positions.weight.detach(),
        first_position=body.embed_positions.offset,
        embedding_dropout=reader.dropout(0.0),
        layers=layers,
        angles=None,
        num_heads=attention.num_heads,
        num_kv_heads=attention.num_heads,
        head_width=attention.head_dim,
        activation=activation_name(config.activation_function),
        gated=False,
        last_norm=reader.norm(body.final_layer_norm),
        head=reader.linear(model.lm_head),
        head_rows=reader.token_rows(model.lm_head),
        dtype=reader.dtype,
    )
