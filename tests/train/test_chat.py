"""Chat: turns are remembered, a pipe gets only the text, and the text cannot control the terminal."""

from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen.llm.local.generation import Generated
from datagen_train.tools import chat
from datagen_train.tools.chat import Chat, run
from datagen_train.tools.evaluate import load_trained
from datagen_train.tools.options import ChatOptions


def test_one_prompt_is_answered_on_standard_output_alone(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(taught), ChatOptions(prompt="What colour is the sky?", temperature=0)) == 0
    assert capsys.readouterr() == ("blue\n", "")


def test_a_conversation_goes_on_until_it_is_reset(
    taught: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths: list[int] = []
    generate_answer = Chat._generate

    def generate_and_count(self: Chat, messages: list[dict[str, str]]) -> Generated:
        lengths.append(len(messages))
        return generate_answer(self, messages)

    typed = iter(
        ["What colour is the sky?", "  ", "And the sea?", "/reset", "What colour is the rose?", "/what", "/quit", "x"]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    monkeypatch.setattr(Chat, "_generate", generate_and_count)
    assert run(str(taught), ChatOptions(system="Be brief.", temperature=0, max_tokens=8)) == 0
    assert lengths == [2, 4, 2]
    assert next(typed) == "x", "/quit ends it"
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == "blue"
    assert "A new conversation." in output.err
    assert "No such command." in output.err


def test_the_end_of_the_input_ends_it(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end_of_input(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end_of_input)
    assert run(str(taught), ChatOptions()) == 0


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    chat.print_answer(Generated("\x1b[2Jred\u202e\nnext", [1], "stop"))
    assert capsys.readouterr().out == "\\x1b[2Jred\\u202e\nnext\n"


def test_a_cut_answer_says_so_and_is_remembered(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = Chat(load_trained(str(fresh), "float32"), ChatOptions(temperature=0, max_tokens=4))
    chat.print_answer(talk.ask("Hello"))
    assert "--max-tokens" in capsys.readouterr().err
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]


def test_a_seed_draws_the_same_conversation_again(fresh: Path) -> None:
    def talk(seed: int | None) -> list[str]:
        one = Chat(load_trained(str(fresh), "float32"), ChatOptions(max_tokens=12, seed=seed))
        return [one.ask("Hello").text, one.ask("Hello").text]

    assert talk(1) == talk(1) != talk(2)


def test_a_conversation_that_fills_the_context_says_what_to_do(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = Chat(load_trained(str(fresh), "float32"), ChatOptions())
    chat.print_answer(talk.ask("word " * 1024))
    assert "/reset" in capsys.readouterr().err
    assert talk.messages == [], "it is not remembered"
    with pytest.raises(InputError, match="whole context"):
        run(str(fresh), ChatOptions(prompt="word " * 1024))
