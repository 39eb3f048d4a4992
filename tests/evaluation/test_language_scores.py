"""What a language model is scored with: questions, intervals, samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from language_models import byte_tokenizer, make_language_model, system, talk, user
from lorafy.encoding.conversations import ConversationEncoder
from lorafy.encoding.prompt import make_renderer
from lorafy.evaluation.language import Asked, questions, samples, score
from lorafy.inference.generate import Answer
from lorafy.models.precision import Precision
from lorafy.tasks.causal_lm import CausalLM
from lorafy.types import Conversation, Message

PLAIN = Precision(torch.float32, torch.device("cpu"))
TALKS = [
    talk("name : Eagle", "The Eagle.", row=1),
    talk("name : Crown", "The Crown.", row=2),
    talk("name : Eagle ", "It is The Eagle.", row=3),
    talk("a", "b", "c", "d", row=4),
    Conversation((Message("text", "Once."),), "the test", 5),
    Conversation((system("s"), *talk("name : Eagle", "Eagle!").messages), "the test", 6),
]


def test_a_question_that_stands_there_twice_is_asked_once_with_all_its_answers():
    found = questions(TALKS, 10)
    assert [(asked.row, asked.references) for asked in found] == [
        (1, ["The Eagle.", "It is The Eagle."]),
        (2, ["The Crown."]),
        (4, ["d"]),
        (6, ["Eagle!"]),
    ]
    assert found[2].messages == talk("a", "b", "c").messages, "it ends with the last question"
    assert found[3].messages[0] == system("s")


def test_only_so_many_are_asked_and_later_answers_to_them_count():
    assert [asked.references for asked in questions(TALKS, 1)] == [["The Eagle.", "It is The Eagle."]]
    assert questions(TALKS, 0) == []


def written(text: str, **facts: Any) -> Answer:
    return Answer(text, **({"num_tokens": len(text), "ended": True, "looped": False} | facts))


def test_metrics_of_a_model():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    task = CausalLM(ConversationEncoder(make_renderer(tokenizer), 128, 256), len(tokenizer))
    model = make_language_model("gpt2", task.vocab_size)
    encoded = task.encode(TALKS)
    asked = questions(TALKS, 3)
    answers = [written("The Eagle."), written("x", ended=False), written("d d d d", looped=True, ended=False)]

    def write(conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        assert [list(messages) for messages in conversations] == [list(each.messages) for each in asked]
        return answers

    metrics, found = score(model, task.encoder, encoded, asked, write, PLAIN, task.max_tokens)
    assert found == answers
    measured = task.measure(model, encoded.features, PLAIN)
    assert metrics["loss"] == measured["loss"] and metrics["perplexity"] == measured["perplexity"]
    assert metrics["token_accuracy"] == measured["accuracy"]
    low, high = metrics["loss_interval"]
    assert low < metrics["loss"] < high
    assert metrics["perplexity_interval"] == pytest.approx([torch.tensor(x).exp().item() for x in (low, high)])
    generation = metrics["generation"]
    assert (generation["num_prompts"], generation["exact_match"]) == (3, 1 / 3)
    assert (generation["ended"], generation["looped"]) == (1 / 3, 1 / 3)
    assert generation["mean_new_tokens"] == (10 + 1 + 7) / 3
    again, _ = score(model, task.encoder, encoded, [], write, PLAIN, task.max_tokens)
    assert again["generation"] is None and again["loss_interval"] == [low, high], "the bootstrap has its own seed"


def test_samples_show_question_references_and_both_answers():
    asked = [Asked((user("q"),), ["a", "b", "c", "d"], 7), Asked((user("r"),), ["e"], 9)]
    tuned, base = [written("A"), written("E", ended=False)], [written("?"), written("!")]
    assert samples(asked, tuned, base, 1) == [
        {"prompt": "q", "references": ["a", "b", "c"], "tuned": "A", "base": "?", "row": 7, "ended": True}
    ]
    assert [sample["base"] for sample in samples(asked, tuned, None)] == [None, None]
