"""What a user of a language model may do wrong: exit code 2, told what, where and what to do, nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from command_line import Outcome
from language_models import SUMS, byte_tokenizer, make_language_model, save_language_model, write_rows
from lorafy.machine.quiet import quiet_transformers

Verb = Callable[..., Outcome]
ROWS = [{"text": question, "target": answer} for question, answer in SUMS]


def entries(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def refused(lorafy: Verb, recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., str]:
    """`refused(model, rows, **data)`: what train says, which is what plan says."""

    def train(
        model: Path,
        rows: list[dict[str, Any]],
        name: str = "train.json",
        other: dict[str, Any] | None = None,
        **data: Any,
    ) -> str:
        write_rows(tmp_path / name, rows)
        sections = {"model": {"path": model}, "data": {"train": name, **data}, "run": {"output_dir": tmp_path / "runs"}}
        path = recipe(sections | (other or {}))
        before = entries(tmp_path)
        said = []
        for verb in ("train", "plan"):
            outcome = lorafy(verb, path)
            assert outcome.code == 2, outcome.stdout
            assert "Traceback" not in outcome.stderr
            assert outcome.stdout == "" or verb == "plan", "plan has shown the data by then"
            assert " problem" in outcome.stderr.splitlines()[0]
            said.append(outcome.stderr)
        assert said[0] == said[1]
        assert entries(tmp_path) == before
        return said[0]

    return train


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model("gpt2", tmp_path_factory.mktemp("gpt2"))


def test_rows_without_an_answer(refused, gpt2: Path, tmp_path: Path) -> None:
    rows = [*ROWS[:10], {"text": "why?", "target": " "}, {"text": "who?"}, {"text": "", "target": "a"}]
    shown = refused(gpt2, rows)
    assert f"data.train: 2 of 13 rows without an answer in {tmp_path / 'train.json'}: row 11, 12" in shown
    assert f"data.train: 1 of 13 rows without a question in {tmp_path / 'train.json'}: row 13" in shown
    assert "-> fill them in or remove them" in shown


def test_answers_longer_than_max_length(refused, gpt2: Path) -> None:
    rows = [*ROWS, {"text": "a", "target": "b" * 90}, {"text": "c", "target": "d" * 99}]
    shown = refused(gpt2, rows, max_length=80)
    assert "its answer alone does not fit into 80 tokens" in shown
    assert "cannot be used" in shown and "(row 4" in shown
    assert "raise data.max_length if the model allows" in shown
    assert "data.max_length: 300 is over the limit" in refused(gpt2, rows, max_length=300)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.role }}:{{ m.content }}<|endoftext|>{% endfor %}",
         "does not mark where an answer begins"),
        ("{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:"
         "{% endif %}", "ends an answer with '\\n', which holds no special token"),
        ("{{ messages.nothing.at_all }}", "refuses this conversation"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_trained_with(
    template: str, message: str, refused, gpt2: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(gpt2, tmp_path / "base"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(base)
    assert f"the chat template: the chat template {message}" in refused(base, ROWS).replace(
        "the chat template: refuses", "the chat template: the chat template refuses"
    )


def spoken(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_roles_out_of_order(refused, gpt2: Path, tmp_path: Path) -> None:
    good = spoken(("user", "a"), ("assistant", "b"))
    rows = [good, good, spoken(("user", "a"), ("user", "b"), ("assistant", "c")), spoken(("assistant", "a"))]
    shown = refused(gpt2, rows, "talks.jsonl")
    assert "data.columns.messages: turn 2 is 'user' after 'user' (row 3) in " in shown
    assert "2 of 4 rows are like that" in shown
    assert "-> a system turn may come first; then user and assistant take turns, and assistant is last" in shown


def test_settings_without_effect_on_a_language_model(refused, gpt2: Path) -> None:
    shown = refused(gpt2, ROWS, labels=["a", "b"], balance="downsample", other={"adapter": {"method": "none"}})
    assert shown.splitlines()[0] == "3 problems:"
    assert "data.labels: no effect on causal_lm with the format completion\n    -> remove it" in shown
    assert "data.balance: no effect on causal_lm with the format completion" in shown
    assert "adapter.method: none trains a classification head: a language model has none" in shown
    assert "data.thinking: no effect: the chat template has no thinking mode" in refused(gpt2, ROWS, thinking=True)


@pytest.mark.parametrize("setting", [{"thinking": True}, {"system": "Be kind."}, {"train_on_prompt": True}], ids=str)
def test_settings_without_effect_on_a_classifier(setting: dict[str, Any], refused, tiny_bert: Path) -> None:
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]
    message = f"data.{next(iter(setting))}: no effect on classification with the format labelled\n    -> remove it"
    assert message in refused(tiny_bert, rows, **setting)


def test_questions_and_answers_for_a_model_that_does_not_write(refused, tiny_bert: Path) -> None:
    shown = refused(tiny_bert, ROWS, other={"task": "causal_lm"})
    assert "was not made to write text, but the data are questions and answers" in shown


def test_a_tokenizer_that_knows_more_than_the_model(refused, gpt2: Path, tmp_path: Path) -> None:
    """A table of embeddings is never resized: the token would start at random and the adapter would fit nowhere."""
    base = Path(shutil.copytree(gpt2, tmp_path / "base"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(base)
    shown = refused(base, ROWS)
    assert f"model.path: the tokenizer has 259 tokens, the model of {base} knows 257" in shown
    assert "-> take the tokenizer that belongs to this model" in shown


def test_weights_that_are_missing(refused, gpt2: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(gpt2, tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    del tensors["transformer.h.1.attn.c_attn.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert f"model.path: weights are missing in {base}: transformer.h.1.attn.c_attn.weight" in refused(base, ROWS)


def test_targets_that_match_nothing(refused, gpt2: Path) -> None:
    shown = refused(gpt2, ROWS, other={"adapter": {"target_modules": ["q_proj", "v_proj"]}})
    assert "adapter.target_modules: 'q_proj' matches no linear layer" in shown
    assert "c_attn" in shown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora_rank: 8", "lora_rank: unknown key"),
        ("learning_rat: 1e-4", "-> did you mean learning_rate?"),
        ("num_train_epoch: 3", "-> did you mean num_train_epochs?"),
    ],
)
def test_unknown_flat_names(name: str, message: str, lorafy: Verb, gpt2: Path, recipe, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.json", ROWS)
    path = recipe(f"model_name_or_path: {gpt2}\ntrain_file: train.json\n{name}\n")
    done = lorafy("train", path)
    assert done.code == 2 and message in done.stderr and "Traceback" not in done.stderr
    option = f"--{name.partition(':')[0]}"
    done = lorafy("train", path, option, "8")
    assert done.code == 2 and f"{option}: is neither an option nor a setting" in done.stderr


# An adapter and what it lies on


@pytest.fixture
def trained(parrot: Path, tmp_path: Path) -> Path:
    """A copy of a run with a base of its own, to be spoilt."""
    run = Path(shutil.copytree(parrot, tmp_path / "run"))
    base = Path(shutil.copytree(parrot.parent / "base", tmp_path / "base"))
    for path in (run / "adapter" / "lorafy.json", run / "adapter" / "adapter_config.json", run / "config.yaml"):
        text = path.read_text(encoding="utf-8").replace(str(parrot.parent / "base"), str(base))
        path.write_text(text, encoding="utf-8")
    return run


def said_by(lorafy: Verb, run: Path) -> str:
    """What generate, chat and merge or verify say of a run that nobody should use."""
    said = set()
    for verb, arguments in (("generate", ["--prompt", "Hi"]), ("chat", [])):
        done = lorafy(verb, run, *arguments, stdin=b"Hi\n")
        assert (done.code, done.stdout) == (2, ""), done.stdout
        assert "Traceback" not in done.stderr
        said.add(done.stderr)
    (message,) = said
    return message


def test_an_untouched_copy_talks(lorafy: Verb, trained: Path) -> None:
    assert lorafy("generate", trained, "--prompt", "Hi").stdout == "Tuned!\n"


def test_an_adapter_on_another_base_names_both(lorafy: Verb, trained: Path) -> None:
    base = trained.parent / "base"
    recorded = json.loads((trained / "adapter" / "lorafy.json").read_text(encoding="utf-8"))["base_fingerprint"]
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    save_file(tensors | {name: tensors[name] * 1.01}, base / "model.safetensors", metadata={"format": "pt"})
    shown = said_by(lorafy, trained)
    assert f"{trained / 'adapter'}: it was trained on other weights than those that {base} holds now" in shown
    assert f"(fingerprint {recorded[:12]} then, " in shown and " now)" in shown
    assert f"-> put the weights of {base} back, or train again" in shown
    done = lorafy("verify", trained, "--json")
    assert done.code == 1
    failed = [check["name"] for check in json.loads(done.stdout)["checks"] if not check["passed"]]
    assert "same_base" in failed


def test_a_base_whose_vocabulary_is_smaller(lorafy: Verb, trained: Path) -> None:
    base = trained.parent / "base"
    shutil.rmtree(base)
    with quiet_transformers():
        make_language_model("llama", 200).save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    shown = said_by(lorafy, trained)
    assert f"model.path: the tokenizer has 257 tokens, the model of {base} knows 200" in shown


def test_a_base_whose_vocabulary_is_larger(lorafy: Verb, trained: Path) -> None:
    base = trained.parent / "base"
    shutil.rmtree(base)
    with quiet_transformers():
        make_language_model("llama", 300).save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    assert "it was trained on other weights than those that" in said_by(lorafy, trained)


def test_a_base_of_another_shape(lorafy: Verb, trained: Path) -> None:
    base = trained.parent / "base"
    shutil.rmtree(base)
    save_language_model("gpt2", base)
    shown = said_by(lorafy, trained)
    assert f"{trained / 'adapter'}: this adapter does not fit its base: Target modules " in shown
    assert "-> it was trained on another base than adapter_config.json names" in shown


def test_a_chat_template_that_was_edited_in_the_adapter(lorafy: Verb, trained: Path) -> None:
    path = trained / "adapter" / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8").replace("User:", "Human:"), encoding="utf-8")
    shown = said_by(lorafy, trained)
    assert f"{trained / 'adapter'}: its tokenizer or chat template is not the one that it was trained with" in shown
    assert "-> copy the folder again, whole; do not edit its tokenizer files" in shown
    for verb in ("verify", "evaluate", "merge"):
        done = lorafy(verb, trained, *(["--output", trained.parent / "merged"] if verb == "merge" else []))
        assert done.code == 2 and "is not the one that it was trained with" in done.stderr


def test_a_tokenizer_that_was_exchanged_in_the_adapter(lorafy: Verb, trained: Path) -> None:
    template = (trained / "adapter" / "chat_template.jinja").read_text(encoding="utf-8")
    names = byte_tokenizer().get_vocab()
    names["a"], names["b"] = names["b"], names["a"]
    tokenizer = type(byte_tokenizer())(vocab=names, merges=[])
    tokenizer.chat_template = template
    for path in (trained / "adapter").glob("tokenizer*"):
        path.unlink()
    tokenizer.save_pretrained(trained / "adapter")
    assert "is not the one that it was trained with" in said_by(lorafy, trained)
