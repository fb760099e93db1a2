"""Checks that calibrated removals go with the networks that they were fitted to."""

from collections.abc import Iterable, Mapping
from typing import Any

from lmjax.models.identity import weights_of
from lmjax.removals import registry


def check_calibrations(names: Iterable[str], networks: Mapping[str, Any]) -> None:
    """Raises ValueError for a calibration of another network.

    Args:
      names: of removals.
      networks: classifiers by name.
    """
    with_file = {name: registry.prototype(name) for name in names if registry.takes_file(name)}
    fitted = {name: getattr(made, "fitted", None) for name, made in with_file.items()}
    wanted = {name: each.weights_sha256 for name, each in fitted.items() if each is not None}
    for network, classifier in networks.items() if wanted else ():
        weights = weights_of(classifier)
        for name, sha256 in wanted.items():
            if weights != sha256:
                raise ValueError(
                    f"removal {name} was calibrated for another network than {network}; "
                    "`lmjax data calibration --model` makes one for it"
                )
