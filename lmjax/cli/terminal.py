"""What commands print: text that a terminal only shows, wherever it goes."""

from lmjax._utils.text import printable


def say(text: object) -> None:
    """Prints a line, or several; names in it cannot move the cursor or change colours.

    Args:
      text: any value.
    """
    print(printable(text))
