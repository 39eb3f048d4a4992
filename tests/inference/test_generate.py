"""Answers of a batch, of a seed, of a stream; where they stop, and that nobody edits them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, GPT2Config, GPT2LMHeadModel

from language_models import (
    ARCHITECTURES,
    POSITIONS,
    assistant,
    byte_tokenizer,
    make_language_model,
    real_tokenizer,
    user,
)
from lorafy.config.schema import GenerationSection, ModelSection
from lorafy.encoding.conversations import ConversationEncoder
from lorafy.encoding.prompt import make_renderer
from lorafy.inference.generate import (
    BATCH_SIZE,
    LONGEST_PERIOD,
    LOOP_REPEATS,
    LOOP_TOKENS,
    Answer,
    generate,
    is_looping,
    stop_ids,
)
from lorafy.models.load import load_whole, open_source
from lorafy.models.precision import Precision
from lorafy.types import DataError, Message

PLAIN = Precision(torch.float32, torch.device("cpu"))
QUESTIONS = [
    [user(text)]
    for text in ("Tell me of a dog.", "Why?", "Once upon a time there was a little girl who", "Who is Tom, and where?")
]


def greedy(max_new_tokens: int = 24, **settings: Any) -> GenerationSection:
    return GenerationSection(temperature=0.0, max_new_tokens=max_new_tokens, **settings)


def make_encoder(name: str = "gpt2", context: int = 256, tokenizer: Any = None) -> ConversationEncoder:
    tokenizer = byte_tokenizer(chat=name == "qwen3") if tokenizer is None else tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return ConversationEncoder(make_renderer(tokenizer), 128, context)


@pytest.fixture(scope="module")
def tellers() -> dict[str, tuple[Any, ConversationEncoder]]:
    """Tiny models with weights large enough that their greedy texts do not repeat a byte at once."""
    made = {}
    for name in ARCHITECTURES:
        encoder = make_encoder(name)
        model = make_language_model(name, len(encoder.tokenizer))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter *= 8
        made[name] = (model, encoder)
    return made


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> tuple[Any, ConversationEncoder]:
    """The real pretrained Llama of 260,000 parameters."""
    section = ModelSection(path=str(shared_data / "stories260K" / "hf"))
    tokenizer = open_source(section).tokenizer
    encoder = ConversationEncoder(make_renderer(tokenizer), 512, 512)
    return load_whole(section, AutoModelForCausalLM, len(tokenizer)).model.eval(), encoder


def scripted(encoder: ConversationEncoder, question: list[Message], ids: list[int]) -> Any:
    """A GPT-2 that writes these tokens behind this question: its layers add nothing, a position names a token."""
    config = GPT2Config(
        vocab_size=len(encoder.tokenizer), n_embd=POSITIONS, n_layer=1, n_head=1, n_positions=POSITIONS,
        tie_word_embeddings=False, bos_token_id=encoder.renderer.end_id, eos_token_id=encoder.renderer.end_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    start = len(encoder.renderer.question_ids(question)) - 1
    with torch.no_grad():
        for matrix in (model.transformer.wte, model.transformer.h[0].attn.c_proj, model.transformer.h[0].mlp.c_proj):
            matrix.weight.zero_()
        model.transformer.wpe.weight.copy_(torch.eye(POSITIONS))
        model.lm_head.weight.zero_()
        for position, token in enumerate(ids, start):
            model.lm_head.weight[token, position] = 10.0
    return model


def plain_greedy(model: Any, encoder: ConversationEncoder, messages: list[Message], most: int) -> list[int]:
    """The likeliest token after the whole text so far, again and again: no cache, no padding, no library."""
    ids = encoder.renderer.question_ids(messages)
    written: list[int] = []
    ends = stop_ids(model, encoder)
    with torch.inference_mode():
        while len(written) < most:
            token = int(model(input_ids=torch.tensor([ids + written])).logits[0, -1].argmax())
            if token in ends:
                break
            written.append(token)
    return written


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_gives_the_greedy_tokens_of_each_prompt_alone(tellers, name: str):
    model, encoder = tellers[name]
    answers = generate(model, encoder, QUESTIONS, greedy(), PLAIN)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        expected = plain_greedy(model, encoder, question, 24)
        assert answer.text == encoder.tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.num_tokens == len(expected)
    assert len({answer.text for answer in answers}) > 1, "the test would not see two answers changed about"


def test_a_batch_of_real_weights_gives_the_greedy_tokens_of_each_prompt_alone(stories):
    model, encoder = stories
    many = QUESTIONS * 5  # more than one batch
    assert len(many) > BATCH_SIZE
    answers = generate(model, encoder, many, greedy(40), PLAIN)
    expected = [encoder.tokenizer.decode(plain_greedy(model, encoder, question, 40)) for question in QUESTIONS]
    assert [answer.text for answer in answers] == expected * 5
    assert all(len(text) > 20 for text in expected)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_a_batch_with_a_repetition_penalty_is_as_each_alone(tellers, name: str):
    """Padding is GPT-2's end token: were it counted as written, short prompts would find no end."""
    model, encoder = tellers[name]
    settings = greedy(16, repetition_penalty=1.5)
    together = generate(model, encoder, QUESTIONS, settings, PLAIN)
    assert together == [generate(model, encoder, [question], settings, PLAIN)[0] for question in QUESTIONS]


