"""Run every command that calls a model against servers of others, each in an environment of its own.

    python -m tests.real_servers transformers PYTHON FOLDER      `transformers serve` with the saved model in FOLDER
    python -m tests.real_servers litellm PYTHON                  a LiteLLM proxy before our own test server
    python -m tests.real_servers llamacpp PYTHON FILE.gguf       the server of llama-cpp-python

PYTHON is the interpreter of the environment where the server is installed. It is no part of the suites: these servers
do not fit into one environment with `train`, and a toy model answers nothing useful. What is checked: no command shows
a traceback, and each ends with a documented exit code; the words of the server are for the eye.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from traceback import format_exception
from urllib.error import URLError
from urllib.request import urlopen

from typer.testing import CliRunner

from datagen.commands.main import app
from datagen.records.files import dump_line
from tests.datagen.test_nothing_useful import COMMANDS, EDITS, INPUTS
from tests.server import Message, Server, running

BUDGET = "--limit 1 --max-tokens 32 --max-calls 12 --concurrency 2 --timeout 60"
WITHOUT_A_KEY = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
JUDGE_BUDGET = " --allow-self --judge-param max_tokens=32"
STARTS_WITHIN = 300
"""Seconds."""
EXPECTED = (0, 3, 4)
"""Done, fell short, stopped at the cap: a toy model gives few rows, or none."""
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
MORE_INPUTS = {"tools": [{"prompt": "What is 2 + 3?", "tools": [TOOL]}]}
MORE = {
    "constraints": "constraints sums.jsonl",
    "logprobs": "judge samples.jsonl --by compare --logprobs",
    "expected scores": "judge samples.jsonl --by score --logprobs",
    "tools": "respond tools.jsonl",
    "unknown field": "respond sums.jsonl --param no_such_field=1",
    "unusual fields": "respond sums.jsonl --param top_k=5 --param stop=END --param seed=7 --param min_p=0.1",
    "refused value": "respond sums.jsonl --param temperature=-3",
    "long prompt": "respond long.jsonl",
}
FAILS_AS_IT_SHOULD = {"magpie": ("magpie -n 2", (2,)), "wrong model": ("respond sums.jsonl", (3, 5))}
"""Commands that no endpoint serves, and their exit codes. An unknown model is a 404 or, for few rows, refusals."""


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = free_port()


def serve_transformers(folder: Path, arguments: list[str]) -> tuple[list[str], str]:
    """Return the arguments after PYTHON that start a server in `folder`, and the name of its model."""
    model = str(Path(arguments[0]).resolve())
    code = "from transformers.cli.transformers import main; main()"
    return ["-c", code, "serve", model, "--port", str(PORT), "--host", "127.0.0.1", "--device", "cpu"], model


def serve_litellm(folder: Path, arguments: list[str]) -> tuple[list[str], str]:
    """As `serve_transformers`."""
    parameters = {"model": "openai/local", "api_base": arguments[0], "api_key": "none"}
    config = {"model_list": [{"model_name": "toy", "litellm_params": parameters}]}
    (folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
    code = "from litellm import run_server; run_server()"
    return ["-c", code, "--config", str(folder / "litellm.yaml"), "--port", str(PORT), "--host", "127.0.0.1"], "toy"


def serve_llamacpp(folder: Path, arguments: list[str]) -> tuple[list[str], str]:
    """As `serve_transformers`."""
    options = ["--model", str(Path(arguments[0]).resolve()), "--model_alias", "toy", "--port", str(PORT)]
    return ["-m", "llama_cpp.server", *options, "--host", "127.0.0.1", "--n_ctx", "1024"], "toy"


SERVERS = {"transformers": serve_transformers, "litellm": serve_litellm, "llamacpp": serve_llamacpp}


@contextmanager
def serving(python: str, arguments: list[str], log: Path) -> Iterator[str]:
    """Start a server and wait until it answers; yield its URL."""
    with log.open("wb") as file:
        offline = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", WITHOUT_A_KEY: "true"}
        environment = {**os.environ, **offline, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([python, *arguments], stdout=file, stderr=file, env=environment)
    try:
        until = time.monotonic() + STARTS_WITHIN
        while not answers(f"http://127.0.0.1:{PORT}/v1/models"):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"the server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{PORT}/v1"
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urlopen(url):
            return True
    except (URLError, OSError):
        return False


def run(line: str, model: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it says, with the traceback of what it does not catch."""
    arguments = [*shlex.split(line), "--model", model, "-o", "out.jsonl", "--overwrite"]
    ran = CliRunner().invoke(app, arguments, prog_name="datagen")
    escaped = "" if isinstance(ran.exception, SystemExit | None) else "".join(format_exception(ran.exception))
    return ran.exit_code, f"{ran.stderr}\n{escaped}"


def last_words(messages: str) -> str:
    """Return the lines that tell how a command ended."""
    lines = [" ".join(line.split()) for line in messages.splitlines()]
    shown = ("kept", "failed", "rejected", "error", "Failed", "No ", "More ", "Stopped")
    return " / ".join(line for line in lines if line.startswith(shown))


def check_all(model: str) -> bool:
    """Run all commands; print a line for each. Return whether all ended as they may."""
    for name, lines in {**INPUTS, **MORE_INPUTS, "long": [{"prompt": "Count on. " * 2000}]}.items():
        Path(f"{name}.jsonl").write_bytes(b"".join(map(dump_line, lines)))
    is_good = True
    table: dict[str, tuple[str, str, tuple[int, ...]]] = {
        name: (f"{line} {BUDGET}{JUDGE_BUDGET * line.startswith(('judge', 'improve'))}", model, EXPECTED)
        for name, line in {**COMMANDS, **EDITS, **MORE}.items()
    }
    other = f"no-such-model@{model.rpartition('@')[2]}"
    for name, (line, codes) in FAILS_AS_IT_SHOULD.items():
        table[name] = (line, other if name == "wrong model" else model, codes)
    for name, (line, spec, codes) in table.items():
        began = time.monotonic()
        code, messages = run(line, spec)
        is_fine = code in codes and "Traceback" not in messages
        is_good &= is_fine
        seconds = f"{time.monotonic() - began:4.0f} s"
        print(f"{'ok  ' if is_fine else 'FAIL'} {code} {seconds} {name:22} {last_words(messages)[:300]}", flush=True)
        if not is_fine:
            print(messages[-3000:])
    return is_good


def prose(model: str, messages: list[Message], sample: int, task: str) -> str:
    """Answer as a model that follows no form."""
    return f"There are many sides to it. Answer: {len(messages[-1]['content'])}"


def main() -> None:
    name, python, *arguments = sys.argv[1:]
    ours = running(Server(answer=prose)) if name == "litellm" else nullcontext()
    with TemporaryDirectory() as folder, ours as server:
        command, model = SERVERS[name](Path(folder), [server.url] if server else arguments)
        with serving(python, command, Path(folder, "server.log")) as url:
            os.chdir(folder)
            is_good = check_all(f"{model}@{url}")
        log = Path(folder, "server.log").read_text(errors="replace")
        print(f"in the server's log: {log.count('Traceback')} tracebacks, {len(log.splitlines())} lines")
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
