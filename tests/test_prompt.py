"""The prompt renderer on the real tokenizers: what is written, what is trained, and that it is what is asked later."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GPT2Tokenizer

from language_models import assistant, byte_tokenizer, real_tokenizer, system, user
from lorafy.encoding.prompt import Renderer, make_renderer
from lorafy.types import DataError, Message, ModelError

NAMES = ["gpt2", "opt", "qwen2", "qwen3", "stories"]
QWEN2_SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
ONE_TURN = [user("Hi"), assistant("Hello there")]
TWO_TURNS = [system("Be kind."), user("Hi"), assistant("Hello"), user("And?"), assistant("Yes.")]
CHINESE = [user("怎样早睡？"), assistant("放下手机，\n早点关灯。😊")]


@pytest.fixture(scope="module")
def tokenizers(shared_data: Path) -> dict[str, Any]:
    """As they come. Copy before you change one."""
    return {name: real_tokenizer(shared_data, name) for name in NAMES}


@pytest.fixture(scope="module")
def renderer(tokenizers: dict[str, Any]) -> Callable[..., Renderer]:
    """`renderer("qwen3", thinking=True)`."""
    own = copy.deepcopy(tokenizers)  # a plain template is put into them
    return lambda name, **settings: make_renderer(own[name], **settings)


def texts(renderer: Renderer, messages: list[Message]) -> list[list[tuple[str, bool]]]:
    return [[(piece.text, piece.trained) for piece in pieces] for pieces in renderer.sequences(messages)]


def trained_texts(renderer: Renderer, messages: list[Message]) -> list[str]:
    """What is trained of each sequence, decoded from its tokens."""
    found = []
    for pieces in renderer.sequences(messages):
        ids, trained = renderer.encode(pieces)
        found.append(renderer.tokenizer.decode([i for i, is_trained in zip(ids, trained, strict=True) if is_trained]))
    return found


@pytest.mark.parametrize(
    ("name", "given", "end"),
    [
        ("gpt2", "User:\nHi\n\nAssistant:\n", "<|endoftext|>"),
        ("opt", "</s>User:\nHi\n\nAssistant:\n", "</s>"),
        ("stories", "<s>User:\nHi\n\nAssistant:\n", "</s>"),
        ("qwen2", QWEN2_SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
        ("qwen3", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|im_end|>"),
    ],
)
def test_one_turn(renderer, name: str, given: str, end: str):
    asked = renderer(name)
    assert asked.end == end and asked.tokenizer.decode([asked.end_id]) == end
    assert texts(asked, ONE_TURN) == [[(given, False), (f"Hello there{end}", True)]]
    assert trained_texts(asked, ONE_TURN) == [f"Hello there{end}"]
    assert asked.question(ONE_TURN[:1]) == given


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [("gpt2", "", "<|endoftext|>"), ("opt", "</s>", "</s>"), ("stories", "<s>", "</s>")],
)
def test_two_turns_and_a_system_message_in_the_plain_template(renderer, name: str, begin: str, end: str):
    asked = renderer(name)
    assert texts(asked, TWO_TURNS) == [
        [
            (f"{begin}Be kind.\n\nUser:\nHi\n\nAssistant:\n", False),
            (f"Hello{end}", True),
            ("\n\nUser:\nAnd?\n\nAssistant:\n", False),
            (f"Yes.{end}", True),
        ]
    ]
    assert trained_texts(asked, TWO_TURNS) == [f"Hello{end}Yes.{end}"]


def test_two_turns_and_a_system_message_in_chatml(renderer):
    asked = renderer("qwen2")
    assert texts(asked, TWO_TURNS) == [
        [
            ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False),
            ("Hello<|im_end|>", True),
            ("\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n", False),
            ("Yes.<|im_end|>", True),
        ]
    ]
    assert trained_texts(asked, TWO_TURNS) == ["Hello<|im_end|>Yes.<|im_end|>"]


@pytest.mark.parametrize(("thinking", "thoughts"), [(False, ("<think>\n\n</think>\n\n", "")), (True, ("", "..."))])
def test_two_turns_in_qwen3_are_a_sequence_for_each_answer(renderer, thinking: bool, thoughts: tuple[str, str]):
    """Its template takes earlier thoughts out, so one sequence cannot hold both answers as they will be asked for.

    Without thinking the empty thoughts are given; with it they are the model's to write.
    """
    given, written = thoughts[0], "<think>\n\n</think>\n\n" if thoughts[1] else ""
    asked = renderer("qwen3", thinking=thinking)
    first = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    second = first + "Hello<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
    assert texts(asked, TWO_TURNS) == [
        [(first + given, False), (f"{written}Hello<|im_end|>", True)],
        [(second + given, False), (f"{written}Yes.<|im_end|>", True)],
    ]
    assert trained_texts(asked, TWO_TURNS) == [f"{written}Hello<|im_end|>", f"{written}Yes.<|im_end|>"]


def test_thoughts_in_qwen3_are_trained_where_thinking_is_on_and_refused_where_it_is_off(renderer):
    messages = [user("2+2?"), assistant("<think>\nTwo and two.\n</think>\n\nFour.")]
    assert trained_texts(renderer("qwen3", thinking=True), messages) == [
        "<think>\nTwo and two.\n</think>\n\nFour.<|im_end|>"
    ]
    with pytest.raises(DataError, match=r"it holds thoughts: set data\.thinking=true, or take them out"):
        renderer("qwen3").sequences(messages)


@pytest.mark.parametrize("name", NAMES)
def test_chinese_is_trained_whole(renderer, name: str):
    asked = renderer(name)
    assert trained_texts(asked, CHINESE) == [f"放下手机，\n早点关灯。😊{asked.end}"]


@pytest.mark.parametrize(("name", "thinking"), [*((name, False) for name in NAMES), ("qwen3", True)])
def test_the_question_is_the_one_that_the_tokenizers_template_asks(renderer, tokenizers, name: str, thinking: bool):
    """transformers' own rendering, for every answer of a conversation."""
    asked = renderer(name, thinking=thinking)
    ends = [index for index, message in enumerate(TWO_TURNS) if message.role == "assistant"]
    plain = [{"role": message.role, "content": message.content} for message in TWO_TURNS]
    sequences = asked.sequences(TWO_TURNS)
    for number, end in enumerate(ends):
        pieces = sequences[number] if len(sequences) > 1 else sequences[0][: 2 * number + 2]
        expected = asked.tokenizer.apply_chat_template(
            plain[:end], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        assert "".join(piece.text for piece in pieces[:-1]) == expected
    if tokenizers[name].chat_template is not None:
        assert asked.tokenizer.chat_template == tokenizers[name].chat_template, "the template is left as it is"


CONVERSATIONS = {
    "one turn": ONE_TURN,
    "two turns": TWO_TURNS,
    "chinese": [*CHINESE, user("还有呢？"), assistant("少喝咖啡。")],
    "white space": [user("q"), assistant("  lead"), user("r "), assistant("\n\nlines\n"), user("s"), assistant("t\n ")],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_trained_question_is_token_by_token_the_one_that_generation_starts_from(renderer, name: str, conversation):
    asked = renderer(name)
    ends = [index for index, message in enumerate(conversation) if message.role == "assistant"]
    sequences = asked.sequences(conversation)
    for number, end in enumerate(ends):
        pieces = sequences[number][:-1] if len(sequences) > 1 else sequences[0][: 2 * number + 1]
        assert asked.question_ids(conversation[:end]) == asked.encode(pieces)[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("conversation", ["one turn", "two turns", "chinese"])
def test_the_pieces_are_cut_as_the_whole_text_is(renderer, name: str, conversation: str):
    """So that other tools, which render a conversation in one go, ask with the tokens that were trained."""
    asked = renderer(name)
    for pieces in asked.sequences(CONVERSATIONS[conversation]):
        whole = asked.tokenizer("".join(piece.text for piece in pieces), add_special_tokens=False)["input_ids"]
        assert asked.encode(pieces)[0] == whole


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_ends_with_the_supervised_end_whatever_pads(renderer, name: str):
    asked = renderer(name)
    if asked.tokenizer.pad_token_id is None:
        asked.tokenizer.pad_token = asked.tokenizer.eos_token  # as load_tokenizer does for GPT-2
    ends = 0
    for pieces in asked.sequences(TWO_TURNS):
        ids, trained = asked.encode(pieces)
        assert ids[-1] == asked.end_id and trained[-1]
        ends += sum(token == asked.end_id for token, is_trained in zip(ids, trained, strict=True) if is_trained)
    assert ends == 2


def test_the_same_text_reads_back_from_the_tokens(renderer):
    for name in ("gpt2", "opt", "qwen2", "qwen3"):  # Llama's tokenizer shows a space behind <s>
        asked = renderer(name)
        for pieces in asked.sequences(CHINESE):
            assert asked.tokenizer.decode(asked.encode(pieces)[0]) == "".join(piece.text for piece in pieces)


def test_the_system_message_of_the_recipe_stands_where_a_row_has_none(renderer):
    asked = renderer("gpt2", system="Answer in a word.")
    assert asked.question([user("Hi")]) == "Answer in a word.\n\nUser:\nHi\n\nAssistant:\n"
    assert asked.question([system("Be kind."), user("Hi")]) == "Be kind.\n\nUser:\nHi\n\nAssistant:\n"


def test_the_fingerprint_is_of_all_that_decides_how_a_question_is_put(renderer, tokenizers):
    edited = copy.deepcopy(tokenizers["qwen3"])
    edited.chat_template = edited.chat_template.replace("<|im_start|>system", "<|im_start|>System")
    kinds = [
        renderer("qwen3"),
        make_renderer(edited),
        renderer("qwen3", system="Be kind."),
        renderer("qwen3", system="Be kind"),
        renderer("qwen3", thinking=True),
        renderer("qwen2"),
        renderer("gpt2"),
        renderer("opt"),
    ]
    assert len({kind.fingerprint for kind in kinds}) == len(kinds)
    assert make_renderer(copy.deepcopy(tokenizers["qwen3"])).fingerprint == kinds[0].fingerprint


def test_the_fingerprint_notices_a_tokenizer_that_cuts_otherwise():
    """The same template, settings and end, but two letters became one token."""
    bytes_alone = make_renderer(byte_tokenizer())
    vocabulary = bytes_alone.tokenizer.get_vocab() | {"he": 257}
    pairs: list[Any] = [("h", "e")]  # transformers types them as text, the tokenizers library takes pairs
    merged = make_renderer(GPT2Tokenizer(vocab=vocabulary, merges=pairs))
    assert merged.tokenizer.chat_template == bytes_alone.tokenizer.chat_template
    assert (merged.end, merged.end_id) == (bytes_alone.end, bytes_alone.end_id)
    assert merged.fingerprint != bytes_alone.fingerprint


NO_MARK = "{% for message in messages %}{{ message.role }}: {{ message.content }}<|endoftext|>{% endfor %}"
LATE_MARK = NO_MARK + "{% if add_generation_prompt %}bot: {% endif %}"
NO_END = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SHOUTED = (
    "{% for message in messages %}{{ message.role }}: {{ message.content | upper }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.mark.parametrize(
    ("template", "message", "fix"),
    [
        (NO_MARK, "does not mark where an answer begins: it writes 'user: Which colour?", "add_generation_prompt"),
        (LATE_MARK, "does not mark where an answer begins", "add_generation_prompt"),
        (SHOUTED, "does not mark where an answer begins", "another chat_template"),
        (NO_END, r"ends an answer with '\n', which holds no special token", "could not learn to stop"),
    ],
)
def test_a_template_that_cannot_mark_the_answer_or_its_end(template: str, message: str, fix: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ModelError) as caught:
        make_renderer(tokenizer)
    (problem,) = caught.value.problems
    assert problem.where == "the chat template"
    assert message in problem.message and fix in str(problem.fix)


def test_a_tokenizer_without_template_and_end_token():
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="the tokenizer has no end token\n    -> set eos_token in its"):
        make_renderer(tokenizer)


def test_a_template_that_refuses_a_conversation():
    """As Gemma's refuses a system message, and Mistral's an odd order of roles."""
    tokenizer = byte_tokenizer(chat=True)
    rule = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    tokenizer.chat_template = rule + tokenizer.chat_template
    asked = make_renderer(tokenizer)
    assert texts(asked, ONE_TURN)[0][1] == ("Hello there<|im_end|>", True)
    for ask in (asked.sequences, asked.question, asked.question_ids):
        with pytest.raises(DataError, match="refuses this conversation: System role not supported"):
            ask(TWO_TURNS)


@pytest.mark.parametrize("name", ["gpt2", "opt", "qwen2", "stories"])
def test_thinking_asked_of_a_template_that_knows_none(renderer, name: str):
    with pytest.raises(ModelError, match=r"data\.thinking: no effect: the chat template has no thinking mode"):
        renderer(name, thinking=True)


def test_an_answer_is_trained_as_the_template_writes_it():
    """A template may trim answers (Qwen3's does at the start); what is trained is what the model is to write."""
    tokenizer = byte_tokenizer(chat=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("message.content", "message.content | trim")
    asked = make_renderer(tokenizer)
    assert texts(asked, [user("Hi"), assistant(" Hello ")])[0][1] == ("Hello<|im_end|>", True)


@pytest.mark.parametrize("name", ["gpt2", "opt", "stories"])
def test_the_plain_template_is_saved_with_the_tokenizer(renderer, tmp_path: Path, name: str):
    asked = renderer(name)
    asked.tokenizer.save_pretrained(tmp_path)
    again = make_renderer(AutoTokenizer.from_pretrained(tmp_path))
    assert again.fingerprint == asked.fingerprint and texts(again, TWO_TURNS) == texts(asked, TWO_TURNS)
