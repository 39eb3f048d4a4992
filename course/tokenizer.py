"""A byte-level BPE (Sennrich et al. 2016; on bytes as in GPT-2), trained on the spot: no download, any script."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

PIECES = re.compile(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+")
"""A text falls into words, runs of punctuation (each with the space before it) and white space, as in GPT-2.

No token reaches over a border of these, so "dog." and "dog!" share the token for "dog".
"""

Pair = tuple[int, int]


class ByteLevelBPE:
    """Ids 0 to 255 are the bytes, then one id for each merge in the order in which it was learnt, last the padding."""

    def __init__(self, merges: Sequence[Pair]):
        self.merges = list(merges)
        self._new_id = {pair: 256 + rank for rank, pair in enumerate(self.merges)}
        self._bytes = [bytes([value]) for value in range(256)]
        for left, right in self.merges:
            self._bytes.append(self._bytes[left] + self._bytes[right])
        self._known: dict[str, list[int]] = {}

    @classmethod
    def train(cls, texts: Iterable[str], num_merges: int = 500) -> ByteLevelBPE:
        """Joins the most frequent pair of neighbours to one new token, `num_merges` times or until no pair repeats."""
        counts = Counter(piece for text in texts for piece in PIECES.findall(text))
        words = [list(piece.encode("utf-8")) for piece in counts]
        times = list(counts.values())
        frequency: Counter[Pair] = Counter()
        where: dict[Pair, set[int]] = defaultdict(set)  # which words have this pair: only these change at a merge
        for index, ids in enumerate(words):
            for pair in pairwise(ids):
                frequency[pair] += times[index]
                where[pair].add(index)
        merges: list[Pair] = []
        while len(merges) < num_merges and frequency:
            best = max(frequency, key=lambda pair: (frequency[pair], pair))  # a tie is broken the same way each time
            if frequency[best] < 2:
                break
            for index in where.pop(best):
                for pair in pairwise(words[index]):
                    frequency[pair] -= times[index]
                words[index] = joined(words[index], best, 256 + len(merges))
                for pair in pairwise(words[index]):
                    frequency[pair] += times[index]
                    where[pair].add(index)
            del frequency[best]
            merges.append(best)
        return cls(merges)

    @property
    def pad_id(self) -> int:
        return 256 + len(self.merges)

    @property
    def vocab_size(self) -> int:
        return self.pad_id + 1

    def encode(self, text: str) -> list[int]:
        """Merges in the order in which they were learnt, inside each piece."""
        return [token for piece in PIECES.findall(text) for token in self._encode_piece(piece)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text again. Padding is left out; bytes that are no whole character (in made-up ids) become U+FFFD."""
        return b"".join(self._bytes[token] for token in ids if token != self.pad_id).decode("utf-8", errors="replace")

    def tokens(self, text: str) -> list[str]:
        """The text cut where its tokens end, to look at."""
        return [self.decode([token]) for token in self.encode(text)]

    def _encode_piece(self, piece: str) -> list[int]:
        if piece not in self._known:
            ids = list(piece.encode("utf-8"))
            while len(ids) > 1:
                first = min(pairwise(ids), key=lambda pair: self._new_id.get(pair, self.pad_id))
                if first not in self._new_id:
                    break
                ids = joined(ids, first, self._new_id[first])
            self._known[piece] = ids
        return self._known[piece]


def joined(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """The ids with every occurrence of the pair, from left to right, replaced by one id."""
    out: list[int] = []
    for token in ids:
        # `out` never ends in an id of the pair that was just made, so a left half here is still free.
        if out and (out[-1], token) == pair:
            out[-1] = new_id
        else:
            out.append(token)
    return out
