"""A small GPT written out, with two heads: one names the next token, one names the class of the whole text."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

Read = Literal["last_real", "last_position"]
"""Where the class is read. last_position is the common mistake: in a padded row that is padding."""


class CausalSelfAttention(nn.Module):
    """Each token looks at itself and at the tokens before it, with several heads side by side."""

    def __init__(self, width: int, num_heads: int, dropout: float):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} cannot be shared out evenly to {num_heads} heads")
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, T, width) -> (B, T, width)"""
        B, T, width = x.shape
        # (B, T, width) -> (B, heads, T, width / heads)
        q, k, v = (
            layer(x).view(B, T, self.num_heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])  # (B, heads, T, T): how well token t fits token s
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)  # True where s comes after t
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)  # each row sums to 1
        mixed = self.dropout(weights) @ v  # (B, heads, T, width / heads)
        return self.output(mixed.transpose(1, 2).reshape(B, T, width))


class FeedForward(nn.Module):
    """Each token by itself: wider, GELU, and back."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, T, width) -> (B, T, width)"""
        return self.down(functional.gelu(self.up(x)))


class Block(nn.Module):
    """Attention and feed-forward, each normed before (pre-norm, as in GPT-2) and added to what was there."""

    def __init__(self, width: int, num_heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, num_heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, T, width) -> (B, T, width)"""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class SimpleGPTForClassification(nn.Module):
    """Token and position embeddings, blocks, a last norm, and a head that reads one token of each row.

    The last real token has seen the whole text, so its vector is what the head reads. Padding stands to the right of it
    and is therefore seen by no real token: no padding mask is needed.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        num_classes: int = 2,
        width: int = 256,
        num_heads: int = 8,
        num_layers: int = 4,
        hidden: int = 512,
        dropout: float = 0.1,
        *,
        read: Read = "last_real",
        seed: int = 123,
    ):
        super().__init__()
        if read not in ("last_real", "last_position"):
            raise ValueError(f"read is {read!r}, not 'last_real' or 'last_position'")
        self.context_length = context_length
        self.read = read
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.position_embedding = nn.Embedding(context_length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([Block(width, num_heads, hidden, dropout) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        self._draw_weights(torch.Generator().manual_seed(seed))

    def _draw_weights(self, generator: torch.Generator) -> None:
        """Normal with a spread of 0.02, biases zero, as GPT-2."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """ids: (B, T), padded on the right; lengths: (B,), real tokens in each row -> logits (B, num_classes)."""
        if self.read == "last_real":
            # What stands behind the longest text changes nothing here, so it is not computed.
            ids = ids[:, : int(lengths.max())]
            last = lengths - 1
        else:
            last = torch.full_like(lengths, ids.shape[1] - 1)
        hidden_states = self.hidden_states(ids)  # (B, T, width)
        rows = torch.arange(len(ids), device=ids.device)
        return self.head(hidden_states[rows, last])

    def next_token_logits(self, ids: torch.Tensor) -> torch.Tensor:
        """ids: (B, T) -> (B, T, vocab_size), at each place for the token that comes next.

        The weights are those of the token embedding (tied, as in GPT-2): the vector that reads a token also names it.
        """
        return self.hidden_states(ids) @ self.token_embedding.weight.T

    def hidden_states(self, ids: torch.Tensor) -> torch.Tensor:
        """ids: (B, T) -> (B, T, width), after the last norm."""
        num_positions = ids.shape[1]
        if num_positions > self.context_length:
            raise ValueError(f"rows of {num_positions} tokens, but the model has {self.context_length} positions")
        positions = torch.arange(num_positions, device=ids.device)
        x = self.dropout(self.token_embedding(ids) + self.position_embedding(positions))  # (B, T, width)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
