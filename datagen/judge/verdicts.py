"""What a judge's reply says of two answers.

The last line `Verdict: ...` counts. A judge that does not keep to the form is read by its last sentence that states a
preference ("Therefore, B is better."), since small models often reason well and forget the form. A sentence that only
weighs one side ("A is more detailed", "A is better in terms of length, but...") is none, and a reply that was cut
before it came to an end has no verdict: what it said until then it might have taken back.
"""

import re
from collections.abc import Sequence

from datagen.errors import ParseError
from datagen.parse import parse_verdict

FIRST, SECOND, TIE = 1.0, 0.0, 0.5
"""The share of a comparison that its first answer gets."""
SHARES = (FIRST, SECOND)
BETTER = r"(?:better|best|superior|preferable|preferred|stronger)"
WORSE = r"(?:worse|worst|inferior|weaker)"
SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\s)]+|\n+")
COMPLETE = re.compile(r"""[.!?。！？][)"'”*\s]*\Z""")
LIMITED = re.compile(rf"\b{BETTER} (?:only )?(?:if|when|unless)\b|\b{BETTER} in terms of\b[^.]*\bbut\b", re.IGNORECASE)
"""Says when or in what an answer would be better, not that it is."""
EVEN = re.compile(r"\b(?:equally|neither|both|either|tie|same)\b", re.IGNORECASE)
CONTRAST = re.compile(r"\b(?:but|however|although|though|while)\b", re.IGNORECASE)
LEAD = r"(?:therefore|so|thus|hence|overall|verdict|answer|winner|the|better|best|final|output|choice|is|,|:|\s)*"


def read_verdict(text: str, names: Sequence[str]) -> float:
    """Return the share that the first of two named answers gets: FIRST, SECOND or TIE. Raise ParseError if no verdict
    can be read."""
    first, second = (name.lower() for name in names)
    try:
        said = parse_verdict(text, allowed=(first, second, "tie"))
    except ParseError:
        return stated(text, (first, second))
    return {first: FIRST, second: SECOND, "tie": TIE}[said]


def stated(text: str, names: tuple[str, str]) -> float:
    """Return the preference that the last sentence of a reply states which states one."""
    sentences = [part for part in SENTENCE_END.split(text.strip()) if part and part.strip()]
    last = len(sentences) - 1
    for number in range(last, -1, -1):
        share = preference(sentences[number].strip(), names)
        if share is not None:
            return share
        if number == last and not COMPLETE.search(text.strip()):
            break
    raise ParseError(f"no line 'Verdict: {' | '.join(names)} | tie', and no sentence that prefers one")


def preference(sentence: str, names: tuple[str, str]) -> float | None:
    """Return the preference that a sentence states, if it does."""
    lower = sentence.lower()
    name = "|".join(re.escape(each) for each in names)
    named = [names.index(match[1]) for match in re.finditer(rf"(?<!\w)({name})(?!\w)", lower)]
    if not named or LIMITED.search(sentence):
        return None
    if not sentence.startswith("#") and re.fullmatch(rf"[\W_]*{LEAD}[\W_]*(?:{name})[\W_]*", lower):
        return SHARES[named[0]]
    if len(set(named)) == 2 and EVEN.search(sentence) and not CONTRAST.search(sentence):
        return TIE
    return _compared(lower, name, names)


def _compared(sentence: str, name: str, names: tuple[str, str]) -> float | None:
    """Read "A is (clearly not) better", or worse."""
    verb = r"(?:is|are|was|would be|may be|might be|can be considered|seems|appears|performs|being|as)"
    found = re.search(
        rf"({name})\W+(?:\w+\W+){{0,4}}?{verb}\s+(not\s+)?(?:\w+\s+){{0,3}}?(?:({BETTER})|{WORSE})\b", sentence
    )
    if found is None:
        return None
    place = names.index(found[1])
    is_better = bool(found[3]) != bool(found[2])
    return SHARES[place] if is_better else SHARES[1 - place]
