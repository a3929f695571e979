"""Messages of one line: short ones that `kubectl get` shows whole, and those that tell all."""


def fitted(message: str, max_characters: int) -> str:
    """Make one line of the message, and cut it at the end of a word where it is too long."""
    line = one_line(message)
    if len(line) <= max_characters:
        return line
    room = max_characters - len("...")
    cut = line[:room]
    at_word = cut.rsplit(" ", 1)[0]
    return (at_word if len(at_word) >= room // 2 else cut).rstrip(",;: ") + "..."


def one_line(message: str) -> str:
    """Put spaces in the place of line ends and of what cannot be printed."""
    printable = "".join(it if it.isprintable() else " " for it in message)
    return " ".join(printable.split())
