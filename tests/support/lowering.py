"""What programs for accelerators must be; machines without one can lower them."""

import re

ACCELERATORS = ("cuda", "tpu")


def check(traced) -> None:
    """Lowers a traced function, `jax.jit(f).trace(...)`, for accelerators; reads the program."""
    check_text(traced.lower(lowering_platforms=ACCELERATORS).as_text())


def check_text(text: str) -> None:
    """Nothing comes back to Python, every shape is known, no product is rounded unasked."""
    assert "callback" not in text
    assert "tensor<?" not in text, "a dynamic shape"
    products = re.findall(r"stablehlo\.(?:convolution|dot_general)\b.*", text)
    assert products
    assert all(each.count("HIGHEST") == 2 for each in products), "TF32 or bfloat16 unasked"
