"""What `test_running.py` runs in a process with four devices. Not collected by itself."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from lmjax.data import DigitScenes
from lmjax.models import registry
from lmjax.training import read_metrics
from tests.training import a_run

TEST = DigitScenes("test", length=21)  # of 24 that four devices count, 3 do not


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.NetworkInfo, "build", a_run.build)
        yield


def mesh_of(shape, axis_type=AxisType.Auto):
    names = ("hosts", "chips")[: len(shape)]
    some = jax.devices()[: np.prod(shape)]
    return jax.make_mesh(shape, names, axis_types=(axis_type,) * len(shape), devices=some)


def metrics(out, **options):
    a_run.run(out, test=TEST, **options)
    table = read_metrics(out)
    return table["loss"].to_numpy(), table["test_accuracy"].to_pylist()[7]  # of the first epoch


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Of one device, which is not the first."""
    with jax.default_device(jax.devices()[3]):
        return metrics(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    "mesh",
    [None, mesh_of((2,)), mesh_of((2, 2), AxisType.Explicit)],
    ids=["all", "two", "two_axes"],
)
def test_devices_of_a_mesh_train_as_one_does(mesh, alone, tmp_path):
    losses, accuracy = metrics(tmp_path, mesh=mesh)
    np.testing.assert_allclose(losses[:8], alone[0][:8], rtol=1e-4)
    np.testing.assert_allclose(losses, alone[0], rtol=2e-2)  # rounding grows from step to step
    assert accuracy == pytest.approx(alone[1], abs=1.5 / 21)  # rounding may decide one


def test_a_batch_that_devices_cannot_divide_is_an_error(tmp_path):
    config = dataclasses.replace(a_run.CONFIG, batch_size=12)
    with pytest.raises(
        ValueError, match=r"batch_size is 12; .* multiple of accumulate x devices \(2 x 4\)"
    ):
        a_run.run(tmp_path, config=config)
    with pytest.raises(ValueError, match=r"mesh must be a jax.sharding.Mesh.*got 4"):
        a_run.run(tmp_path, mesh=4)
    assert not list(tmp_path.iterdir())
