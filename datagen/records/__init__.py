"""Rows: what flows between commands, and the files that it is read from and written to. Start with record.py."""
