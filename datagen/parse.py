"""From a reply to a value. A reply that does not fit raises ParseError; nothing here guesses."""

import re

from datagen.errors import ParseError

CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
THINKING = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)


def count_words(text: str) -> int:
    """Count words; a Chinese or Japanese character counts as one, since no spaces part them."""
    spaced, characters = CJK.subn(" ", text)
    return len(spaced.split()) + characters


def split_thinking(text: str) -> tuple[str, str]:
    """Part a leading <think> block from the answer: (thinking, answer)."""
    match = THINKING.match(text)
    return (match[1].strip(), text[match.end() :]) if match else ("", text)


def verdict(text: str, allowed: tuple[str, ...]) -> str:
    """Return the last `Verdict: ...` line that names one of the allowed verdicts, lower case.

    The last one counts, so neither a change of mind nor a verdict quoted from the judged text misleads. A line
    that says more than one allowed verdict is no verdict.
    """
    found: str | None = None
    for line in text.splitlines():
        match = re.fullmatch(r"[\s*_#>`]*verdict[\s*_`]*[:：]\s*(.+)", line, re.IGNORECASE)
        said = re.sub(r"[\s*_`.。!\"']+", " ", match[1]).strip().lower() if match else ""
        found = said if said in allowed else found
    if found is None:
        raise ParseError(f"no line 'Verdict: {' | '.join(allowed)}'")
    return found
