"""How near generated answers come to the references: exact match, BLEU, chrF and ROUGE-L, Chinese by characters."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

from .metrics import wilson_interval

CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\U00020000-\U0002ebef]")
WORDS = re.compile(rf"{CJK.pattern}|[^\W_]+|[^\w\s]")
MOSTLY = 0.3


def text_metrics(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """How near answers come to references, over all prompts. answers: one a prompt; references: one or more a prompt,
    of which the nearest counts.

    exact_match: share of answers equal to a reference but for white space at the ends, with Wilson's 95 % interval.
    bleu, chrf: sacrebleu's corpus scores, 0 to 100; BLEU cuts Chinese and Japanese into characters where they are
    mostly written, else as 13a. rouge_l: mean F1 of the longest common subsequence, 0 to 1, over words and single
    characters (rouge-score's own tokenizer drops all that is not ASCII).
    """
    exact = sum(
        answer.strip() in {text.strip() for text in several}
        for answer, several in zip(answers, references, strict=True)
    )
    return {
        "exact_match": exact / len(answers),
        "exact_match_interval": wilson_interval(exact, len(answers)),
        **_sacrebleu(answers, references),
        "rouge_l": _rouge_l(answers, references),
    }


def _sacrebleu(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    import sacrebleu

    most = max(len(several) for several in references)
    # sacrebleu wants the first references of all prompts, then the second; None where a prompt has no more.
    streams: Any = [
        [several[index] if index < len(several) else None for several in references] for index in range(most)
    ]
    tokenize = "zh" if _is_mostly_cjk([several[0] for several in references]) else "13a"
    bleu = sacrebleu.corpus_bleu(list(answers), streams, tokenize=tokenize)
    return {"bleu": bleu.score, "chrf": sacrebleu.corpus_chrf(list(answers), streams).score}


def _is_mostly_cjk(texts: Sequence[str]) -> bool:
    letters = sum(len(re.findall(r"\w", text)) for text in texts)
    return sum(len(CJK.findall(text)) for text in texts) > MOSTLY * max(1, letters)


class _Words:
    """rouge-score's tokenizer seam: words, single CJK characters, punctuation, in lower case."""

    def tokenize(self, text: str) -> list[str]:
        return WORDS.findall(text.lower())


def _rouge_l(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk's own deprecations
        from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    best = [
        max(scorer.score(text, answer)["rougeL"].fmeasure for text in several)
        for answer, several in zip(answers, references, strict=True)
    ]
    return sum(best) / len(best)
