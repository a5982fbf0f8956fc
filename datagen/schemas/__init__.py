"""JSON Schema: the form that an answer is to have, and whether a value has it.

These keywords are checked; those in NOTES say nothing about validity and are passed on; any other is refused by name,
since a rule that is not checked would be taken for one that holds. `format` is a note, as the standard has it. A value
is made to fit where nothing is lost by it: "4" is the number 4 where a number is wanted, 4 the text "4" where a text
is, and one object a list of one.
"""

from datagen.schemas.fitting import same
from datagen.schemas.keywords import list_schema, object_schema, parse_schema
from datagen.schemas.schema import Schema

__all__ = ["Schema", "list_schema", "object_schema", "parse_schema", "same"]
