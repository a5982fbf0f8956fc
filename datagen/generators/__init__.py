"""One file per method: a class whose `generate` turns a record into candidates, with the help of its models."""
