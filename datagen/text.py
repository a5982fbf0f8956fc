"""From a text to the tokens that texts are compared by, in every script, and the key of an exact duplicate.

For plain English the tokens are those of rouge-score 0.1.2, so ROUGE-L values are equal to the last digit. That tool
keeps nothing but a-z and 0-9: two equal Chinese sentences get 0.0, and two different ones that share a digit get 1.0.
Here a word may have letters of any script, a character counts by itself where a script puts no spaces between words,
and a text without any letter (emoji, `2 + 2`) is compared by its characters. Korean has spaces and is split at them.
"""

import re
import unicodedata

UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
)
"""The scripts that are written without spaces, as ranges of a character class."""
INDIC = "\u0900-\u0963\u0966-\u0dff"
"""Here vowel signs belong to the word, though Python's `\\w` leaves them out."""
TOKEN = re.compile(rf"[{UNSPACED}]|(?:[^\W_{UNSPACED}]|[{INDIC}])+")
CHARACTER = re.compile(rf"[{UNSPACED}]")
MEANS_SOMETHING = re.compile(r"(?<=\d)[\W_]+(?=\d)|[-−](?=\d)|(?<=\d)%|(?<=[^\W\d_])#")
"""What distinguishes 3.5 from 35, 3 * 4 from 3 / 4, 3 4 from 34, -5 from 5, 20% from 20, C# from C."""


def tokens(text: str) -> list[str]:
    """Return lower-case words and unspaced characters in order; empty only for a text of nothing but spaces."""
    text = normalized(text).lower()
    return TOKEN.findall(text) or [c for c in text if not c.isspace()]


def normalized(text: str) -> str:
    """Write equal characters equally (Unicode NFKC): full-width letters, ligatures, composed accents."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def is_unspaced(found: list[str]) -> bool:
    """Tell whether at least half of the tokens are single characters of an unspaced script."""
    return 2 * sum(CHARACTER.match(token) is not None for token in found) >= len(found) > 0


def exact_key(text: str) -> str:
    """Return what exact duplicates share: NFKC, case folded, without spaces and punctuation.

    A sign that changes what is asked stays. A text of nothing but punctuation is its own key.
    """
    text = normalized(text).casefold()
    kept, end = [], 0
    for match in MEANS_SOMETHING.finditer(text):
        kept += [_bare(text[end : match.start()]), " ".join(match[0].split()) or " "]
        end = match.end()
    return "".join([*kept, _bare(text[end:])]) or " ".join(text.split())


def _bare(text: str) -> str:
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c)[0] != "P")
