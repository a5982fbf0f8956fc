"""Parse the verdict of a completion. A text that is not in the expected form raises ParseError; nothing is guessed.

The form is a line `Verdict: NAME`. It is read as models write it: with Markdown, quotes or a box around the name, with
a reason behind it, below a heading, in a table, a tag or JSON, with the word for it in another language. Prose about
the names is never read: "Since B fails, A is better" names both, and only its grammar says which.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from datagen.errors import ParseError

PLAIN = str.maketrans(
    {
        **dict.fromkeys("*`~_#\t\u00a0\u3000\u200b\ufe0f", " "),
        **dict.fromkeys("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\n"),
        **dict(zip("：（），、。；！？＝／【】｜", ":(),/.;!?=/[]|", strict=True)),
    }
)
"""Markdown becomes blanks and full-width signs become plain ones, character by character, so that places stay."""
WORD = "(?:verdict|veredicto|verdetto|urteil|вердикт|裁决|裁決|裁定|判定|判决|结论|판정)(?:结果)?"
LEAD = rf"(?:(?:and|so|my|our|the|最终)\s{{0,3}}){{0,2}}(?:(?:final|overall)\s{{1,3}})?{WORD}"
LINE_START = re.compile(
    rf"[\s>|+•—–\[-]*(?:\d{{1,2}}[.)]\s{{0,3}})?{LEAD}"
    r"(?:\]|[\s\"']*(?:(?:is\s{0,3})?(?:[:=|→—]|->|[–-](?=\s))|\Z))",
    re.IGNORECASE,
)
"""A line that begins with the word; in a heading nothing follows it."""
WITHIN = re.compile(
    rf"[.!?\]]\s{{1,3}}{LEAD}\s{{0,3}}:|(?:^|[{{,])\s{{0,20}}[\"'](?:final )?{WORD}[\"']\s{{0,3}}:|<{WORD}>",
    re.IGNORECASE,
)
"""The word behind a sentence, as a key of JSON, or as a tag."""
OPEN = r"[\s\"'“”‘’「『《\[({<$\\:]{0,16}"
CLOSE = r"[\s\"'“”‘’」』》\])}$]{0,16}"
"""What may stand around a name; bounded, so that no pattern of several of them is more than linear."""
OPENING = re.compile(OPEN)
BEFORE = re.compile(
    rf"{OPEN}(?:(?:the|an?|it['’]s|it|this|is|better|best|winner|answer|response|option|clearly|boxed|text|textbf)"
    rf"(?![a-z]){OPEN}|(?:答案|回答|选择|是|为){OPEN}){{0,6}}",
    re.IGNORECASE,
)
"""What may stand between the colon and the name. A negation is none of it."""
AFTER = re.compile(
    rf"{CLOSE}(?:\Z|[.,;:!(\[—|]|[–-](?!\d)|>(?!=)|</"
    r"|(?:because|since|as|for|due|over|rather than|instead of|wins|between)\b"
    r"|is\s(?:(?:clearly|much|far|slightly|the)\s){0,2}(?:better|best|winner|preferred|superior|stronger)\b"
    r"|更|明显|胜|较好|优于|因为|[^\w\s\"'/&+=<>?])",
    re.IGNORECASE,
)
"""What may follow the name: nothing, a reason, or that it is better."""
ALONE = re.compile(rf"{CLOSE}[.!]?(?:\(.{{0,300}})?\Z")
"""What may follow a name below a heading."""
JOINED = re.compile(
    rf"{CLOSE}[\s,;/|&+(]{{0,8}}(?:(?:or|and|vs|versus|o|ou|oder)\b\.?|或者|或|和|与)?{OPEN}", re.IGNORECASE
)
"""What stands between a name and an alternative to it."""
CONDITION = re.compile(
    r"\W*(?:is better\W+)?(?:but\s+)?(?:only\s+)?(?:if|unless|when|assuming|depending|provided)\b", re.IGNORECASE
)
WITHDRAWAL = re.compile(
    r"\b(?:wait|actually|scratch|correction|worse|inferior|on second thought)\b|不如", re.IGNORECASE
)
"""Words that, with another name, may turn the verdict round."""
TIES = dict.fromkeys(("tied", "draw", "平局", "平手", "égalité", "empate", "unentschieden"), "tie")
"""Other words for the verdict that nobody wins, where "tie" is allowed."""
TORN = re.compile(
    r"(?:[,;:(\[{—–-]|\b(?:an?|the|and|or|but|because|since|as|of|to|in|on|for|with|which|that|this|its?|is|are|was|"
    r"has|have|not|while|however|although|though|if|than)|因为|但是|但|而|和)\Z",
    re.IGNORECASE,
)
"""The end of a text that breaks off."""
ENDED = re.compile(r"""[^\w\s,;:([{–—-]\Z""")
SHORT = 4
"""Words of a last line that needs no full stop."""


class Statement(NamedTuple):
    """What stands behind the word for a verdict, up to the end of its line or the next such word."""

    line: int
    """The number of its line, among those that are not empty."""
    start: int
    value: str
    is_below: bool
    """It stands in the line below the word, which is a heading then."""


class Verdict(NamedTuple):
    """A verdict, and the place of its name in the text."""

    name: str
    start: int


def parse_verdict(text: str, allowed: tuple[str, ...]) -> str:
    """Return the last verdict in a completion, in lower case; arguments and errors are those of `find_verdict`."""
    return find_verdict(text, allowed).name


def find_verdict(text: str, allowed: tuple[str, ...]) -> Verdict:
    """Find the last verdict in a completion.

    The last one that names an allowed verdict counts, so neither a change of mind nor a verdict quoted from the judged
    text misleads. There is none where that one names several as alternatives, denies or sets a condition, where
    different verdicts stand in lines one below the other (the form, repeated), or where the text breaks off after it.

    Args:
        text: The completion.
        allowed: The verdicts to accept, in lower case.

    Raises:
        ParseError: There is no such verdict.
    """
    plain = text.translate(PLAIN)
    names = (*allowed, *(TIES if "tie" in allowed else ()))
    name = "|".join(r"\s{1,9}".join(map(re.escape, one.split())) for one in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![a-z0-9])(?:{name})(?![a-z0-9])", re.IGNORECASE)
    named = [one for one in statements_in(plain) if pattern.search(one.value)]
    verdicts = [read_statement(one, pattern) for one in named]
    last = verdicts[-1] if verdicts and not breaks_off(plain, named[-1]) else None
    together = verdicts[first_of_run(named) :]
    if last is None or any(one is None or one.name != last.name for one in together):
        raise ParseError(f"no line 'Verdict: {' | '.join(allowed)}'")
    return last


def statements_in(plain: str) -> Iterator[Statement]:
    """Yield what a text, its signs made plain, states as verdicts."""
    lines = [match for match in re.finditer(r"[^\n]+", plain) if match[0].strip()]
    for number, line in enumerate(lines):
        begin = LINE_START.match(line[0])
        words = [*([begin] if begin else []), *WITHIN.finditer(line[0], begin.end() if begin else 0)]
        for word, following in pairwise([*words, None]):
            assert word is not None  # the last one has no following
            value = line[0][word.end() : following.start() if following else None]
            if value.strip(" \"'|>[]"):
                yield Statement(number, line.start() + word.end(), value, is_below=False)
            elif number + 1 < len(lines) and not LINE_START.match(lines[number + 1][0]):
                yield Statement(number + 1, lines[number + 1].start(), lines[number + 1][0], is_below=True)


def read_statement(statement: Statement, name: re.Pattern[str]) -> Verdict | None:
    """Return the verdict of a statement; None if it does not state one name."""
    starts = (pattern.match(statement.value) for pattern in (OPENING, BEFORE))
    match = next(filter(None, (name.match(statement.value, start.end()) for start in starts if start)), None)
    if match is None:
        return None
    rest = statement.value[match.end() :]
    other = JOINED.match(rest)
    is_open = bool(other and name.match(rest, other.end())) or bool(CONDITION.match(rest))
    is_withdrawn = bool(WITHDRAWAL.search(rest) and name.search(rest))
    is_whole = (ALONE if statement.is_below else AFTER).match(rest)
    if is_open or is_withdrawn or not is_whole:
        return None
    verdict = " ".join(match[0].lower().split())
    return Verdict(TIES.get(verdict, verdict), statement.start + match.start())


def first_of_run(statements: list[Statement]) -> int:
    """Return the place of the first statement of those that stand in lines one below the other, up to the last."""
    first = max(len(statements) - 1, 0)
    while first > 0 and statements[first].line - statements[first - 1].line <= 1:
        first -= 1
    return first


def breaks_off(plain: str, last: Statement) -> bool:
    """Return whether a text breaks off behind its last verdict, so that it may have changed its mind."""
    rest = plain[last.start :].rstrip()
    end = rest.rpartition("\n")[2].strip()
    if TORN.search(end) or end.count("(") > end.count(")"):
        return True
    return "\n" in rest and len(end.split()) > SHORT and not ENDED.search(end)
