"""PyTorch modules as pure JAX functions, imported through `torch.export`."""

from typing import TYPE_CHECKING

from lmjax._utils.lazy import attach

if TYPE_CHECKING:
    from lmjax.models.pytorch.export import ModuleImportError as ModuleImportError
    from lmjax.models.pytorch.export import import_module as import_module
    from lmjax.models.pytorch.graph import TorchGraph as TorchGraph
    from lmjax.models.pytorch.ops.table import (
        UnsupportedOperationError as UnsupportedOperationError,
    )
    from lmjax.models.pytorch.ops.table import register_op as register_op

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ModuleImportError": "lmjax.models.pytorch.export",
        "TorchGraph": "lmjax.models.pytorch.graph",
        "UnsupportedOperationError": "lmjax.models.pytorch.ops.table",
        "import_module": "lmjax.models.pytorch.export",
        "register_op": "lmjax.models.pytorch.ops.table",
    },
)
