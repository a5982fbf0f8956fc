"""`datagen respond`: answers to prompts, by one of the strategies. Each is a file in datagen/strategies/."""

from datagen.strategies import cot, direct, mcr, rft, star, vote
from datagen.strategies.tree import strategy as tree

METHODS = {each.METHOD.way: each.METHOD for each in (direct, cot, vote, rft, star, tree, mcr)}
"""Adding a strategy is one name here; the first is the default."""
CHOICE = "strategy"
