"""What comes from outside: models by name, weights, pictures. Knows files and packages; measures nothing."""

from .batches import Batches, batches, prepare
from .models import LoadedModel, load_model
from .pictures import Picture, Pictures, find_pictures
from .weights import load_weights, read_weights, save_weights

__all__ = [
    "Batches",
    "LoadedModel",
    "Picture",
    "Pictures",
    "batches",
    "find_pictures",
    "load_model",
    "load_weights",
    "prepare",
    "read_weights",
    "save_weights",
]
