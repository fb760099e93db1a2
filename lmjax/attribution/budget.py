"""Budgets: how many samples a method may take for a number of evaluations."""

from typing import NamedTuple

from lmjax._utils.checks import check_whole


class Cost(NamedTuple):
    """What the samples of a method cost, in evaluated variants.

    Attributes:
      each: of one sample.
      beside: that the method evaluates beside its samples, such as the whole image.
    """

    each: int = 1
    beside: int = 1

    def number(
        self,
        name: str,
        number: int | None,
        evaluations: int | None,
        *,
        default: int,
        least: int,
        note: str = "",
    ) -> int:
        """Returns the number of samples: what was asked for, or what the evaluations allow.

        Args:
          name: of the method's option, such as "num_samples".
          number: the option; None where it was not given.
          evaluations: the most variants to evaluate; None where that was not given.
          default: number where neither was given.
          least: the fewest samples of the method.
          note: why so, for the error.

        Raises:
          ValueError: both were given, or fewer than the fewest.
        """
        if evaluations is None:
            number = default if number is None else number
            return check_whole(name, number, least=least, note=note)
        check_one(name, number, evaluations)
        fewest = self.beside + least * self.each
        evaluations = check_whole("evaluations", evaluations, least=fewest, note=note)
        return (evaluations - self.beside) // self.each


def check_one(name: str, number: int | None, evaluations: int | None) -> None:
    """Raises ValueError where a number of samples and of evaluations were both given.

    Args:
      name: of the option with the number of samples.
      number: the option; None where it was not given.
      evaluations: the same.
    """
    if number is not None and evaluations is not None:
        raise ValueError(
            f"{name} and evaluations both say how many variants are evaluated; pass one of them, "
            f"got {name}={number} and evaluations={evaluations}"
        )
