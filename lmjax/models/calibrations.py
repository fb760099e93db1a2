"""Checks that calibrated removals go with the networks that they were fitted to."""

from collections.abc import Iterable, Mapping
from typing import Any

from lmjax.models.checkpoints import weights_sha256
from lmjax.removals import registry


def check_calibrations(names: Iterable[str], networks: Mapping[str, Any]) -> None:
    """Raises ValueError for a calibration of another network.

    Args:
      names: of removals.
      networks: classifiers by name.
    """
    for name in names:
        file = registry.takes_file(name)
        fitted = getattr(registry.prototype(name), "fitted", None) if file else None
        for network, classifier in networks.items():
            if fitted is not None and weights_of(classifier) != fitted.weights_sha256:
                raise ValueError(
                    f"removal {name} was calibrated for another network than {network}; "
                    "`lmjax data calibration --model` makes one for it"
                )


def weights_of(classifier: Any) -> str:
    """Returns the sha256 over the weights of a classifier."""
    return weights_sha256(getattr(classifier, "variables", classifier))
