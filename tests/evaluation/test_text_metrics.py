"""Metrics of written answers against sacrebleu and rouge-score themselves."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import sacrebleu

from lorafy.evaluation.metrics import wilson_interval
from lorafy.evaluation.text_metrics import text_metrics

ENGLISH = [
    "The cat sat on the mat, and it was happy.",
    "There is a cheap restaurant by the river called The Eagle.",
    "Forty-two is the answer to everything!",
]
NEAR = [
    "The cat sat on a mat and was happy.",
    "The Eagle is a cheap place by the river.",
    "The answer to everything is 42.",
]
CHINESE = ["早睡早起身体好，睡前不要看手机。", "多喝水，少喝咖啡，每天走一万步。", "把大事分成小事，一件一件地做完。"]


def shuffled(text: str) -> str:
    letters = list(text)
    random.Random(0).shuffle(letters)
    return "".join(letters)


def alone(texts: list[str]) -> list[list[str]]:
    return [[text] for text in texts]


def test_english_is_sacrebleus_own_figures():
    found = text_metrics(NEAR, alone(ENGLISH))
    assert found["bleu"] == sacrebleu.corpus_bleu(NEAR, [ENGLISH]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(NEAR, [ENGLISH]).score
    assert 0 < found["bleu"] < 100


def test_several_references_of_different_numbers():
    """As of E2E, where a meaning has one to dozens of sentences."""
    references = [[ENGLISH[0], NEAR[0]], [ENGLISH[1]], [ENGLISH[2], "42", NEAR[2]]]
    answers = ["The cat was happy on a mat.", NEAR[1], "The answer is 42."]
    found = text_metrics(answers, references)
    streams: list[list[Any]] = [[several[0] for several in references], [NEAR[0], None, "42"], [None, None, NEAR[2]]]
    assert found["bleu"] == sacrebleu.corpus_bleu(answers, streams).score
    assert found["chrf"] == sacrebleu.corpus_chrf(answers, streams).score
    assert found["bleu"] > text_metrics(answers, alone(ENGLISH))["bleu"]
    assert text_metrics(answers, [several[::-1] for several in references])["rouge_l"] == found["rouge_l"]


def test_exact_match_is_of_any_reference_but_for_white_space_at_the_ends():
    found = text_metrics(["yes ", "\nno", "No", "may be", ""], [["yes"], ["x", "no"], ["no"], ["maybe"], ["a"]])
    assert found["exact_match"] == 2 / 5
    assert found["exact_match_interval"] == wilson_interval(2, 5)


def test_a_perfect_answer_has_every_metric_at_its_top():
    for texts in (ENGLISH, CHINESE):
        found = text_metrics(texts, alone(texts))
        assert found["exact_match"] == 1 and found["rouge_l"] == 1
        assert found["bleu"] == pytest.approx(100) and found["chrf"] == pytest.approx(100)


def test_chinese_is_compared_character_by_character():
    mixed = [shuffled(text) for text in CHINESE]
    found = text_metrics(mixed, alone(CHINESE))
    assert found["bleu"] == sacrebleu.corpus_bleu(mixed, [CHINESE], tokenize="zh").score < 20
    assert found["chrf"] == sacrebleu.corpus_chrf(mixed, [CHINESE]).score < 60
    assert 0 < found["rouge_l"] < 1, "rouge-score's own tokenizer would find nothing"
    one_other = [text.replace("。", "！") for text in CHINESE]
    assert 80 < text_metrics(one_other, alone(CHINESE))["bleu"] < 100, "one character of sixteen differs"


def test_what_is_mostly_chinese_counts_as_chinese():
    texts = [f"用 LoRA 训练模型时，{text}" for text in CHINESE]
    answers = [text.replace("模型", "网络") for text in texts]
    assert text_metrics(answers, alone(texts))["bleu"] == sacrebleu.corpus_bleu(answers, [texts], tokenize="zh").score
    english = [f"{text} (早)" for text in ENGLISH]
    near = [f"{text} (早)" for text in NEAR]
    assert text_metrics(near, alone(english))["bleu"] == sacrebleu.corpus_bleu(near, [english]).score


def test_rouge_of_english_words_is_rouge_scores_own():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rouge_score.rouge_scorer import RougeScorer
    plain = [text.translate({ord(mark): None for mark in ".,!-"}) for text in (*ENGLISH, *NEAR)]
    references, answers = plain[:3], plain[3:]
    scorer = RougeScorer(["rougeL"])
    expected = [scorer.score(*pair)["rougeL"].fmeasure for pair in zip(references, answers, strict=True)]
    assert text_metrics(answers, alone(references))["rouge_l"] == pytest.approx(sum(expected) / 3)


def test_rouge_of_chinese_by_hand():
    """Of 你好世界 and 你世界好 the longest common subsequence is 你世界: 3 of 4 and 3 of 4 characters."""
    assert text_metrics(["你世界好"], [["你好世界"]])["rouge_l"] == pytest.approx(3 / 4)
    assert text_metrics(["你世"], [["你好世界"]])["rouge_l"] == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_empty_answers_score_nothing_and_break_nothing():
    for references in (ENGLISH, CHINESE):
        found = text_metrics(["", " ", "\n"], alone(references))
        assert {found[name] for name in ("exact_match", "bleu", "chrf", "rouge_l")} == {0}
    assert text_metrics(["", CHINESE[1]], alone(CHINESE[:2]))["rouge_l"] == 0.5
