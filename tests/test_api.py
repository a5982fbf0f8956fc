"""The Python API: the rows of the command line, in any thread and event loop, with its account and its errors."""

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import datagen
from datagen import (
    DatagenError,
    Incomplete,
    InputError,
    Outage,
    aio,
    evolve,
    filter,
    generator,
    judge,
    pairs,
    respond,
    train,
)
from datagen.api.calls import LEFT_OUT, command_of
from datagen.commands.table import COMMANDS, load_methods
from datagen.engine.options import RunOptions, option
from datagen.llm.model import Roles
from datagen.records.record import Prompt, Record, plain_prompt
from datagen.strategies.strategy import Answer, Strategy
from tests.datagen.test_cli import datagen as command_line
from tests.server import Server, running

PROMPTS = ["How do I make a strong password?", "Name a river in France.", "Why is the sky blue?"]


async def echo(messages: list[dict[str, Any]]) -> str:
    return f"You said: {messages[-1]['content']}"


def dicts(_: Path) -> list[dict[str, str]]:
    return [{"prompt": prompt} for prompt in PROMPTS]


def lines(folder: Path) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in dicts(folder)))
    return path


def iterator(folder: Path) -> Iterator[dict[str, str]]:
    yield from dicts(folder)


def data_set(folder: Path) -> Any:
    return pytest.importorskip("datasets").Dataset.from_list(dicts(folder))


def table(folder: Path) -> Any:
    return pytest.importorskip("pyarrow").Table.from_pylist(dicts(folder))


def data_frame(folder: Path) -> Any:
    return pytest.importorskip("pandas").DataFrame(dicts(folder))


INPUTS: list[Callable[[Path], Any]] = [
    lambda _: PROMPTS,
    dicts,
    iterator,
    lines,
    lambda folder: str(lines(folder)),
    data_set,
    table,
    data_frame,
]


@pytest.mark.parametrize("make", INPUTS, ids=lambda make: make.__name__)
def test_rows_of_any_kind_give_the_rows_of_the_command_line(make: Callable[[Path], Any], tmp_path: Path) -> None:
    lines(tmp_path)
    ran = command_line("evolve", str(tmp_path / "prompts.jsonl"), "--model", "sim", "-o", "x.jsonl", "--rounds", "2")
    assert ran.returncode == 0, ran.stderr
    rows = evolve(make(tmp_path), rounds=2, model="sim")
    assert list(rows) == [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]
    assert rows.account.funnel["asked"] == 6
    assert rows.account.requests == 0, "the answers of the command line are in the journal of the folder"


def test_values_of_a_data_frame_become_json() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "prompt": PROMPTS[:2],
            "score": [1.5, None],
            "day": pandas.to_datetime(["2026-01-02", None]),
            "count": [1, 2],
            "words": [["a", "b"], []],
        }
    )
    first, second = respond(frame, model=echo)
    assert {name: first[name] for name in ("score", "count", "words")} == {
        "score": 1.5,
        "count": 1,
        "words": ["a", "b"],
    }
    assert first["day"].startswith("2026-01-02")
    assert second.get("score") is None and second.get("day") is None


def test_rows_go_from_function_to_function() -> None:
    evolved = evolve(PROMPTS, rounds=1, model="sim")
    samples = respond(evolved, k=4, model="sim:skill=0.3", temperature=1.0)
    assert [row["meta"]["parents"] for row in samples] == [row["id"] for row in evolved]
    ranked = judge(samples, by="compare", model="sim", allow_self=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Incomplete)
        preferences = pairs(ranked, by="all")
    assert {row["id"] for row in preferences}.isdisjoint(row["id"] for row in ranked)
    assert preferences.account.funnel["asked"] >= len(ranked)
    assert filter(evolved, dedup=0.7).account.requests == 0


def test_every_command_with_methods_is_a_function_with_its_options() -> None:
    names = [name.replace("-", "_") for name, command in COMMANDS.items() if command.methods]
    assert sorted(names) == sorted(datagen.FUNCTIONS)
    for name in names:
        function, command = getattr(datagen, name), command_of(name.replace("_", "-"))
        keywords = set(inspect.signature(function).parameters) - {"rows", "folder", "progress"}
        assert keywords == {parameter.name for parameter in command.params} - {*LEFT_OUT}
        assert inspect.signature(getattr(aio, name)) == inspect.signature(function)
        assert inspect.iscoroutinefunction(getattr(aio, name))
        assert all(f"    {keyword}: " in str(function.__doc__) for keyword in keywords)
    evolve_options = {field.name for method in load_methods("evolve").values() for field in fields(method.options_type)}
    assert evolve_options | {"model", "seed"} <= set(inspect.signature(evolve).parameters)
    assert {*LEFT_OUT} - {"help", "input"} <= {field.name for field in fields(RunOptions)}


