"""Filters: functions from a step or row to the reason to drop it, or None to keep it."""
