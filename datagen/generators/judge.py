"""`datagen judge`: scores and ranks for samples, by one of the ways in datagen/judge/."""

from datagen.judge import compare, rank, score

METHODS = {each.METHOD.way: each.METHOD for each in (score, compare, rank)}
CHOICE = "by"