def test_import_loads_nothing_that_is_not_used() -> None:
    script = "import datagen, sys; print({'torch', 'openai', 'typer', 'datagen.api'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr


def test_calls_in_an_event_loop() -> None:
    """Several at once, and one that blocks, as in a notebook."""

    async def main() -> None:
        several = await asyncio.gather(*(aio.respond(PROMPTS, model=echo) for _ in range(3)))
        assert [list(rows) for rows in several] == [list(respond(PROMPTS, model=echo))] * 3

    asyncio.run(main())


def test_threads_ask_for_the_same_once() -> None:
    with running(Server(latency=lambda key: 0.05)) as server:
        results: list[Any] = []
        call = lambda: results.append(evolve(PROMPTS, rounds=1, model=f"m@{server.url}"))  # noqa: E731
        threads = [Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        keys = [(entry.key, entry.attempt) for entry in server.log]
    assert len(results) == 4 and all(list(rows) == list(results[0]) for rows in results)
    assert len(keys) == len(set(keys)), "an answer was paid for twice"


def test_no_signal_handler_is_set() -> None:
    seen: list[Any] = []

    def model(messages: list[Any]) -> str:
        seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])
        return "fine"

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    respond(PROMPTS, model=model)
    asyncio.run(aio.respond(PROMPTS[:1], model={"other": model}))
    assert seen and all(handlers[1:] == before[1:] for handlers in seen)
    assert seen[0] == before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