def test_padding_does_not_make_the_end_less_likely():
    """A model for which the end is the likeliest token, by little."""
    encoder = make_encoder()
    model = make_language_model("gpt2", len(encoder.tokenizer))
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    scores = torch.full((len(encoder.tokenizer),), -5.0)
    scores[encoder.renderer.end_id], scores[encoder.tokenizer("x")["input_ids"][0]] = 2.0, 1.9
    model.lm_head.bias = torch.nn.Parameter(scores)
    answers = generate(model, encoder, [[user("q")], [user("q" * 90)]], greedy(4, repetition_penalty=1.3), PLAIN)
    assert [answer.ended for answer in answers] == [True, True]


def test_greedy_is_deterministic_and_no_seed_moves_it(stories):
    model, encoder = stories
    texts = {generate(model, encoder, QUESTIONS[:1], greedy(), PLAIN, seed=seed)[0].text for seed in (0, 0, 1)}
    assert len(texts) == 1


def test_sampling_is_reproduced_by_its_seed(stories):
    model, encoder = stories
    settings = GenerationSection(temperature=1.0, top_p=0.95, max_new_tokens=24)

    def sample(seed: int) -> list[Answer]:
        return generate(model, encoder, QUESTIONS, settings, PLAIN, seed=seed)

    first = sample(1)
    torch.rand(3)  # what was drawn before has no part in it
    assert sample(1) == first
    assert sample(1) != sample(2)
    before = torch.get_rng_state()
    sample(1)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers are left alone"


def test_the_makers_generation_settings_do_not_shape_our_text(stories):
    """Llama, Qwen and others ship sampling settings; temperature 0 is greedy whatever they say."""
    model, encoder = stories
    expected = generate(model, encoder, QUESTIONS, greedy(), PLAIN)
    own = model.generation_config
    try:
        model.generation_config = GenerationConfig(
            do_sample=True, temperature=0.6, top_k=3, top_p=0.5, repetition_penalty=1.8, max_length=7, min_p=0.2,
            eos_token_id=own.eos_token_id, bos_token_id=own.bos_token_id, no_repeat_ngram_size=2, num_beams=2,
            min_new_tokens=9, suppress_tokens=[13, 29, 31],
        )  # fmt: skip
        assert generate(model, encoder, QUESTIONS, greedy(), PLAIN) == expected
    finally:
        model.generation_config = own


# How an answer ends


