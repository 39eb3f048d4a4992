"""The byte-level BPE: any text there and back, merges by frequency."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

import lorafy.demo
from course.tokenizer import PIECES, ByteLevelBPE
from lorafy.scratch import read_messages

TEXTS = [text for text, _ in read_messages(Path(lorafy.demo.__file__).parent / "sms.csv")]
STRANGE = [
    "",
    " ",
    "   two  spaces  ",
    "\t\r\n\n mixed \u00a0 white\u3000space \n",
    "你好，世界！免费领取奖品",
    "😀👩‍👩‍👧‍👦🇨🇳 emoji 👍🏽",
    "naïve café – “quotes” … £5,000",
    "عربى ไทย हिन्दी русский",
    "_under_score__ a1b2 3.14 x=y; #tag @me http://a.example/?q=1&r=2",
    "\x00\x01\x7f\ufeff\uffff",
    "\U0001f600\U0010ffff",
    "FREE!!!!! call 08712460324 NOW",
]


@pytest.fixture(scope="module")
def bpe() -> ByteLevelBPE:
    return ByteLevelBPE.train(TEXTS, num_merges=300)


def test_every_text_comes_back(bpe: ByteLevelBPE) -> None:
    for text in [*TEXTS, *STRANGE]:
        assert bpe.decode(bpe.encode(text)) == text
        assert all(0 <= token < bpe.pad_id for token in bpe.encode(text))


def test_made_up_texts_come_back(bpe: ByteLevelBPE) -> None:
    draw = random.Random(0)
    alphabets = ["ab \n", "abcdefgh'!? ", "的一是不了 a", "😀🇨🇳\u200d ", "".join(map(chr, range(0x20, 0x250)))]
    for _ in range(500):
        text = "".join(draw.choices(draw.choice(alphabets), k=draw.randrange(40)))
        assert bpe.decode(bpe.encode(text)) == text


def test_the_pieces_of_a_text_are_the_text() -> None:
    assert all("".join(PIECES.findall(text)) == text for text in [*TEXTS, *STRANGE])


def test_merges_are_the_most_frequent_pairs() -> None:
    bpe = ByteLevelBPE.train(["aab aab aab", "ab"], num_merges=3)
    # " aab" twice, "aab" once, "ab" once: (a, b) 4 times, then (a, ab) 3 times, then (space, aab) twice.
    assert [bpe.tokens("aab aab")] == [["aab", " aab"]]
    a, b, space = b"ab "
    assert bpe.merges == [(a, b), (a, 256), (space, 257)]
    assert (bpe.pad_id, bpe.vocab_size) == (259, 260)


def slow_merges(texts: list[str], num_merges: int) -> list[tuple[int, int]]:
    """The definition: count all pairs anew before each merge."""
    words = [list(piece.encode("utf-8")) for text in texts for piece in PIECES.findall(text)]
    merges: list[tuple[int, int]] = []
    for _ in range(num_merges):
        counts: dict[tuple[int, int], int] = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts, key=lambda pair: (counts[pair], pair))
        for word in words:
            place = 0
            while place < len(word) - 1:
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = [256 + len(merges)]
                place += 1
        merges.append(best)
    return merges


def test_counting_only_what_changed_learns_the_same_merges() -> None:
    texts = [*TEXTS[:60], *STRANGE, "aaaa aaaaa aaa abababab"]
    assert ByteLevelBPE.train(texts, num_merges=60).merges == slow_merges(texts, 60)


def test_the_order_of_the_texts_does_not_matter(bpe: ByteLevelBPE) -> None:
    assert ByteLevelBPE.train(reversed(TEXTS), num_merges=300).merges == bpe.merges


def test_training_ends_where_no_pair_repeats() -> None:
    assert ByteLevelBPE.train([], 5).merges == []
    assert ByteLevelBPE.train(["abc"], 5).merges == []
    assert ByteLevelBPE.train(["abc abc", " abc"], 50).encode(" abc") == [258]


def test_padding_and_broken_characters(bpe: ByteLevelBPE) -> None:
    assert bpe.decode([*bpe.encode("hi"), bpe.pad_id, bpe.pad_id]) == "hi"
    assert bpe.decode("你".encode()[:2]) == "\ufffd"


def test_it_is_shorter_than_bytes(bpe: ByteLevelBPE) -> None:
    num_bytes = sum(len(text.encode()) for text in TEXTS)
    assert sum(len(bpe.encode(text)) for text in TEXTS) < num_bytes / 2
