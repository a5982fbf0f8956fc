"""What flows between commands: rows, and the files of rows that are read and written. Start with record.py and reader.py."""
