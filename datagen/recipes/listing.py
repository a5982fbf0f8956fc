"""`datagen recipes`: the recipes that come with the package."""

from dataclasses import dataclass
from pathlib import Path

from datagen.engine.options import option
from datagen.errors import unknown_value
from datagen.installation import program
from datagen.printing import printable
from datagen.recipes.recipe import Source, bundled, read_document

ARGUMENTS = ()


@dataclass(frozen=True)
class Options:
    """Options of `datagen recipes`."""

    show: str | None = option(None, "Print the file of this recipe, to change a copy of it.")


def run(options: Options) -> int:
    """List the recipes, or print one."""
    recipes = bundled()
    if options.show is not None:
        if options.show not in recipes:
            raise unknown_value("--show", options.show, recipes)
        print(printable(recipes[options.show].read_text(encoding="utf-8")), end="")
        return 0
    width = max(map(len, recipes))
    lines = [f"{name.ljust(width)}  {first_line(path)}" for name, path in recipes.items()]
    start = program()
    ways = f"{start} run NAME runs one; {start} recipes --show NAME > FILE.yaml makes a copy to change"
    print(printable("\n".join([*lines, "", ways])))
    return 0


def first_line(path: Path) -> str:
    """Return what a recipe is about, in a line."""
    return str(read_document(Source(path))["about"]).strip().partition("\n")[0]
