"""Sizes that arrays are filled up to, so that few shapes compile."""


def power_of_two(number: int) -> int:
    """Rounds up to a power of two."""
    return 2 ** (number - 1).bit_length()
