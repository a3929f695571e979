"""Messages that `kubectl get` shows whole."""

from heliostat_crds.conditions import MAX_MESSAGE_CHARACTERS


def fitted(message: str) -> str:
    """Make one line of the message, and cut it at the end of a word where it is too long."""
    printable = "".join(it if it.isprintable() else " " for it in message)
    line = " ".join(printable.split())
    if len(line) <= MAX_MESSAGE_CHARACTERS:
        return line
    room = MAX_MESSAGE_CHARACTERS - len("...")
    cut = line[:room]
    at_word = cut.rsplit(" ", 1)[0]
    return (at_word if len(at_word) >= room // 2 else cut).rstrip(",;: ") + "..."
