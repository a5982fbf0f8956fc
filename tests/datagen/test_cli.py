"""The command line as a user meets it: exit codes, messages, files, streams. Every test runs the real command."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

import pytest

from tests.jobs import rows, write_seeds
from tests.server import Faults, Server, running

PROGRAM = f"{'python' if which('python') == sys.executable else sys.executable} -m datagen"
"""How these tests start the program, as it says itself."""

Result = subprocess.CompletedProcess[str]


def datagen(*arguments: str, stdin: str | None = None, **env: str) -> Result:
    command = [sys.executable, "-m", "datagen", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "100", **env}
    )


@pytest.fixture
def seeds() -> str:
    return str(write_seeds(5))


def test_the_bare_command_works_and_says_what_it_used(seeds: str) -> None:
    ran = datagen("evolve", seeds)
    assert ran.returncode == 0
    lines = ran.stderr.strip().splitlines()
    assert "DEMONSTRATION by sim, the built-in rule-based teacher" in lines[0]
    assert any(line.startswith("DEMONSTRATION") and line.endswith("not training data.") for line in lines[-4:])
    assert ran.stdout == ""
    assert len(rows("seeds.evolve.jsonl")) > 0
    assert {row["meta"]["model"] for row in rows("seeds.evolve.jsonl")} == {"sim/1"}
    assert lines[-2] == f"Next: {PROGRAM} train sft seeds.evolve.jsonl --model tiny"


def test_the_same_command_again_has_nothing_to_do(seeds: str) -> None:
    datagen("evolve", seeds)
    before = Path("seeds.evolve.meta.json").read_bytes()
    ran = datagen("evolve", seeds)
    assert ran.returncode == 0
    assert "Nothing to do" in ran.stderr
    assert Path("seeds.evolve.meta.json").read_bytes() == before


def test_another_command_on_the_same_output_is_refused_with_the_difference(seeds: str) -> None:
    datagen("evolve", seeds)
    before = Path("seeds.evolve.jsonl").read_bytes()
    ran = datagen("evolve", seeds, "--rounds", "2")
    assert ran.returncode == 2
    assert "rounds: 4 then, 2 now" in ran.stderr
    assert "--overwrite" in ran.stderr
    assert Path("seeds.evolve.jsonl").read_bytes() == before
    assert datagen("evolve", seeds, "--rounds", "2", "--overwrite").returncode == 0
    assert Path("seeds.evolve.jsonl").read_bytes() != before


def test_a_raised_n_goes_on(seeds: str) -> None:
    datagen("evolve", seeds, "-n", "5")
    ran = datagen("evolve", seeds, "-n", "12")
    assert ran.returncode == 0
    assert len(rows("seeds.evolve.jsonl")) == 12
    assert datagen("evolve", seeds, "-n", "5").returncode == 2


def test_rows_flow_through_a_pipe() -> None:
    ran = datagen("evolve", "-", "--rounds", "1", stdin="What is 2 + 2?\nName a river.\n")
    assert ran.returncode == 0
    details = [json.loads(json.loads(line)["meta"]["details"]) for line in ran.stdout.splitlines()]
    assert [one["round"] for one in details] == [1, 1]
    assert sorted(path.name for path in Path().iterdir()) == [".datagen"]


def test_json_prints_what_the_meta_file_holds(seeds: str) -> None:
    ran = datagen("evolve", seeds, "--json", "-q")
    summary = json.loads(ran.stdout)
    assert summary == json.loads(Path("seeds.evolve.meta.json").read_text())
    funnel = summary["result"]["funnel"]
    assert funnel["asked"] == funnel["kept"] + sum(funnel["rejected"].values()) + sum(funnel["failed"].values())


def test_quiet_says_nothing_when_all_is_well(seeds: str) -> None:
    ran = datagen("evolve", seeds, "--model", "sim", "-q")
    assert (ran.stdout, ran.stderr) == ("", "")


def test_a_dry_run_shows_the_first_request_and_touches_nothing(seeds: str) -> None:
    ran = datagen("evolve", seeds, "--dry-run", "--model", "m@http://127.0.0.1:9/v1", "--temperature", "0.5")
    assert ran.returncode == 0
    request = json.loads(ran.stdout)
    assert request["model"] == "m"
    assert request["temperature"] == 0.5
    assert request["messages"][-1]["content"] == "Describe thing number 0 in a few words."
    assert "About 60 calls" in ran.stderr
    assert [path.name for path in Path().iterdir()] == ["seeds.jsonl"]


def test_a_dry_run_shows_text_as_it_is_and_stays_json() -> None:
    prompt = "用中文写一首关于河流的诗。\u202e\x9b \x07 😀"
    Path("seeds.jsonl").write_text(json.dumps({"prompt": prompt}) + "\n" + "{torn\n" * 2)
    words = ("respond", "seeds.jsonl", "--dry-run", "--model", "m@http://127.0.0.1:9/v1")
    ran = datagen(*words, PYTHONIOENCODING="utf-8")
    assert "用中文写一首关于河流的诗。\\u202e\\u009b \\u0007 😀" in ran.stdout
    assert json.loads(ran.stdout)["messages"][-1]["content"] == prompt
    assert "1 row to read (prompt); 2 lines cannot be used." in ran.stderr
    assert "About 1 call for one pass; at most 3, whatever the answers are" in ran.stderr
    ascii_only = datagen(*words, PYTHONIOENCODING="ascii")
    assert json.loads(ascii_only.stdout) == json.loads(ran.stdout) and ascii_only.stdout.isascii()


def test_parameters_reach_the_server_and_the_judge_keeps_its_own(seeds: str) -> None:
    requests: list[dict[str, object]] = []
    with running(Server()) as server:
        server.refuse = lambda body: requests.append(body)
        options = (
            "--temperature",
            "0.3",
            "--max-tokens",
            "99",
            "--param",
            "presence_penalty=0.5",
            "--param",
            "stop=[]",
        )
        datagen("evolve", seeds, "--rounds", "1", "--model", f"m@{server.url}", *options)
    judge_requests = [body for body in requests if body["temperature"] == 0]
    other_requests = [body for body in requests if body["temperature"] == 0.3]
    assert len(judge_requests) + len(other_requests) == len(requests)
    assert judge_requests
    assert all((b["max_tokens"], b["presence_penalty"], b["stop"]) == (99, 0.5, []) for b in other_requests)
    assert all("seed" not in body and "presence_penalty" not in body for body in judge_requests)


def test_roles_may_be_played_by_different_models(seeds: str) -> None:
    with running(Server()) as server:
        roles = ("--teacher", f"big@{server.url}", "--judge", f"small@{server.url}")
        datagen("evolve", seeds, "--rounds", "1", "--model", f"m@{server.url}", *roles)
    metas = [row["meta"] for row in rows("seeds.evolve.jsonl")]
    assert metas
    assert {(meta["evolver"], meta["judge"], meta["model"]) for meta in metas} == {("m", "small", "big")}


def test_a_folder_of_prompts_replaces_shipped_ones(seeds: str) -> None:
    Path("mine/evolve").mkdir(parents=True)
    for name in ("add_constraint", "deepen", "concretise", "add_reasoning", "complicate_input", "breadth"):
        Path(f"mine/evolve/{name}.en.md").write_text("---\nintent: mine\n---\n[user]\nMINE {{ prompt }}\n")
    prompts: list[str] = []
    with running(Server()) as server:
        server.refuse = lambda body: prompts.append(body["messages"][-1]["content"])
        datagen("evolve", seeds, "--rounds", "1", "--model", f"m@{server.url}", "--prompts", "mine")
    assert sum(text.startswith("MINE Describe") for text in prompts) == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.jsonl"], "none.jsonl: no such file"),
        (["."], "all of which is read; choose another -o"),
        (["empty.jsonl"], "no rows (the file is empty)"),
        (["keys.jsonl"], 'no "prompt", "instruction" or "messages" (found: title)'),
        (["broken.jsonl"], "no row could be used"),
        (["seeds.jsonl", "--format", "csv"], "--format csv: expected one of"),
        (["seeds.jsonl", "-o", "out.txt"], "ends in .jsonl"),
        (["seeds.jsonl", "-o", "no/out.jsonl"], "no such folder"),
        (["seeds.jsonl", "-o", "seeds.jsonl"], "is read by this command, which would write"),
        (["seeds.jsonl", "-o", "notes.jsonl"], "was not made by datagen"),
        (["seeds.jsonl", "--model", "sim:fly=1"], "expected skill, "),
        (["seeds.jsonl", "--model", "x@ftp://host"], "expected NAME"),
        (["seeds.jsonl", "--model", "gpt-4o"], "OPENAI_API_KEY is not set"),
        (["seeds.jsonl", "--concurrency", "many"], "expected auto, or a number"),
        (["seeds.jsonl", "--param", "stop"], "expected NAME=VALUE"),
        (["seeds.jsonl", "--prompts", "none"], "no such folder of prompts"),
        (["seeds.jsonl", "--rounds", "0"], "rounds"),
        (["bad.jsonl", "--strict"], "bad.jsonl:2: not JSON"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_line_and_exit_code_2(seeds: str, arguments: list[str], says: str) -> None:
    Path("empty.jsonl").touch()
    Path("keys.jsonl").write_text('{"title": 1}\n')
    Path("broken.jsonl").write_text("{oops\n{again\n")
    Path("bad.jsonl").write_text('{"prompt": "Fine."}\n{oops\n')
    Path("notes.jsonl").write_text('{"note": "mine"}\n')
    ran = datagen("evolve", *arguments)
    assert ran.returncode == 2
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
    assert Path("notes.jsonl").read_text() == '{"note": "mine"}\n'


def test_a_cap_exits_with_4_and_a_higher_one_goes_on(seeds: str) -> None:
    ran = datagen("evolve", seeds, "--max-calls", "20")
    assert ran.returncode == 4
    assert "raise it" in ran.stderr
    assert datagen("evolve", seeds, "--max-calls", "500").returncode == 0


def test_short_of_n_exits_with_3_and_names_the_rule(seeds: str) -> None:
    ran = datagen("evolve", seeds, "--model", "sim:leak=1", "-n", "5")
    assert ran.returncode == 3
    assert "leaked 50" in ran.stderr


def test_too_many_failures_exit_with_3(seeds: str) -> None:
    ran = datagen("evolve", seeds, "--model", "sim:malformed=1", "--max-failed", "2")
    assert ran.returncode == 3
    assert "unparsed answer 3" in ran.stderr


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "asks for a key"), (404, "no such endpoint or model"), (402, "out of credit")],
)
def test_an_endpoint_that_refuses_the_caller_exits_with_5_at_once(seeds: str, status: int, says: str) -> None:
    with running(Server()) as server:
        server.refuse = lambda request: (status, {"error": {"message": "go \x1b[31maway"}})
        ran = datagen("evolve", seeds, "--model", f"m@{server.url}", "--concurrency", "1")
        assert server.requests == (2 if status in (403, 404) else 1), "another request is refused as well"
    assert ran.returncode == 5
    assert says in ran.stderr
    assert r"go \x1b[31maway" in ran.stderr, "a server's words are not obeyed by the terminal"


def test_an_endpoint_that_is_not_there_exits_with_5(seeds: str) -> None:
    ran = datagen("evolve", seeds, "--model", "m@http://127.0.0.1:9/v1")
    assert ran.returncode == 5
    assert "nothing listens at http://127.0.0.1:9/v1. Is the server running" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_parameter_that_the_model_does_not_know_is_renamed_and_not_asked_again(seeds: str) -> None:
    def only_new_names(request: dict[str, object]) -> tuple[int, dict[str, object]] | None:
        error = {"message": "use the other", "param": "max_tokens", "code": "unsupported_parameter"}
        return (400, {"error": error}) if "max_tokens" in request else None

    with running(Server()) as server:
        server.refuse = only_new_names
        ran = datagen("evolve", seeds, "--model", f"m@{server.url}", "--rounds", "1", "--concurrency", "1")
        assert server.requests == len(server.log) + 1
    assert ran.returncode == 0


def test_a_refused_request_fails_alone(seeds: str) -> None:
    with running(Server()) as server:
        server.refuse = lambda request: (
            (400, {"error": {"message": "too long"}}) if "number 3" in request["messages"][-1]["content"] else None
        )
        ran = datagen("evolve", seeds, "--model", f"m@{server.url}", "--rounds", "1")
    assert ran.returncode == 0
    assert "refused (HTTP 400) 1" in ran.stderr
    (failed,) = [row for row in rows("seeds.evolve.rejected.jsonl") if row["status"] == "failed"]
    assert failed["record"]["prompt"] == "Describe thing number 3 in a few words."
    assert failed["record"]["error"] == "too long"


def interrupt(command: list[str], server: Server, *, after: int, times: int) -> tuple[int, str]:
    """Send `times` Ctrl-C once the server has received `after` requests."""
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while server.requests < after:
        time.sleep(0.05)
    for _ in range(times):
        run.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, stderr = run.communicate(timeout=300)
    return run.returncode, stderr


def test_the_first_interrupt_drains_and_the_command_goes_on_from_there() -> None:
    seeds = str(write_seeds(60))
    with running(Server(latency=0.03)) as server:
        options = ["evolve", seeds, "--model", f"m@{server.url}", "--concurrency", "8"]
        code, stderr = interrupt([sys.executable, "-m", "datagen", *options], server, after=250, times=1)
        assert code == 130
        *_, message, _, command = stderr.splitlines()
        assert message == "Interrupted. What was paid for is recorded."
        assert command == f"Next: {PROGRAM} {shlex.join(options)}"
        assert 0 < len(rows("seeds.evolve.jsonl")) < 200
        paid = server.requests
        assert datagen(*options).returncode == 0
        assert server.paid_twice() == []
        assert paid < server.requests


def test_the_second_interrupt_ends_the_process_at_once() -> None:
    seeds = str(write_seeds(60))
    with running(Server(latency=20)) as server:
        command = [sys.executable, "-m", "datagen", "evolve", seeds, "--model", f"m@{server.url}"]
        began = time.monotonic()
        code, _ = interrupt(command, server, after=4, times=2)
        assert time.monotonic() - began < 10
    assert code == 130


def test_two_runs_of_one_output_at_once_are_refused() -> None:
    seeds = str(write_seeds(20))
    with running(Server(latency=0.2)) as server:
        command = [sys.executable, "-m", "datagen", "evolve", seeds, "--model", f"m@{server.url}"]
        first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(1.2)
        second = datagen("evolve", seeds, "--model", f"m@{server.url}")
        assert first.wait(60) == 0
    assert second.returncode == 1
    assert "another run is writing it" in second.stderr


def test_two_outputs_in_one_folder_share_their_answers() -> None:
    seeds = str(write_seeds(20))
    with running(Server(latency=0.05, faults=Faults(0.1, ("500", "empty")))) as server:
        runs = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "datagen",
                    "evolve",
                    seeds,
                    "--model",
                    f"m@{server.url}",
                    "-o",
                    f"{name}.jsonl",
                ],
                stderr=subprocess.DEVNULL,
            )
            for name in ("a", "b")
        ]
        assert [run.wait(60) for run in runs] == [0, 0]
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()


def in_a_full_disk(*arguments: str, room: int) -> Result:
    """Run a command with a limit on the size of files."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # noqa: E731
    command = [sys.executable, "-m", "datagen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)


@pytest.mark.parametrize("room", [5_000, 40_000, 150_000])
def test_a_full_disk_is_one_line_and_the_command_goes_on(seeds: str, room: int) -> None:
    complete_run = datagen("evolve", seeds, "--model", "sim", "-o", "whole.jsonl")
    assert complete_run.returncode == 0
    Path("full").mkdir()
    command = ["evolve", seeds, "--model", "sim", "-o", "full/out.jsonl", "-q"]
    stopped = in_a_full_disk(*command, room=room)
    assert stopped.returncode == 1 and stopped.stderr.startswith("error: ") and stopped.stderr.count("\n") == 1
    assert datagen(*command).returncode == 0
    assert Path("full/out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_what_cannot_be_converted_whole_is_not_there(seeds: str) -> None:
    datagen("evolve", seeds, "--model", "sim", "-o", "whole.jsonl")
    stopped = in_a_full_disk("convert", "whole.jsonl", "--to", "trl", room=3_000)
    assert stopped.stderr.startswith("error: the disk is full") and not Path("whole.trl.jsonl").exists()


def test_a_reader_that_leaves_is_no_traceback() -> None:
    seeds = write_seeds(300)
    command = f"{sys.executable} -m datagen evolve {seeds} -o - --model sim | head -n 1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert len(ran.stdout.splitlines()) == 1
    assert "Traceback" not in ran.stderr


def test_a_key_appears_in_no_file_and_no_message(seeds: str) -> None:
    with running(Server()) as server:
        ran = datagen("evolve", seeds, "--model", f"m@{server.url}", "-v", OPENAI_API_KEY="sk-very-secret")
    assert ran.returncode == 0
    assert "very-secret" not in ran.stderr + ran.stdout
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert len(files) >= 5
    assert not [path for path in files if b"very-secret" in path.read_bytes()]


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, datagen.commands.main as c\n"
        "try: c.app(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'openai', 'datasets', 'jinja2', 'asyncio', 'datagen.engine') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ran.stdout.strip().splitlines()[-1] == "[]"


def test_where_no_row_is_kept_the_reason_stands_in_place_of_the_next_command(seeds: str) -> None:
    some = datagen("filter", seeds, "-o", "some.jsonl")
    none = datagen("filter", seeds, "--verify", "answer", "--only-verified", "-o", "none.jsonl")
    assert some.stderr.splitlines()[-1] == f"Next: {PROGRAM} respond some.jsonl"
    assert none.returncode == 3 and not rows("none.jsonl")
    assert "No row was kept of 5 candidates: unverified:answer 5." in none.stderr
    assert "Next:" not in none.stderr
