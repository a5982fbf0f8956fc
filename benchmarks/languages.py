"""Languages that are right, wrong and unknown: the sentences of tests/data/languages.jsonl, whole, halved and cut.

python -m benchmarks.languages
"""

from collections import Counter
from collections.abc import Callable

from benchmarks.elimination import markdown
from datagen.verify.languages import CONFIDENCE, NAMES, detect
from tests.verify.test_languages import SENTENCES, first_half

CUTS: dict[str, Callable[[str], str]] = {"whole": str, "half": first_half, "3 words": lambda t: " ".join(t.split()[:3])}


def count(code: str, cut: Callable[[str], str]) -> Counter[bool | None]:
    """Count the sentences of a language that are right, wrong (False) and unknown (None)."""
    detected = [detect(cut(text)) for language, text in SENTENCES if language == code]
    return Counter(None if one is None else one == code for one in detected)


def main() -> None:
    codes = sorted({code for code, _ in SENTENCES})
    print(f"{len(SENTENCES)} sentences, probability of at least {CONFIDENCE}: right / wrong / unknown\n")
    counts = {code: [count(code, cut) for cut in CUTS.values()] for code in codes}
    sums = [sum((of[place] for of in counts.values()), Counter[bool | None]()) for place in range(len(CUTS))]
    lines = [*((NAMES[code], of) for code, of in counts.items()), ("all", sums)]
    cells = ((name, *(f"{one[True]} / {one[False]} / {one[None]}" for one in of)) for name, of in lines)
    print(*markdown(("language", *CUTS), *cells), sep="\n")


if __name__ == "__main__":
    main()
