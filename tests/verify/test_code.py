"""Code of a model is run with its tests: right, wrong or no verdict; and a hostile program leaves nothing behind."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from shutil import copy
from time import monotonic, sleep

import pytest

from datagen.errors import InputError
from datagen.records.record import Record, Row
from datagen.verify import pick_verifier, sandbox
from datagen.verify.code import Code, last_code, row_tests, verify_tests
from datagen.verify.sandbox import run_tests, sandbox_problem

needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason=f"no sandbox here: {sandbox_problem()}")
ADD = "def add(a, b):\n    return a + b\n"
FENCED = f"Here it is:\n```python\n{ADD}```\nIt adds."


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ADD, Code(ADD, False)),
        (FENCED, Code(ADD, True)),
        (f"```py\nx = 1\n```\nBetter:\n```python\n{ADD}```", Code(ADD, True)),
        (f"```\n{ADD}", Code(ADD, True)),
        (f"````python\n{ADD}```\nx\n````", Code(f"{ADD}```\nx\n", True)),
        (f"```python\n{ADD}```\nRun it:\n```bash\npython add.py\n```", Code(ADD, True)),
        ("```bash\nls\n```", Code("", False)),
        ("", Code("", False)),
    ],
)
def test_the_last_block_of_python_is_the_code(text: str, code: Code) -> None:
    assert last_code(text) == code


@pytest.mark.parametrize(
    ("row", "tests"),
    [
        ({"tests": "assert add(1, 2) == 3"}, "assert add(1, 2) == 3"),
        ({"tests": ["assert a", "assert b"]}, "assert a\nassert b"),
        ({"test_list": ["assert a"], "test_setup_code": "import math"}, "import math\nassert a"),
        ({"test": "def check(f):\n    assert f()", "entry_point": "g"}, "def check(f):\n    assert f()\ncheck(g)"),
        ({"test": "def check(f): ...", "entry_point": "g(); 1"}, "def check(f): ..."),
        ({"tests": [1]}, None),
        ({"tests": ""}, None),
        ({}, None),
    ],
)
def test_the_tests_of_a_row_are_found(row: Row, tests: str | None) -> None:
    assert row_tests(Record("0", "Add.", extra=row)) == tests


VERDICTS = {
    FENCED: True,
    f"<think>```python\nx\n```</think>{ADD}": True,
    FENCED.replace("+", "-"): False,
    "```python\nraise SystemExit(0)\n```": False,
    "```python\nimport os; print('passed'); os._exit(0)\n```": False,
    "```python\ndef add(a, b:\n```": False,
    "I would add the two numbers.": None,
    f"```python\nimport no_such_library\n{ADD}```": None,
    "```bash\nls\n```": None,
}


@needs_sandbox
@pytest.mark.parametrize(("response", "verdict"), VERDICTS.items())
def test_a_verdict_is_whether_the_tests_pass(response: str, verdict: bool | None) -> None:
    record = Record("0", "Add two numbers.", extra={"tests": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]})
    assert verify_tests(record, response) is verdict
    assert verify_tests(Record("0", "Add."), response) is None
    broken = Record("0", "Add.", extra={"tests": "assert ("})
    assert verify_tests(broken, response) is None


def test_without_namespaces_nothing_is_run_and_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    sandbox_problem.cache_clear()
    with pytest.raises(InputError, match=r"verifier tests: this system is darwin\. .* Linux namespaces only"):
        pick_verifier("tests")
    sandbox_problem.cache_clear()


HOSTILE = {
    "a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "memory": "x = 'x' * (1 << 33)",
    "memory of many": "import os\n[os.fork() for _ in range(9)]\nx = ['x' * (1 << 24) for _ in range(999)]",
    "disk": "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
    "many files": "for n in range(99999): open(f'/tmp/{n}', 'w')",
    "never ending": "while True: pass",
    "its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)",
    "a flood": """
import os
while True:
    for number in range(64):
        try: os.write(number, b'ready\\nend 0\\n' * 999)
        except OSError: pass
""",
    "a program that stays": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(99)\nos._exit(0)",
}


def running(launcher: Path) -> set[str]:
    """The processes of this machine that run a launcher."""
    lines = (Path("/proc") / one / "cmdline" for one in os.listdir("/proc") if one.isdigit())
    return {str(line.parent) for line in lines if line.exists() and os.fsencode(launcher) in line.read_bytes()}


def wait_until_ended(launcher: Path) -> bool:
    """Wait until nothing runs it: the system ends the rest of a namespace just after its first process."""
    end = monotonic() + 10
    while running(launcher) and monotonic() < end:
        sleep(0.05)
    return not running(launcher)


@needs_sandbox
@pytest.mark.parametrize("program", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_program_passes_nothing_and_leaves_nothing_behind(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Path(copy(sandbox.LAUNCHER, tmp_path))  # others may run theirs meanwhile
    monkeypatch.setattr(sandbox, "LAUNCHER", launcher)
    monkeypatch.setattr(sandbox, "LIMITS", {**sandbox.LIMITS, "RLIMIT_CPU": 1})
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 6)
    start = monotonic()
    assert run_tests(program, "assert done") in (False, None)
    assert monotonic() - start < 30
    assert wait_until_ended(launcher)


@needs_sandbox
def test_a_program_ends_with_the_command_that_is_killed(tmp_path: Path) -> None:
    launcher = Path(copy(sandbox.LAUNCHER, tmp_path))
    code = f"from pathlib import Path; from datagen.verify import sandbox; sandbox.LAUNCHER = Path({str(launcher)!r})"
    code += "; sandbox.run_tests('import time; time.sleep(25)', 'pass')"
    command = subprocess.Popen([sys.executable, "-c", code])
    end = monotonic() + 10
    while len(running(launcher)) < 4 and monotonic() < end:
        sleep(0.05)
    command.kill()
    command.wait()
    assert wait_until_ended(launcher)


@needs_sandbox
def test_a_program_reaches_no_file_no_key_and_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    key = tmp_path / "key"
    key.write_text("secret")
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: server.accept(), daemon=True).start()
    program = """
import os, socket
def fails(step, *arguments):
    try: step(*arguments)
    except OSError: return True
    return False
"""
    checks = f"""
assert dict(os.environ) == {{}} or set(os.environ) <= {{"LC_CTYPE"}}
assert fails(open, {str(key)!r}) and fails(os.listdir, {str(tmp_path)!r})
home = {str(Path.home())!r}
assert not os.path.isdir(home) or all(f"{{home}}/{{name}}/" in os.__file__ for name in os.listdir(home))
assert fails(open, "/etc/passwd") and fails(os.listdir, "/proc") and fails(os.listdir, "/dev")
for path in ("/x", "/lib/x", os.__file__, os.path.dirname(os.__file__) + "/x", {str(tmp_path / "x")!r}):
    assert fails(open, path, "w"), path
open("x", "w").write("here")
assert os.listdir("/tmp") == ["x"] and os.getcwd() == "/tmp"
assert fails(socket.create_connection, ("127.0.0.1", {server.getsockname()[1]}), 1)
assert fails(socket.create_connection, ("1.1.1.1", 53), 1)
assert fails(os.setuid, 0) or os.getuid() == 0
assert fails(os.mkfifo, "/x") and fails(os.chroot, "/tmp") and fails(os.mknod, "/tmp/d", 0o60600, 2049)
import ctypes
assert ctypes.CDLL(None).unshare(0x10000000) != 0
assert len(os.listdir("/")) <= 8
"""
    assert run_tests(program, checks) is True
    assert not (tmp_path / "x").exists()
    server.close()
