"""Lets torchvision be imported beside a build of torch for CPUs.

PyPI's torchvision is built for CUDA. Beside another build of torch its compiled operators do not
load, and its import fails on the first one that it looks up. Networks use none of them, so
declaring them is enough. For notebooks in CI; tests have `tests/support/torch_reference.py`.
"""

import contextlib

with contextlib.suppress(ImportError):
    import torch

    for name in ("nms", "qnms"):
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{name}", signature)
