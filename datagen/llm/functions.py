"""A Python function as a model: `FILE.py:NAME`, the name that a package registers, or any callable in memory.

    async def answer(messages: list[dict], **params) -> str | dict

The messages and parameters are those of the chat completions API. A function gets the parameters that it names, all of
them with `**params`. It returns the text, or a dict with "text" and any of "reasoning", "finish_reason" (else "stop"),
"usage" ({"prompt_tokens", "completion_tokens"}) and "tool_calls". A function that is not async runs in a thread of its
own for each call.

Journal, caps, concurrency and --timeout are those of every model. A fault of a connection is that of every model, too:
the call is sent again after a wait. So is taken what is, or comes from, a ConnectionError or a TimeoutError, and what
says that a server is busy or failed (a `status_code`, of its own or of its `response`). Any other exception is that of
this call, which has failed; it is not recorded, so a later run makes it again.
"""

import asyncio
import inspect
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from typing import Any

from datagen.errors import CallFailed, InputError
from datagen.llm.call import Call, Reply, Transient, refusal
from datagen.llm.spec import Spec
from datagen.plugins import Faults, kind_of
from datagen.records.record import Row

ModelFunction = Callable[..., str | Mapping[str, Any] | Awaitable[str | Mapping[str, Any]]]
"""Takes messages and parameters; returns an answer, or an awaitable of it."""
FIELDS = {"text": str, "reasoning": str, "finish_reason": str, "usage": dict, "tool_calls": list}
"""What a returned dict may hold."""
BUSY = (429, 503, 529)
"""The statuses of a server that takes no more requests for now."""


class FunctionModel:
    """The innermost layer of a model that is a function.

    Args:
        spec: The model.
        timeout: Seconds that one call may take.

    Raises:
        InputError: What is named cannot be loaded, is no function, or takes no messages.
    """

    def __init__(self, spec: Spec, timeout: float) -> None:
        self._name, self._timeout = spec.name, timeout
        self._function, self._names = load_function(spec)
        self._faults = Faults(self._function, spec.name)
        called = self._function if inspect.isroutine(self._function) else getattr(self._function, "__call__", None)  # noqa: B004
        self._is_async = inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(self._function)

    @property
    def notes(self) -> list[str]:
        """What is to be told to the user: the exceptions of the function."""
        return self._faults.notes

    async def send(self, call: Call) -> Reply:
        if call.is_embedding:
            return refusal(400, f"{self._name} is a function that writes text, and gives no vectors")
        params = {n: v for n, v in call.params.items() if self._names is None or n in self._names}
        try:
            async with asyncio.timeout(self._timeout) as limit:
                value = await self._call(deepcopy(list(call.messages)), deepcopy(params))
            return Reply(200, json.dumps(reply_body(value, self._name), allow_nan=False))
        except (Exception, SystemExit) as error:
            if limit.expired():
                raise Transient(f"{self._name}: no answer in {self._timeout:g} s", timed_out=True) from error
            words, status = self._faults.add(error), status_of(error)
            if status in BUSY or status >= 500 or is_of_connection(error):
                raise Transient(words, rate_limited=status in BUSY) from error
            raise CallFailed("function error", stage=call.task, detail=words) from error
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise CallFailed("function error", stage=call.task, detail=self._faults.add(error)) from error

    async def _call(self, messages: list[Row], params: Row) -> Any:
        if self._is_async:
            value = self._function(messages, **params)
        else:
            value = await in_thread(lambda: self._function(messages, **params))
        return await value if inspect.isawaitable(value) else value


def status_of(error: BaseException) -> int:
    """Return the HTTP status that an exception of a client names, 0 if it names none."""
    owners = error, getattr(error, "response", None)
    statuses = (getattr(owner, "status_code", None) for owner in owners)
    return next((status for status in statuses if isinstance(status, int)), 0)


def is_of_connection(error: BaseException | None) -> bool:
    """Check that an exception is, or was raised from, a fault of a connection."""
    while error is not None and not isinstance(error, ConnectionError | TimeoutError):
        error = error.__cause__
    return error is not None


def load_function(spec: Spec) -> tuple[ModelFunction, frozenset[str] | None]:
    """Load the function of a model.

    Returns:
        The function, and the parameters of requests that it takes; None if it takes all.

    Raises:
        InputError: What is named cannot be loaded, is no function, or its first parameter cannot be the messages.
    """
    assert spec.load
    function, name = spec.load(), spec.name
    wanted = "a model is a function of the messages, such as `async def answer(messages, **params)`"
    if not callable(function) or isinstance(function, type):
        raise InputError(f"model {name}: is {kind_of(function)}; {wanted}")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # of a builtin that does not say
        return function, None
    first, others = parameters[:1], parameters[1:]
    if not first or first[0].kind in (first[0].KEYWORD_ONLY, first[0].VAR_KEYWORD):
        raise InputError(f"model {name}: takes no messages; {wanted}")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in others):
        return function, None
    needed = [p.name for p in others if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if needed:
        raise InputError(f"model {name}: its parameter {needed[0]} has no default; {wanted}")
    return function, frozenset(p.name for p in others if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def reply_body(value: Any, name: str) -> Row:
    """Return what a function has returned as the body of a chat completion.

    Raises:
        TypeError: It is no answer.
    """
    answer = {"text": value} if isinstance(value, str) else value
    if not isinstance(answer, Mapping):
        raise TypeError(f"returned {kind_of(value)}; an answer is a text, or a dict with {', '.join(FIELDS)}")
    for key, item in answer.items():
        if key not in FIELDS:
            raise TypeError(f"returned a dict with {key!r}; it may have {', '.join(FIELDS)}")
        if item is not None and not isinstance(item, FIELDS[key]):
            raise TypeError(f"returned a dict whose {key!r} is {kind_of(item)}, not {FIELDS[key].__name__}")
    message = {"role": "assistant", "content": answer.get("text")}
    message |= {"reasoning_content": answer["reasoning"]} if answer.get("reasoning") else {}
    message |= {"tool_calls": answer["tool_calls"]} if answer.get("tool_calls") else {}
    choice = {"message": message, "finish_reason": answer.get("finish_reason") or "stop"}
    return {"model": name, "choices": [choice], "usage": answer.get("usage") or {}}


async def in_thread(function: Callable[[], Any]) -> Any:
    """Call a function in a thread of its own, which does not keep the program from ending.

    The threads of `asyncio.to_thread` are few, and the program waits for each of them at its end.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def settle(outcome: Any, error: BaseException | None) -> None:
        if not result.done():
            result.set_exception(error) if error else result.set_result(outcome)

    def work() -> None:
        outcome: Any = None
        error: BaseException | None = None
        try:
            outcome = function()
        except StopIteration as stop:  # no future takes it
            error = RuntimeError(f"StopIteration: {stop}")
        except BaseException as problem:
            error = RuntimeError(f"SystemExit: {problem}") if isinstance(problem, SystemExit) else problem
        with suppress(RuntimeError):  # the run has ended meanwhile
            loop.call_soon_threadsafe(settle, outcome, error)

    threading.Thread(target=work, daemon=True).start()
    return await result
