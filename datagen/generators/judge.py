"""`datagen judge`: scores and ranks for samples, by one of the ways in datagen/judge/."""

from datagen.judge import compare, human, rank, score, verified

METHODS = {each.METHOD.way: each.METHOD for each in (score, compare, rank, verified, human)}
CHOICE = "by"
