"""What answers are called before a judge: labels drawn anew for each question.

An answer that names a verdict cannot know its own label, so a verdict that it smuggles into the judge's reply is none.
Drawn labels also keep a judge from liking "A" for being "A".
"""

from collections.abc import Sequence
from random import Random

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels: no words."""


def draw_labels(random: Random, answers: Sequence[str]) -> list[str]:
    """Draw a label for each answer, such as K7: no two alike, none that occurs in an answer."""
    taken = "\n".join(answers).upper()
    labels: list[str] = []
    while len(labels) < len(answers):
        label = f"{random.choice(LETTERS)}{random.randint(2, 9)}{random.choice(LETTERS)}"
        if label not in taken and label not in labels:
            labels.append(label)
    return labels
