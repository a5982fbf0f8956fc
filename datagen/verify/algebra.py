"""Equality of formulas by a computer algebra system, in a process of its own that can be stopped.

A formula of two lines may keep sympy busy for ever. math-verify's own time limit needs signals, which work in no
thread; the process has a limit of computing (subprocesses.py), and the next formula starts another.
"""

from functools import lru_cache

from datagen.subprocesses import LineProcess, ProcessEnded

CPU_SECONDS = 10.0
"""For one pair; a usual one takes some hundredths."""
PROCESS = LineProcess("datagen.verify.algebra_process", CPU_SECONDS)


@lru_cache(maxsize=8192)
def same_formula(one: str, other: str) -> bool | None:
    """Return whether two formulas of formulas.py mean the same; None where neither that nor a difference is shown."""
    try:
        verdict = PROCESS.request({"formulas": [one, other]}).get("verdict")
    except ProcessEnded:
        return None
    return None if verdict is None else bool(verdict)