INTERRUPTED = """
import sys, time
from pathlib import Path
from datagen import respond
def model(messages):
    with open("asked", "a") as file: file.write("x")
    time.sleep(0.3)
    return "fine"
try:
    rows = respond([f"Prompt {number}?" for number in range(12)], model=model, concurrency=2)
    print(len(rows), rows.account.requests)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_records_what_is_in_flight() -> None:
    Path("script.py").write_text(INTERRUPTED)
    process = subprocess.Popen([sys.executable, "script.py"], stdout=subprocess.PIPE, text=True)
    while not (Path("asked").exists() and Path("asked").stat().st_size >= 3):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert (printed.strip(), process.returncode) == ("interrupted", 0)
    first = Path("asked").stat().st_size
    assert first < 12
    ran = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert ran.stdout.split() == ["12", str(12 - first)], ran.stderr


def test_a_call_that_is_cancelled_keeps_what_was_recorded() -> None:
    numbers: list[int] = []

    async def slow(messages: list[Any]) -> str:
        numbers.append(len(numbers))
        await asyncio.sleep(0.01 if len(numbers) < 8 else 60)
        return "fine"

    async def main() -> None:
        call = asyncio.ensure_future(aio.respond([f"Prompt {n}?" for n in range(20)], model={"m": slow}, concurrency=2))
        while len(numbers) < 9:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    prompts = [f"Prompt {n}?" for n in range(20)]
    with pytest.warns(Incomplete):
        again = respond(prompts, model={"m": slow}, max_calls=7)
    assert again and again.account.requests == 0


def test_less_than_was_asked_for_is_a_warning_and_a_status() -> None:
    with pytest.warns(Incomplete, match="max-calls") as caught:
        rows = respond(PROMPTS, model=echo, max_calls=1, concurrency=1)
    assert caught[0].filename == __file__
    assert (len(rows), rows.account.status) == (1, "stopped")
    with pytest.warns(Incomplete, match="could not be used"):
        rows = respond([*PROMPTS, {"prompt": 5}], model=echo)
    assert (len(rows), rows.account.funnel["unreadable"]) == (3, 1)
    with pytest.warns(Incomplete, match="function error"):
        rows = respond(PROMPTS, model=fails_for_rivers)
    assert [row["reason"] for row in rows.rejected] == ["function error"]
    assert rows.account.status == "incomplete"
    assert "function error" in str(rows.account)


def fails_for_rivers(messages: list[dict[str, Any]]) -> str:
    if "river" in messages[-1]["content"]:
        raise RuntimeError("no rivers")
    return "fine"


def test_an_address_without_a_server_is_an_outage() -> None:
    with pytest.raises(Outage, match=r"127\.0\.0\.1:9"):
        respond(PROMPTS, model="m@http://127.0.0.1:9/v1", patience=0)


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (PROMPTS, {"rouns": 2, "model": "sim"}, "rouns: no option of evolve. Did you mean rounds"),
    (PROMPTS, {"rounds": "many", "model": "sim"}, "expected a whole number"),
    (PROMPTS, {"style": "poetry", "model": "sim"}, "expected one of general, code, math"),
    (PROMPTS, {}, "no model is named"),
    (PROMPTS, {"model": "sim", "output": "-"}, "a function returns its rows"),
    (PROMPTS, {"model": "sim", "folder": "nowhere"}, "no such folder nowhere"),
    (PROMPTS, {"model": {"a": echo}, "style": echo}, "no subclass of"),
    (PROMPTS, {"model": "sim", "limit": echo}, "expected a whole number"),
    ("What is 2 + 2?", {"model": "sim"}, "prompts in memory are a list"),
    ("nothing.jsonl", {"model": "sim"}, "no such file"),
    ({"train": []}, {"model": "sim"}, "take a split"),
    (7, {"model": "sim"}, "not int"),
    ([7], {"model": "sim"}, "row 1: expected a dict or a text, not int"),
    ([{"prompt": "x", "y": {1, 2}}], {"model": "sim"}, "row 1: a value of type set"),
    ([{"prompt": "x", "y": float("inf")}], {"model": "sim"}, "row 1: an infinite number"),
    ([], {"model": "sim"}, "no rows"),
    ([{"colour": "red"}], {"model": "sim"}, 'no "prompt"'),
]


@pytest.mark.parametrize(("rows", "options", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_a_mistake_is_one_clear_line(
    rows: Any, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATAGEN_MODEL", raising=False)
    with pytest.raises(InputError, match=None) as caught:
        evolve(rows, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_is_written_once() -> None:
    rows = respond(PROMPTS, model=echo, output="x.jsonl")
    assert rows.path == Path("x.jsonl")
    assert list(rows) == [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]
    again = respond(PROMPTS, model=echo, output="x.jsonl")
    assert (list(again), again.account.requests) == (list(rows), 0)
    with pytest.raises(InputError, match="made by another command"):
        respond(PROMPTS[:2], model=echo, output="x.jsonl")
    ran = command_line("trace", rows[0]["id"])
    assert PROMPTS[0] in ran.stdout


def test_functions_as_models() -> None:
    def make(word: str) -> Callable[[list[Any]], dict[str, Any]]:
        return lambda messages: {"text": word, "usage": {"prompt_tokens": 2, "completion_tokens": 3}}

    rows = respond(PROMPTS[:2], k=2, teacher=[make("x"), make("y")])
    assert rows.account.cost is None, "nobody has said what these cost"
    assert [sorted(row["responses"]) for row in rows] == [["x", "y"], ["x", "y"]]
    rows = respond(PROMPTS[:2], k=2, teacher={"x": make("x"), "y": make("y")}, price={"x": "1/2", "y": "1/2"})
    assert rows.account.cost == pytest.approx(4 * (2 * 1 + 3 * 2) / 1e6)
    assert respond(PROMPTS[:1], model={"z": make("z")})[0]["meta"]["model"].startswith("z/")

    class Says:
        def __init__(self, word: str) -> None:
            self.word = word

        def __call__(self, messages: list[Any]) -> str:
            return self.word

    with pytest.raises(InputError, match="name them"):
        respond(PROMPTS[:1], k=2, teacher=[Says("x"), Says("y")])
    rows = respond(PROMPTS[:1], k=2, teacher={"a": Says("x"), "b": Says("y")})
    assert sorted(rows[0]["responses"]) == ["x", "y"]


@dataclass(frozen=True)
class Marks:
    k: int = option(1, "Answers for each prompt.", short="-k")
    marks: int = option(1, "Exclamation marks.", least=0)


class Shout(Strategy):
    """Answer in capitals."""

    options_type = Marks

    def prompt(self, record: Record, template: str = "", **fields: str) -> Prompt:
        return plain_prompt(record.prompt)

    async def answer(self, record: Record, llm: Roles, prompt: Prompt, number: int) -> Answer:
        reply = await self.ask(record, llm, prompt, number)
        return Answer(reply.text.upper() + "!" * self.options.marks, reply)


def test_functions_and_classes_in_memory_are_what_plug_ins_are() -> None:
    def is_short(record: Any, response: str) -> bool:
        return len(response) < 10

    rows = [{"prompt": "a?", "response": "short"}, {"prompt": "b?", "response": "far too long"}]
    kept = filter(rows, verify=is_short)
    assert [row["response"] for row in kept] == ["short"]
    dropped = filter(rows, rule=lambda record: "a question" if "a" in record.prompt else None)
    assert [row["prompt"] for row in dropped] == ["b?"]
    assert [row["reason"] for row in dropped.rejected] == ["rule:a question"]
    loud = respond(PROMPTS[:1], strategy=Shout, marks=3, model=lambda messages: "quiet")
    assert loud[0]["response"] == "QUIET!!!"
    with pytest.raises(InputError, match="marks: no option of respond"):
        respond(PROMPTS[:1], marks=3, model=echo)


def test_a_generator_of_others() -> None:
    haiku = generator(str(Path(__file__).parents[1] / "examples/plugin/datagen_haiku/generator.py:Haiku"))
    rows = haiku(["frogs"], model=lambda messages: "an old silent pond", season="spring")
    assert rows[0]["response"] == "an old silent pond"
    with pytest.raises(InputError, match="no generator"):
        generator("nobody")


def test_objects_of_names_and_values_are_options() -> None:
    taken: list[dict[str, Any]] = []

    def model(messages: list[Any], **params: Any) -> str:
        taken.append(params)
        return "fine"

    rows = respond([{"question": "Why?"}], model=model, map={"prompt": "question"}, param={"top_k": 20, "stop": ["x"]})
    assert rows[0]["prompt"] == "Why?"
    assert (taken[0]["top_k"], taken[0]["stop"]) == (20, ["x"])


def test_the_working_folder_holds_modules_of_the_users_own() -> None:
    for name in ("train.py", "json.py", "torch.py", "datasets.py"):
        Path(name).write_text("raise SystemExit('this is not your module')")
    with pytest.raises(InputError, match="model nowhere"):
        train("sft", [{"prompt": "a", "response": "b"}], model="nowhere", output="out")


def test_wrong_words_for_training() -> None:
    row = [{"prompt": "a", "response": "b"}]
    for name, options, message in (
        ("stf", {}, "Did you mean sft?"),
        ("chat", {}, "expected one of"),
        ("sft", {"model": "tiny"}, "rows in memory have no name"),
        ("sft", {"model": "tiny", "step": 5, "output": "x"}, "Did you mean steps?"),
        ("sft", {"model": "tiny", "steps": "x", "output": "x"}, "expected a whole number"),
    ):
        with pytest.raises(InputError, match=None) as caught:
            train(name, row, **options)
        assert message in str(caught.value)


@pytest.mark.slow
def test_training_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = [{"prompt": f"What is {a} + {b}?", "response": f"{a + b}"} for a in range(10) for b in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Incomplete)
        model = train("sft", rows, model="tiny", steps=20, output="sft", progress=False)
    assert model.path == Path("sft") and Path("sft/model.safetensors").exists()
    measured = train("eval", rows, model="sft", all=True).report
    assert measured["rows"] == 100
    again = train("sft", rows, model="tiny", steps=20, output="sft")
    assert again.report == model.report
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Incomplete)
        answers = respond(["What is 2 + 3?"], model="hf:sft", max_tokens=4)
    assert answers.account.funnel["asked"] == 1
    with pytest.raises(DatagenError, match=r"steps: 20 then, 30 now"):
        train("sft", rows, model="tiny", steps=30, learning_rate=0.1, output="sft")


@pytest.mark.slow
def test_the_page_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of docs/python.md, one after the other, as a user pastes them into one session."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    page = (Path(__file__).parents[1] / "docs/python.md").read_text()
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    assert len(blocks) > 6
    Path("session.py").write_text("\n".join(block for block in blocks if "# Not run here" not in block))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::datagen.Incomplete", "session.py"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "127.0.0.1:9" in ran.stdout


NOTEBOOK = """
from datagen import respond
from datagen.aio import respond as respond_later
import time
def model(messages):
    time.sleep(0.5)
    return "<b>fine</b>"
rows = respond(["Prompt?", "Another?"], model=model)
later = await respond_later(["Prompt?", "Another?"], model=model)
print(len(rows), list(rows) == list(later), later.account.requests)
"""


@pytest.mark.slow
def test_in_a_notebook() -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    nbclient.NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": os.getcwd()}}).execute()
    outputs = notebook.cells[0].outputs
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert printed.split() == ["2", "True", "0"]
    shown = [output.data for output in outputs if output.output_type == "display_data"]
    assert shown and all(set(data) == {"text/plain"} for data in shown), "no markup in the cell's output"
