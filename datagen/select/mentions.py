"""Does an instruction point at a text that its reader does not have ("Summarise the passage above.")?

The word alone says nothing: "the opening paragraph of a letter", "convert the text of a recipe", "this document
format". A text is missing where it is shown (above, following, given, this), where something is said to stand in it
(according to the text), or where it is definite and nothing follows that says which one is meant.
"""

import re

NOUN = r"(?:text|passage|article|document|paragraph|excerpt)"
NOT_ALONE = (
    r"(?![ -](?:format|file|object|type|message|editor|box|class|style|tree|node|reader|management|s?\d|[ivx]+\b))"
)
SAYS = (
    r"(?:says?|means?|describes?|mentions?|provides?|suggests?|argues?|discuss(?:es)?|presents?|states?|explains?|implies"
    r"|imply|claims?|give[sn]?|tells?|refers?|recommends?|lists?|covers?)"
)
POINTER = re.compile(
    rf"""\b(?:above|following|given|provided|attached)\ (?:\w+\ )?{NOUN}s?\b{NOT_ALONE}
    | \bthis\ {NOUN}\b{NOT_ALONE}
    | \b{NOUN}\ (?:above|below|provided|given)\b
    | \b(?:according\ to|based\ on|(?:described|mentioned|stated|discussed|outlined|presented|listed|made)\ (?:in|by))
        \ (?:the|this)\ {NOUN}\b{NOT_ALONE}
    | \bthe\ {NOUN}(?=\s*(?:[?.,!;:]|\Z)|\ {SAYS}\b)
    | \bthe\ author\b(?=['’]s|\s*[?.,!]|\ {SAYS}\b|\ in\ (?:the|this)\ {NOUN}\b)
    | (?:上面|下面|以上|以下|上述|这[段篇个]|此)(?:的)?(?:文[章本字档]?|段落|短文|材料)(?![件夹档化明本字标])
    | (?:根据|结合|阅读|依据)(?:该|本)?(?:文章|文本|段落|短文|原文|材料|文中)
    | 文章(?:中|里|内容|主要|的?作者|的?中心|的?主旨) | (?<![语作论散中英外正古])文中
    | 本文(?=的|主要|中|作者|讲|介绍|提)
    | 该(?:文章|文本|段落|短文)""",
    re.IGNORECASE | re.VERBOSE,
)

BROUGHT = 30
"""Characters behind a colon or a line break that are a text of their own."""


def points_at_text(text: str) -> bool:
    """Whether a text points at another one, which its reader does not have: it does not follow behind a colon."""
    pointer = POINTER.search(text)
    rest = text[pointer.end() :].replace("：", ":").replace("\n", ":") if pointer else ""
    return pointer is not None and len(rest.partition(":")[2].strip()) < BROUGHT
