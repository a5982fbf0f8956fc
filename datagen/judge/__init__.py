"""Judging answers: scores, comparisons, rankings, and whether a judge is to be believed."""
