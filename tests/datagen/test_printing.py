"""Nothing that a file, a model or a server wrote is obeyed by a terminal: looked at on a real one."""

import ast
import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datagen.printing import UNSAFE, GuardedStream, printable_json
from tests.pty_screen import EVIL, NAME, obeyed, show
from tests.server import Message, Server, running

ROOT = Path(__file__).resolve().parents[2]
META = {"method": EVIL, "op": EVIL, "model": EVIL, "models": [EVIL, EVIL], "parents": [EVIL], "seed_id": EVIL}
PROMPT: dict[str, object] = {
    "id": f"0123456789abcdef{EVIL}",
    "prompt": f"What is 1 + 1?{EVIL}",
    "meta": META,
    EVIL: EVIL,
}
ANSWERED, SAMPLES = PROMPT | {"response": EVIL}, PROMPT | {"responses": [EVIL, "2", f"3 {EVIL}"]}
RANKED = SAMPLES | {"ranks": [1, 2, 3], "scores": [3, 2, 1]}
REJECTED = {"status": EVIL, "reason": EVIL, "stage": EVIL, "reply": EVIL, "record": ANSWERED}
FUNNEL = {"asked": 1, "kept": 1, "unreadable": 0, "rejected": {EVIL: 1}, "failed": {EVIL: 1}}
METADATA = {"run": {"input": EVIL}, "result": {"status": "finished", "fingerprint": {}, "funnel": FUNNEL}}
COMMANDS = [
    "evolve {rows} --model {model} --verbose -o out.jsonl",
    "respond {rows} --model {model} -k 2 --overwrite -o out.jsonl",
    "respond {rows} --model {model} -o -",
    "respond {rows} --dry-run --model {model}",
    "respond {bad} --model {model} --verbose -o out.jsonl",
    "respond {rows} --model 'x{evil}@http://127.0.0.1:9/v1' -o out.jsonl",
    "respond {rows} --model 'hf:{evil}'",
    "respond {rows} --model {model} --prompts prompts",
    "respond '{evil}.jsonl'",
    "respond {rows} --strategy '{evil}'",
    "{evil}",
    "judge {samples} --by score --model {model} -o out.jsonl",
    "judge {samples} --by compare --model {model} --json -o out.jsonl",
    "filter {answered} -o out.jsonl",
    "pairs {ranked} -o out.jsonl",
    "convert {answered} --to trl -o '{evil}.out'",
    "convert {bad} --to trl -o -",
    "trace 01234567",
    "trace 01234567 --json",
    "trace '{evil}'",
    "review {bad}",
    "filter {answered} --dedup 0.5 -o -",
    "improve {answered} --model {model} -o out.jsonl",
]


def evil_answer(model: str, messages: list[Message], sample: int, task: str) -> str:
    return f"{task} {sample} {EVIL}"


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with running(Server(answer=evil_answer)) as server:
        yield f"'m{NAME}@{server.url}'"


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_terminal_obeys_nothing_of_the_rows_the_models_or_the_names(line: str, model: str) -> None:
    files: dict[str, dict[str, Any]] = {
        "rows": PROMPT,
        "answered": ANSWERED,
        "samples": SAMPLES,
        "ranked": RANKED,
        "bad": {EVIL: EVIL},
    }
    for name, row in files.items():
        lines = [json.dumps({**row, "id": f"{i}{row.get('id')}"}) for i in range(3)]
        Path(f"{name}{NAME}.jsonl").write_text("\n".join([*lines, EVIL]))
    Path("prompts").mkdir()
    Path(f"prompts/{NAME}.md").write_text(EVIL)
    for name, value in {"made.jsonl": ANSWERED, "made.rejected.jsonl": REJECTED, "made.meta.json": METADATA}.items():
        Path(name).write_text(json.dumps(value) + "\n")
    names = {name: shlex.quote(f"{name}{NAME}.jsonl") for name in files}
    text = show(line.format(**names, model=model, evil=EVIL))
    assert text
    assert obeyed(text) == []
    assert "\x1b[2J" not in text and "\x1b[Kspoof" not in text and "\x1b[8m" not in text


def test_an_error_of_a_server_is_not_obeyed() -> None:
    Path("rows.jsonl").write_text('{"prompt": "What?"}\n')
    server = Server(refuse=lambda request: (401, {"error": {"message": EVIL}}))
    with running(server):
        text = show(f"respond rows.jsonl --model m@{server.url} -o out.jsonl")
    assert "spoof" in text
    assert obeyed(text) == [] and "\x1b[1A" not in text


def test_the_guard_of_the_streams_lets_colours_and_progress_bars_through_and_nothing_else() -> None:
    file = io.StringIO()
    stream = GuardedStream(file)
    ours = "\r\x1b[2A\x1b[J\x1b[1;32mgreen\x1b[0m\tdone\n"
    stream.write(ours)
    stream.writelines([EVIL, "\x1b[?25l\ud800"])
    assert file.getvalue().startswith(ours)
    assert obeyed(file.getvalue()) == []
    assert stream.getvalue() == file.getvalue()


def test_json_for_people_stays_the_same_value() -> None:
    value = {"name": EVIL, EVIL: ["数据", None]}
    assert json.loads(printable_json(value)) == value
    assert UNSAFE.search(printable_json(value)) is None


def is_safe(argument: ast.expr) -> bool:
    """Check that an argument of `print` is a constant, or was made safe."""
    if isinstance(argument, ast.JoinedStr):
        return all(is_safe(part.value) for part in argument.values if isinstance(part, ast.FormattedValue))
    if isinstance(argument, ast.IfExp):
        return is_safe(argument.body) and is_safe(argument.orelse)
    made_safe = isinstance(argument, ast.Call) and ast.unparse(argument.func) in ("printable", "printable_json")
    return isinstance(argument, ast.Constant) or made_safe or ast.unparse(argument) in SAFE


SAFE = {"json.dumps(step.row)", "datagen.__version__", "log.cut", "count_of(count, noun)", "problem", "failed", "reply"}
"""Numbers, words of ours, and JSON in ASCII."""


def test_every_print_escapes_what_it_prints() -> None:
    unsafe = []
    for path in sorted([*(ROOT / "datagen").rglob("*.py"), *(ROOT / "train").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("print", "sys.stdout.write"):
                continue
            if not all(map(is_safe, node.args)):
                unsafe.append(f"{path.name}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert unsafe == []
