"""Random keys for draws that are continued."""

import jax


def threefry(key: jax.Array) -> jax.Array:
    """The key itself, or of another kind than threefry one of that kind drawn from it.

    With threefry a draw depends on the key and its place alone. Keys of kind "rbg" promise nothing
    like it: their bits depend on what is drawn together, and on the device.
    """
    if jax.random.key_impl(key) == "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), "uint32"), impl="threefry2x32")
