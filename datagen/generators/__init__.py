"""One file per method: an async function over a record and its models that yields candidates."""
