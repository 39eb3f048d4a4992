"""A conversation: what it asks the model with, what it remembers and forgets."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from language_models import assistant, byte_tokenizer, make_language_model, system, user
from lorafy.config.schema import GenerationSection
from lorafy.encoding.conversations import ConversationEncoder
from lorafy.encoding.prompt import make_renderer
from lorafy.inference import chat as chat_file
from lorafy.inference.chat import Chat
from lorafy.inference.generate import Answer, generate
from lorafy.models.precision import Precision
from lorafy.types import DataError, Message

PLAIN = Precision(torch.float32, torch.device("cpu"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Message], int]]:
    """Each question with who was asked and the seed; the answer is `A1`, `A2` ... from the tuned model, `B1` ... from
    the base."""
    calls: list[tuple[str, list[Message], int]] = []

    def answer(model: str, encoder: Any, conversations: Any, settings: Any, precision: Any, *, seed: int, on_text: Any):
        (messages,) = conversations
        calls.append((model, list(messages), seed))
        text = f"{model}{len(calls)}"
        if on_text:
            on_text(text)
        return [Answer(text, 2, ended=True, looped=False)]

    monkeypatch.setattr(chat_file, "generate", answer)
    return calls


def make_chat(context: int = 256, max_new_tokens: int = 16, **settings: Any) -> Chat:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    encoder = ConversationEncoder(make_renderer(tokenizer), 128, context)
    generation = GenerationSection(temperature=0.0, max_new_tokens=max_new_tokens)
    return Chat(lambda is_base: nullcontext("B" if is_base else "A"), encoder, generation, PLAIN, **settings)


def test_it_remembers_what_was_said(asked):
    chat = make_chat()
    assert (chat.ask("one").text, chat.ask("two").text) == ("A1", "A2")
    assert [messages for _, messages, _ in asked] == [
        [user("one")],
        [user("one"), assistant("A1"), user("two")],
    ]
    assert chat.history == [user("one"), assistant("A1"), user("two"), assistant("A2")]


def test_base_and_tuned_answer_the_same_question(asked):
    """The other voice's answer takes the last one's place; what was said before stays."""
    chat = make_chat()
    chat.ask("one")
    chat.ask("two")
    chat.use_base = True
    answer = chat.ask_again()
    assert answer is not None and answer.text == "B3"
    assert asked[2][:2] == ("B", asked[1][1])
    assert asked[2][2] == asked[1][2], "the same seed: the difference is the model's"
    assert chat.history == [user("one"), assistant("A1"), user("two"), assistant("B3")]
    chat.use_base = False
    chat.ask_again()
    chat.ask("three")
    assert [voice for voice, *_ in asked] == ["A", "A", "B", "A", "A"]
    assert asked[4][1][3] == assistant("A4")


def test_there_is_nothing_to_ask_again_at_the_start(asked):
    assert make_chat().ask_again() is None and asked == []


def test_reset_forgets_and_the_system_message_stays(asked):
    chat = make_chat(system="Be kind.")
    chat.ask("one")
    chat.reset()
    chat.ask("two")
    assert asked[1][1] == [system("Be kind."), user("two")]
    assert chat.history == [user("two"), assistant("A2")], "the system message is no part of the history"
    chat.system = None
    chat.ask("three")
    assert asked[2][1] == [user("two"), assistant("A2"), user("three")]


def test_another_turn_has_another_seed(asked):
    chat = make_chat(seed=7)
    chat.ask("one")
    chat.ask("one")
    assert asked[0][2] != asked[1][2]


def test_the_oldest_turns_are_forgotten_and_counted(asked):
    chat = make_chat(context=128, max_new_tokens=64)
    for number in range(6):
        chat.ask(f"question {number}")
        ids = chat.encoder.renderer.question_ids(asked[-1][1])
        assert len(ids) <= 64, "room for a full answer"
    assert asked[-1][1] == [user("question 4"), assistant("A5"), user("question 5")]
    assert chat.num_forgotten == 4
    assert chat.history[0] == user("question 4")
    chat.reset()
    assert chat.num_forgotten == 0


def test_long_answers_leave_half_of_the_context_to_the_history(asked):
    chat = make_chat(context=200, max_new_tokens=10_000)
    chat.ask("one")
    chat.ask("two")
    assert len(asked[1][1]) == 3 and chat.num_forgotten == 0


def test_the_system_message_is_never_forgotten(asked):
    chat = make_chat(context=128, max_new_tokens=64, system="S" * 20)
    for number in range(4):
        chat.ask(f"question {number}")
        assert asked[-1][1][0] == system("S" * 20)
    assert chat.num_forgotten > 0


def test_the_text_is_streamed(asked):
    parts: list[str] = []
    chat = make_chat()
    chat.ask("one", parts.append)
    chat.ask_again(parts.append)
    assert parts == ["A1", "A2"]


def talker() -> Chat:
    """With a model that writes."""
    tokenizer = byte_tokenizer(chat=True)
    encoder = ConversationEncoder(make_renderer(tokenizer), 128, 128)
    model = make_language_model("qwen3", len(tokenizer))
    return Chat(
        lambda _: nullcontext(model), encoder, GenerationSection(temperature=1.0, max_new_tokens=8), PLAIN, seed=3
    )


def test_a_question_that_the_model_cannot_read_leaves_the_conversation_as_it_was():
    chat = talker()
    chat.ask("Hi")
    before = list(chat.history)
    with pytest.raises(DataError, match="longer than the 128 tokens"):
        chat.ask("q" * 500)
    assert chat.history == before and chat.num_forgotten == 0


def test_an_answer_that_was_broken_off_leaves_the_conversation_as_it_was():
    chat = talker()
    chat.ask("Hi")
    before = list(chat.history)

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chat.ask("Why?", interrupt)
    assert chat.history == before


def test_a_conversation_is_the_same_as_asking_with_its_messages():
    chat, other = talker(), talker()
    first, second = chat.ask("Hi"), chat.ask("Why?")
    messages = [user("Hi"), assistant(first.text), user("Why?")]
    with other.speakers(False) as model:
        direct = generate(model, other.encoder, [messages], other.settings, PLAIN, seed=3 + len(messages))
    assert direct == [second]
    again, repeated = talker(), talker()
    assert [again.ask("Hi"), again.ask("Why?")] == [repeated.ask("Hi"), repeated.ask("Why?")], "sampled by the seed"