def test_it_stops_at_the_trained_end_whatever_the_maker_calls_the_end():
    """ChatML's <|im_end|> was trained, the base's own end is <|endoftext|>: both end, and none is part of the text."""
    encoder = make_encoder("qwen3")
    question = [user("q")]
    own = encoder.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    for end in (encoder.renderer.end_id, own):
        model = scripted(
            encoder, question, [*encoder.tokenizer("Done.")["input_ids"], end, *encoder.tokenizer("No!")["input_ids"]]
        )
        model.generation_config.eos_token_id = own
        assert stop_ids(model, encoder) == {encoder.renderer.end_id, own}
        (answer,) = generate(model, encoder, [question], greedy(), PLAIN)
        assert answer == Answer("Done.", 5, ended=True, looped=False) and answer.remark is None


def test_an_answer_cut_short_says_so():
    encoder, question = make_encoder(), [user("q")]
    model = scripted(encoder, question, encoder.tokenizer("One two three four.")["input_ids"])
    (answer,) = generate(model, encoder, [question], greedy(7), PLAIN)
    assert answer == Answer("One two", 7, ended=False, looped=False)
    assert answer.remark == "stopped after 7 tokens: generation.max_new_tokens"


TEXTS = ["", "  x", " Once  upon\n\na time . ", "\tif a:\n\t\tb = [1,2] ", "早睡早起，\n身体好。😊 好"]


def hear(encoder: ConversationEncoder, text: str) -> None:
    """A model writes `text`; the answer and the stream are `text`."""
    question = [user("q")]
    ids, trained = encoder.renderer.encode(encoder.renderer.sequences([*question, assistant(text)])[0])
    model = scripted(encoder, question, [token for token, is_trained in zip(ids, trained, strict=True) if is_trained])
    shown: list[str] = []
    (answer,) = generate(model, encoder, [question], greedy(60), PLAIN, on_text=shown.append)
    assert answer.text == text and answer.ended
    assert "".join(shown) == text
    assert not any("\ufffd" in part for part in shown), "no half character is ever shown"
    assert len(shown) > 1 or len(text) < 4, "it is shown while it is written"


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_is_what_was_written_and_what_is_streamed(text: str):
    hear(make_encoder(), text)


@pytest.mark.parametrize(("name", "text"), [("gpt2", TEXTS[4]), *(("stories", text) for text in TEXTS)])
def test_the_text_of_real_tokenizers_is_what_was_written(shared_data: Path, name: str, text: str):
    """Llama's drops a space at the start of whatever it reads, and writes Chinese in bytes."""
    hear(make_encoder(tokenizer=real_tokenizer(shared_data, name)), text)


def test_half_a_character_at_the_cut_is_shown_as_it_is_returned():
    encoder, question = make_encoder(), [user("q")]
    model = scripted(encoder, question, encoder.tokenizer("早起")["input_ids"])
    shown: list[str] = []
    (answer,) = generate(model, encoder, [question], greedy(5), PLAIN, on_text=shown.append)
    assert answer.text == "".join(shown) == "早\ufffd"


