"""How the user calls this program, for the lines to type that the demo ends with."""

import shutil
from pathlib import Path

_NAME = "heliostat"


def called_program(path: str, folder: Path) -> str:
    """What to type in this folder to call the program at this path (`sys.argv[0]`) again.

    Its name where the PATH leads to it; else its path, relative if below the folder. The plain
    name `heliostat` if it is no program, as under `python -c`.
    """
    program = shutil.which(path)
    if program is None:
        return _NAME
    absolute = folder / program
    found = shutil.which(absolute.name)
    if found is not None and (folder / found).samefile(absolute):
        return absolute.name
    if not absolute.is_relative_to(folder):
        return str(absolute)
    relative = str(absolute.relative_to(folder))
    return relative if "/" in relative else f"./{relative}"
