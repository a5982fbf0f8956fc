"""Options of a command: parameters, concurrency, flags that come from dataclasses."""

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.flags import argument, fill_options, flags, make_command
from datagen.engine.options import RunOptions, option, parse_param
from datagen.errors import InputError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1), ("a=0.5", 0.5), ("a=true", True), ("a=null", None), ('a="1"', "1"), ('a=["x", "y"]', ["x", "y"]),
        ('a={"type": "json_object"}', {"type": "json_object"}), ("a=text", "text"), ("a=", ""), ("a=x=y", "x=y"),
        ("a=True", "True"), ("a=[1", "[1"), ("a= 1", 1), ("a=你好", "你好"), ("a=NaN", "NaN"),
        ("a=Infinity", "Infinity"), ("a=1e999", "1e999"), ("a=[NaN]", "[NaN]"),
    ],
)  # fmt: skip
def test_a_parameter_is_json_where_it_reads_as_json(text: str, value: object) -> None:
    name, parsed = parse_param("--param", text)
    assert (name, parsed, type(parsed)) == ("a", value, type(value))


@given(st.text(st.characters(exclude_characters="=")).filter(bool), VALUES)
def test_any_json_comes_through(name: str, value: object) -> None:
    if name not in ("messages", "model", "stream", "n"):
        assert parse_param("--param", f"{name}={json.dumps(value)}") == (name, value)


@pytest.mark.parametrize("text", ["", "stop", "=1", "=", "messages=[]", "model=x", "stream=true", "n=2"])
def test_a_malformed_or_reserved_parameter_is_refused(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_param("--param", text)
    assert str(raised.value) == (f"--param {text}: expected NAME=VALUE; messages, model, stream and n are reserved")


def test_only_parameters_that_were_given_are_asked_for() -> None:
    assert RunOptions().params == {}
    assert RunOptions(temperature=0.0, top_p=0.0).params == {"temperature": 0.0, "top_p": 0.0}
    given_all = RunOptions(temperature=0.5, top_p=0.9, max_tokens=7, param=["stop=x", "seed=3"])
    assert given_all.params == {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": "x", "seed": 3}


def test_a_temperature_that_no_request_can_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--temperature inf: expected a number"):
        _ = RunOptions(temperature=float("inf")).params


def test_the_last_word_on_a_parameter_is_the_one_by_name_and_value() -> None:
    assert RunOptions(temperature=0.5, param=["temperature=1", "temperature=2"]).params == {"temperature": 2}


@pytest.mark.parametrize(("text", "number"), [("auto", None), ("1", 1), ("16", 16), ("9999", 9_999), ("10000", 10_000)])
def test_concurrency_is_a_number_or_found_out(text: str, number: int | None) -> None:
    assert RunOptions(concurrency=text).in_flight == number


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "10001", "1.5", "many", "Auto", " 8", "8 ", "1e3", "+4", "²", "٣", "08"]
)
def test_another_concurrency_is_refused(text: str) -> None:
    with pytest.raises(InputError) as raised:
        _ = RunOptions(concurrency=text).in_flight
    assert str(raised.value) == f"--concurrency {text}: expected auto, or a number from 1 to 10000"


def test_a_list_is_nobody_elses() -> None:
    RunOptions().model.append("m")
    assert RunOptions().model == []


@dataclass(frozen=True)
class ExampleOptions:
    """One option of every kind."""

    word: str = option("here", "A word [in brackets].")
    count: int = option(3, "A number.", least=1, most=9)
    share: float = option(0.5, "A share.", least=0, most=1, short="-s")
    maybe: int | None = option(None, "A number or none.", least=0)
    loud: bool = option(False, "A switch.", short="-l", panel="Others")
    names: list[str] = option(["a"], "Names.")
    two_words: Path | None = option(None, "A path.")
    n: int | None = option(None, "A wish.", short="-n", least=1)


def parse_arguments(*arguments: str) -> ExampleOptions:
    """Parse command-line arguments and return the options."""
    seen: list[dict[str, Any]] = []

    def act(parameters: dict[str, Any]) -> int:
        seen.append(parameters)
        return 0

    command = make_command("try", "Try it.", [argument("input", "A file."), *flags(ExampleOptions)], act)
    ran = command.main(["in.jsonl", *arguments], standalone_mode=False)
    assert ran == 0
    assert seen[0]["input"] == "in.jsonl"
    return fill_options(ExampleOptions, seen[0])


def exit_and_output(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code and the output of a command that ends before its function is called."""
    command = make_command(
        "try", "Try it.", [argument("input", "A file."), *flags(ExampleOptions)], lambda parameters: 0
    )
    with pytest.raises(SystemExit) as raised:
        command.main(list(arguments), prog_name="try")
    output = capsys.readouterr()
    return int(str(raised.value.code)), re.sub(r"[\s│]+", " ", output.out + output.err)


def test_what_is_not_given_keeps_its_default() -> None:
    assert parse_arguments() == ExampleOptions() == ExampleOptions("here", 3, 0.5, None, False, ["a"], None, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--word", ""], ExampleOptions(word="")),
        (["--count", "9"], ExampleOptions(count=9)),
        (["-s", "1"], ExampleOptions(share=1.0)),
        (["--share", "0"], ExampleOptions(share=0.0)),
        (["--maybe", "0"], ExampleOptions(maybe=0)),
        (["-l"], ExampleOptions(loud=True)),
        (["--names", "x", "--names", "y"], ExampleOptions(names=["x", "y"])),
        (["--two-words", "a/b"], ExampleOptions(two_words=Path("a/b"))),
        (["-n", "5"], ExampleOptions(n=5)),
    ],
)
def test_what_is_given_counts(arguments: list[str], expected: ExampleOptions) -> None:
    assert parse_arguments(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--count", "0"], "--count"),
        (["--count", "10"], "--count"),
        (["--count", "1.5"], "--count"),
        (["--share", "1.1"], "--share"),
        (["--share", "-0.1"], "--share"),
        (["--maybe", "-1"], "--maybe"),
        (["-n", "0"], "-n"),
        (["--n", "5"], "--n"),
        (["--no-loud"], "--no-loud"),
        (["--two_words", "x"], "--two_words"),
        (["more"], "more"),
    ],
)
def test_what_is_out_of_bounds_or_unknown_is_refused_by_name(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = exit_and_output(capsys, "in.jsonl", *arguments)
    assert code == 2
    assert named in output


def test_help_shows_every_option_with_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TERMINAL_WIDTH": "160", "COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    code, output = exit_and_output(capsys, "--help")
    assert code == 0
    for text in ("Try it.", "A word [in brackets].", "[default: here]", "1<=x<=9", "Others", "--loud -l", "--share -s"):
        assert text in output
    assert "--no-loud" not in output


def test_every_shared_option_says_what_it_does() -> None:
    for field in fields(RunOptions):
        assert field.metadata["help"].endswith((".", "]")), field.name
        assert field.metadata["panel"] in ("Files", "Models", "Limits"), field.name


def test_a_command_exits_with_what_it_returns() -> None:
    command = make_command("try", "Try it.", [], lambda parameters: 4)
    assert command.main([], standalone_mode=False) == 4
