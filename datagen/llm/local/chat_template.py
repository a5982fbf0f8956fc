"""The chat template of a model, rendered in a process of its own.

A template is a program of the model's author. The library runs it in a sandbox, which stops it from reaching anything,
but not from running for ever or filling the memory, and a thread that does so cannot be stopped. The process can: the
system ends it after CPU_SECONDS of computing for one conversation, and gives it no more than MEMORY bytes.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from threading import Lock
from typing import Any

from datagen.errors import DatagenError
from datagen.records.record import Messages, Row
from datagen.signals import STOP_SIGNALS

CPU_SECONDS = 10.0
"""For one conversation; a usual one takes a tenth of a millisecond."""
MEMORY = 2 << 30
MAX_TEXT = 64 << 20
"""Characters of a rendered conversation."""
MAX_MESSAGE = 300
"""Characters of what a template says when it refuses a conversation."""


class TemplateRefusal(DatagenError):
    """A template fails, or refuses the conversation."""


class TemplateHung(DatagenError):
    """A template does not end. No other conversation is worth a try."""


class Renderer:
    """The process, started by the first conversation and again after its end; it ends with this one.

    Args:
        cpu_seconds: For one conversation.
    """

    def __init__(self, cpu_seconds: float = CPU_SECONDS) -> None:
        self._cpu_seconds = cpu_seconds
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def render(
        self,
        tokenizer: Any,
        messages: Messages,
        tools: Sequence[Row] = (),
        values: Row | None = None,
        *,
        ask: bool = False,
    ) -> str:
        """Return the text of a conversation, as `render_chat` does."""
        functions = list(tools) or None
        request = {
            **(values or {}),
            "conversations": [messages],
            "tools": functions,
            "chat_template": tokenizer.get_chat_template(tools=functions),
            "add_generation_prompt": ask,
            **tokenizer.special_tokens_map,
        }
        with self._lock:
            line = self._exchange(json.dumps(request))
            if not line:
                raise self._death()
        reply = json.loads(line)
        if "error" in reply:
            raise TemplateRefusal(f"the chat template of the model refuses the messages: {reply['error']}")
        return str(reply["text"])

    def close(self) -> int | None:
        """End the process; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.communicate()
        return process.returncode

    def _exchange(self, line: str) -> str:
        """Send a line; return the line that comes back, or "" if the process has ended."""
        process = self._process = self._process or start(self._cpu_seconds)
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        return process.stdout.readline()

    def _death(self) -> TemplateHung:
        """Return the error that says why the process has ended."""
        code = self.close()
        if code == -signal.SIGPROF:
            return TemplateHung(
                f"the chat template of the model did not end within {self._cpu_seconds:g} s. It is a program of the "
                "model's author: mend chat_template.jinja in the model's folder, or use another model"
            )
        return TemplateHung(f"the process that renders the chat template of the model has ended (exit code {code})")


def start(cpu_seconds: float) -> "subprocess.Popen[str]":
    """Start the process; Ctrl-C is not for it."""
    # -P keeps the working folder off the path, as for the program itself.
    command = [sys.executable, "-P", "-m", "datagen.llm.local.chat_template", str(cpu_seconds)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | threads, process_group=0
    )


RENDERER = Renderer()
atexit.register(RENDERER.close)


def render_chat(
    tokenizer: Any, messages: Messages, tools: Sequence[Row] = (), values: Row | None = None, *, ask: bool = False
) -> str:
    """Return the text of a conversation, as the tokenizer's `apply_chat_template` does.

    Args:
        tokenizer: Of the library, with a chat template.
        messages: The turns.
        tools: The functions that the assistant may call, in the form of the OpenAI API.
        values: More values of the template, such as `enable_thinking`.
        ask: End with the beginning of the assistant's turn.

    Raises:
        TemplateRefusal: The template fails, or refuses the conversation.
        TemplateHung: It does not end.
    """
    return RENDERER.render(tokenizer, messages, tools, values, ask=ask)


def serve(cpu_seconds: float) -> None:
    """Render conversations, a line each, until standard input ends."""
    import resource

    from transformers.utils.chat_template_utils import render_jinja_template

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody waits for the reply: the parent was killed
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in STOP_SIGNALS:  # a cluster sends them to every process; this one ends with its parent
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # its signal ends the process, whatever it computes
        try:
            text = render_jinja_template(**json.loads(line))[0][0]
            fits = len(text) <= MAX_TEXT
            reply = json.dumps({"text": text} if fits else {"error": f"a text of {len(text):,} characters"})
        except MemoryError:
            reply = json.dumps({"error": "it needs too much memory"})
        except Exception as error:  # a program of someone else
            reply = json.dumps({"error": (str(error) or type(error).__name__)[:MAX_MESSAGE]})
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(reply, flush=True)


if __name__ == "__main__":
    serve(float(sys.argv[1]))
