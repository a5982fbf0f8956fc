"""How the procedural teacher reasons before it answers (`sim:think=1`): it plans the answer that it then writes."""

from datagen.text import count_words

SHOWN = 60
"""Characters of the answer that the plan repeats."""


def reasoning_of(text: str) -> str:
    """Return the reasoning before a text; it follows from the text, so that each can be told to belong to the other."""
    plan = " ".join(text.split())
    begin = f"I begin with: {plan[:SHOWN]}" if plan else "I have nothing to say."
    return f"Let me think about what is asked.\n{begin}\nThat makes {count_words(text)} words."
