"""Parse the text of a completion. A text that is not in the expected form raises ParseError; nothing is guessed."""

import re

from datagen.errors import ParseError

VERDICT = re.compile(r"[\s*_#>`]*verdict[\s*_`]*[:：]\s*(.+)", re.IGNORECASE)
MARKUP = re.compile(r"[\s*_`.。!\"']+")


def parse_verdict(text: str, allowed: tuple[str, ...]) -> str:
    """Return the last verdict in a completion, in lower case.

    The last one counts, so neither a change of mind nor a verdict quoted from the judged text misleads. A line that
    names more than one allowed verdict is no verdict.

    Args:
        text: The completion. Verdicts are lines `Verdict: ...`; Markdown around them is ignored.
        allowed: The verdicts to accept, in lower case.

    Raises:
        ParseError: No line holds exactly one allowed verdict.
    """
    matches = (VERDICT.fullmatch(line) for line in text.splitlines())
    verdicts = (MARKUP.sub(" ", match[1]).strip().lower() for match in matches if match)
    last = [verdict for verdict in verdicts if verdict in allowed][-1:]
    if not last:
        raise ParseError(f"no line 'Verdict: {' | '.join(allowed)}'")
    return last[0]
