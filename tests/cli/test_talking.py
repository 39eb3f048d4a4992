"""generate, chat and plan of a language model, as a user calls them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from command_line import Outcome
from language_models import write_rows
from lorafy.config import load_config
from lorafy.inference.generate import Answer

Verb = Callable[..., Outcome]


def answers(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["answers"]


def written(text: str) -> dict[str, Any]:
    return asdict(Answer(text, len(text), ended=True, looped=False))


# generate


def test_one_prompt_is_streamed_to_stdout_and_nothing_else(lorafy: Verb, parrot: Path) -> None:
    done = lorafy("generate", parrot, "--prompt", "Hi")
    assert (done.code, done.stdout) == (0, "Tuned!\n")
    assert lorafy("generate", parrot, "--prompt", "Hi", "--base").stdout == "Base.\n"


def test_settings_in_both_spellings(lorafy: Verb, parrot: Path) -> None:
    for settings in (
        ["generation.max_new_tokens=3"],
        ["max_new_tokens=3"],
        ["--max_new_tokens", "3"],
        ["--max_new_tokens=3", "--temperature", "0", "--top_p", "0.9", "--repetition_penalty", "1.0"],
    ):
        done = lorafy("generate", parrot, "--prompt", "Hi", *settings)
        assert (done.code, done.stdout) == (0, "Tun\n"), done.stderr
        assert done.stderr == "stopped after 3 tokens: generation.max_new_tokens\n"


def test_json_is_one_object(lorafy: Verb, parrot: Path) -> None:
    done = lorafy("generate", parrot, "--prompt", "Hi", "--json")
    assert answers(done) == [{"prompt": "Hi", "tuned": written("Tuned!")}]
    done = lorafy("generate", parrot, "--prompt", "Hi", "--compare", "--json")
    assert answers(done) == [{"prompt": "Hi", "base": written("Base."), "tuned": written("Tuned!")}]


def test_compare_shows_both_side_by_side(lorafy: Verb, parrot: Path) -> None:
    done = lorafy("generate", parrot, "--prompt", "Who are you?", "--compare")
    assert done.code == 0, done.stderr
    assert "Who are you?" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "Tuned!" in line]
    assert line.index("Base.") < line.index("Tuned!")


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl", "json", "chat"])
def test_a_file_of_questions(kind: str, lorafy: Verb, parrot: Path, tmp_path: Path) -> None:
    questions = ["Hi", "你好吗？", "Why, and where?"]
    path = tmp_path / f"in.{'jsonl' if kind == 'chat' else kind}"
    if kind == "txt":
        path.write_text("\n".join(questions) + "\n\n", encoding="utf-8")
    elif kind == "csv":
        path.write_text('question,answer\nHi,x\n你好吗？,y\n"Why, and where?",z\n', encoding="utf-8")
    elif kind == "chat":
        turns = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], [], []]
        asked = [[*before, {"role": "user", "content": text}] for before, text in zip(turns, questions, strict=True)]
        write_rows(path, [{"messages": messages} for messages in asked])
    else:
        write_rows(path, [{"text" if kind == "json" else "prompt": text} for text in questions])
    found = answers(lorafy("generate", parrot, "--input", path, "--json"))
    assert [row["prompt"] for row in found] == questions
    assert {row["tuned"]["text"] for row in found} == {"Tuned!"}
    shown = lorafy("generate", parrot, "--input", path)
    assert shown.code == 0 and shown.stdout.count("Tuned!") == 3


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "OUT.JSONL"])
def test_answers_into_a_file(name: str, lorafy: Verb, parrot: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Hi\n怎样？\n", encoding="utf-8")
    output = tmp_path / name
    done = lorafy("generate", parrot, "--input", tmp_path / "in.txt", "--output", output, "--compare")
    assert done.code == 0, done.stderr
    assert done.stdout == "" and f"2 answers written to {output}" in done.stderr
    if output.suffix == ".csv":
        with output.open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        assert rows == [{"prompt": text, "base": "Base.", "tuned": "Tuned!"} for text in ("Hi", "怎样？")]
    else:
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        both = {"base": written("Base."), "tuned": written("Tuned!")}
        assert rows == [{"prompt": text, **both} for text in ("Hi", "怎样？")]


def test_a_recipe_stands_for_its_run_and_an_adapter_folder_for_itself(lorafy: Verb, parrot: Path) -> None:
    for model in (parrot / "config.yaml", parrot / "adapter"):
        done = lorafy("generate", model, "--prompt", "Hi", "--temperature", "0")
        assert (done.code, done.stdout) == (0, "Tuned!\n"), done.stderr


def test_the_base_alone_answers_too(lorafy: Verb, parrot: Path) -> None:
    base = load_config(parrot / "config.yaml").model.path
    assert lorafy("generate", base, "--prompt", "Hi", "temperature=0").stdout == "Base.\n"
    for option in ("--base", "--compare"):
        done = lorafy("generate", base, "--prompt", "Hi", option)
        assert done.code == 2 and f"{option}: no effect: this is the original model" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--prompt: is missing\n    -> give --prompt TEXT, or --input FILE"),
        (["--prompt", "a", "--input", "in.txt"], "--prompt: and --input are both given"),
        (["--prompt", " "], "--prompt: is empty"),
        (["--input", "none.txt"], "--input: no such file: "),
        (["--input", "blank.csv"], "1 rows without a question: row 3"),
        (["--input", "zh.txt"], "--input: not utf-8: "),
        (["--input", "odd.csv"], "found no column for the prompt"),
        (["--prompt", "a", "--output", "a.xlsx"], "--output: unknown kind of file: a.xlsx"),
        (["--prompt", "a", "--base", "--compare"], "--base: no effect with --compare"),
        (["--prompt", "a", "--max_new_tokenz", "8"], "--max_new_tokenz: is neither an option nor a setting"),
        (["--prompt", "a", "max_new_tokenz=8"], "max_new_tokenz"),
        (["--prompt", "a", "generation.max_new_tokens=0"], "should be greater than or equal to 1, but it is 0"),
        (["--prompt", "a", "--lora_r", "8"], "lora_r=8: no effect on talking with a model"),
        (["--prompt", "q" * 400], "prompt 1: longer than the 256 tokens that this model reads"),
    ],
)
def test_what_generate_cannot_use(
    arguments: list[str], message: str, lorafy: Verb, parrot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("a\n", encoding="utf-8")
    Path("blank.csv").write_text("prompt,answer\na,b\n,c\n", encoding="utf-8")
    Path("odd.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    Path("zh.txt").write_bytes("体育\n".encode("gb18030"))
    done = lorafy("generate", parrot, *arguments)
    assert done.code == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_each_kind_of_model_has_its_verbs(lorafy: Verb, parrot: Path, tiny_bert: Path) -> None:
    done = lorafy("predict", parrot, "a text")
    assert done.code == 2
    assert "this is a language model\n    -> ask it with lorafy generate or lorafy chat" in done.stderr
    for verb, arguments in (("generate", ["--prompt", "a"]), ("chat", [])):
        done = lorafy(verb, tiny_bert, *arguments)
        assert done.code == 2 and "Traceback" not in done.stderr
        assert "head" in done.stderr or "lorafy predict" in done.stderr


# chat


def talk(lorafy: Verb, model: Path | str, *lines: str, options: tuple[str, ...] = (), end: str = "\n") -> list[str]:
    """What chat prints after its greeting, line by line."""
    done = lorafy("chat", model, *options, stdin=("\n".join(lines) + end).encode())
    assert done.code == 0, done.stderr
    greeting, *rest = done.stdout.splitlines()
    assert greeting.startswith("Talking with ") and "Type exit to leave, /help for more." in greeting
    return rest


def test_chat_answers_remembers_and_leaves(lorafy: Verb, parrot: Path) -> None:
    assert talk(lorafy, parrot, "Hi", "", "你好吗？", "exit", "never asked") == ["Tuned!", "Tuned!"]
    for word in ("EXIT", "quit", "/exit"):
        assert talk(lorafy, parrot, word, "never asked") == []


def test_the_end_of_the_input_leaves(lorafy: Verb, parrot: Path) -> None:
    assert talk(lorafy, parrot, "Hi", end="") == ["Tuned!"]
    assert talk(lorafy, parrot, "", end="") == []


def test_base_and_tuned_in_place(lorafy: Verb, parrot: Path) -> None:
    assert talk(lorafy, parrot, "Hi", "/base", "Why?", "/tuned") == [
        "Tuned!", "The original model:", "Base.", "Base.", "The trained model:", "Tuned!",
    ]  # fmt: skip
    assert talk(lorafy, parrot, "/base", "Hi") == ["The original model:", "Base."]
    assert talk(lorafy, parrot, "Hi", "/tuned", options=("--base",)) == ["Base.", "The trained model:", "Tuned!"]


def test_system_reset_help_and_what_is_not_there(lorafy: Verb, parrot: Path) -> None:
    said = talk(lorafy, parrot, "Hi", "/system Be kind.", "Hi", "/system", "/reset", "/base", "/hlep", "/help")
    assert said[:6] == [
        "Tuned!", "A new conversation.", "Tuned!", "A new conversation.", "A new conversation.", "The original model:",
    ]  # fmt: skip
    assert said[6] == "There is no /hlep. These are there:"
    assert "\n".join(said[7:]).count("/system TEXT") == 2


def test_chat_says_how_an_answer_stopped_and_goes_on_after_a_mistake(lorafy: Verb, parrot: Path) -> None:
    said = talk(lorafy, parrot, "q" * 300, "Hi", options=("--max_new_tokens", "2"))
    assert "longer than the 256 tokens that this model reads" in said[0]
    assert said[-2:] == ["Tu", "(stopped after 2 tokens: generation.max_new_tokens)"]


def test_chat_says_that_it_forgets(lorafy: Verb, parrot: Path) -> None:
    said = talk(lorafy, parrot, *["Tell me of a dog."] * 8)
    assert "(the oldest turns no longer fit, and are forgotten)" in said


def test_a_base_alone_has_nothing_to_switch_to(lorafy: Verb, parrot: Path) -> None:
    base = load_config(parrot / "config.yaml").model.path
    assert talk(lorafy, base, "/base", "Hi", options=("temperature=0",)) == [
        "There is only the original model here.", "Base.",
    ]  # fmt: skip
    done = lorafy("chat", base, "--base")
    assert done.code == 2 and "--base: no effect: this is the original model" in done.stderr


# plan, train, evaluate


def test_plan_prints_a_row_and_what_of_it_is_trained(lorafy: Verb, language_bases, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "train.json", [{"text": f"问题{n}？", "target": f"答案{n}。"} for n in range(20)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model_name_or_path: {language_bases['gpt2']}\ntrain_file: {data}\n", encoding="utf-8")
    done = lorafy("plan", recipe)
    assert done.code == 0, done.stderr
    assert "as it is trained (green: learned; grey: given)" in done.stdout
    row = next(n for n in range(20) if f"答案{n}。<|endoftext|>" in done.stdout)
    assert f"User:\n问题{row}？\n\nAssistant:\n答案{row}。<|endoftext|>" in done.stdout
    planned = lorafy("plan", recipe, "--json")
    tokens = json.loads(planned.stdout)["data"]["tokens"]["train"]
    assert 0 < tokens["targets"] < tokens["total"] and tokens["skipped"] == tokens["truncated"] == 0
    assert {group["kind"] for group in json.loads(planned.stdout)["targets"]} == {"Conv1D"}


def test_evaluate_shows_base_beside_tuned(lorafy: Verb, parrot: Path) -> None:
    done = lorafy("evaluate", parrot)
    assert done.code == 0, done.stderr
    assert "base: Base." in done.stdout and "tuned: Tuned!" in done.stdout
    assert "2 prompts answered" in done.stdout
    assert re.search(r"^ *ended \(.*?\) +100\.0 % +100\.0 % *$", done.stdout, re.MULTILINE), "both end by themselves"
    assert re.search(r"^ *looped \(.*?\) +0\.0 % +0\.0 % *$", done.stdout, re.MULTILINE)
    assert done.stdout.count("ok ") == 5
    results = json.loads((parrot / "eval_results.json").read_text(encoding="utf-8"))
    generation = [results[name]["generation"]["exact_match"] for name in ("base", "metrics")]
    assert generation == [0.0, 1.0]