def test_text_that_the_template_puts_before_an_answer_is_no_part_of_it():
    """Mistral's template writes a space there."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
        "{% else %} {{ message.content }}<|endoftext|>{% endif %}{% endfor %}"
    )
    encoder, question = make_encoder(tokenizer=tokenizer), [user("q")]
    ids, trained = encoder.renderer.encode(encoder.renderer.sequences([*question, assistant("Yes.")])[0])
    written = [token for token, is_trained in zip(ids, trained, strict=True) if is_trained]
    assert encoder.tokenizer.decode(written) == " Yes.<|endoftext|>"
    (answer,) = generate(scripted(encoder, question, written), encoder, [question], greedy(), PLAIN)
    assert answer.text == "Yes."


# Loops


@pytest.mark.parametrize("period", [1, 2, 3, 7, 16, LONGEST_PERIOD])
@pytest.mark.parametrize("prefix", [0, 5])
def test_a_stretch_that_repeats_is_a_loop_from_the_token_that_makes_it_sure(period: int, prefix: int):
    needed = max(LOOP_TOKENS, LOOP_REPEATS * period)
    ids = [*range(1_000, 1_000 + prefix), *(index % period for index in range(needed))]
    assert is_looping(ids)
    assert not is_looping(ids[:-1])


def test_what_is_no_loop():
    assert not is_looping([])
    assert not is_looping(list(range(400)))
    assert not is_looping([1, 2, 3] * 30 + [9]), "it went on"
    assert not is_looping([7] * (LOOP_TOKENS - 1)), "a ruler of a table"
    assert not is_looping([index % (LONGEST_PERIOD + 1) for index in range(400)]), "a long list of like lines"
    counted = [token for number in range(60) for token in (5, 6, 100 + number)]
    assert not is_looping(counted), "a numbered list"


def test_a_model_that_loops_is_stopped_and_its_text_is_left_as_it_is():
    encoder, question = make_encoder(), [user("q")]
    model = scripted(encoder, question, encoder.tokenizer("So: " + "ha, " * 40)["input_ids"])
    shown: list[str] = []
    (answer,) = generate(model, encoder, [question], greedy(150), PLAIN, on_text=shown.append)
    assert answer.looped and not answer.ended
    assert answer.text == "So:" + " ha," * 12 == "".join(shown)
    assert answer.num_tokens == len("So:") + LOOP_TOKENS
    assert answer.remark == "stopped: it repeated itself"


def test_a_loop_in_one_row_does_not_stop_the_others():
    encoder = make_encoder()
    short, long = [user("q")], [user("q" * 9)]
    ids = [*encoder.tokenizer("ha" * 40)["input_ids"], encoder.renderer.end_id]
    model = scripted(encoder, short, ids)
    first, second = generate(model, encoder, [short, long], greedy(150), PLAIN)
    assert first.looped and first.text == "ha" * 24
    assert second.looped and second.num_tokens == LOOP_TOKENS, "the same table, read eight positions later"
    ended = [*encoder.tokenizer("ha" * 20)["input_ids"], encoder.renderer.end_id]
    first, second = generate(scripted(encoder, short, ended), encoder, [short, long], greedy(60), PLAIN)
    assert (first.ended, first.looped, first.num_tokens) == (True, False, 40)
    assert (second.ended, second.looped, second.num_tokens) == (True, False, 32)


# Room


def test_a_question_longer_than_the_model_reads_is_refused():
    encoder = make_encoder(context=64)
    model = make_language_model("gpt2", len(encoder.tokenizer))
    fits = 64 - len(encoder.renderer.question_ids([user("")])) - 1
    assert generate(model, encoder, [[user("q" * fits)]], greedy(), PLAIN)[0].num_tokens <= 1
    with pytest.raises(DataError) as caught:
        generate(model, encoder, [[user("q")], [user("q" * (fits + 1))], [user("q" * 99)]], greedy(), PLAIN)
    assert "prompt 2: longer than the 64 tokens that this model reads: 2 of them\n    -> shorten it" in str(
        caught.value
    )


def test_a_long_question_does_not_shorten_the_answers_beside_it(tellers):
    _, encoder = tellers["gpt2"]
    full = ConversationEncoder(encoder.renderer, 128, 128)
    model = scripted(full, [user("q")], full.tokenizer("x y" * 30)["input_ids"][:40])
    questions = [[user("q")], [user("q" * 99)], [user("q" * 98)]]
    short, long, longer = generate(model, full, questions, greedy(30), PLAIN)
    assert short.num_tokens == 30
    assert long.num_tokens == 128 - len(full.renderer.question_ids(questions[1]))
    assert longer.num_tokens == long.num_tokens + 1
    assert [answer.full for answer in (short, long, longer)] == [False, True, True]
    assert "fill what this model reads at once" in str(long.remark)


def test_no_question_no_answer(tellers):
    model, encoder = tellers["gpt2"]
    assert generate(model, encoder, [], greedy(), PLAIN) == []
