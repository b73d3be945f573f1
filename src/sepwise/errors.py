"""Every error a user can meet. Knows nothing of the other rooms.

SepwiseError
├── ShapeError          (also ValueError)           tensors or sizes that do not fit each other
├── UnsupportedError    (also NotImplementedError)  something we refuse to do, with the reason
├── MissingExtraError   (also ImportError)          an optional package is not installed
├── ModelError          (also ValueError)           a model that cannot be found, built or traced
├── WeightsError        (also ValueError)           weights that are unsafe, unreadable or do not fit the model
├── PictureError        (also ValueError)           a picture or a table of pictures that cannot be read
├── BudgetError         (also ValueError)           a budget that is badly written or cannot be met
├── PlanError           (also ValueError)           a plan that does not fit the model, or a file that is no plan
└── OutputError         (also OSError)              a place that cannot be written
"""


class SepwiseError(Exception):
    """Anything sepwise refuses to do; `str(error)` is one readable sentence, details on the following lines."""


class ShapeError(SepwiseError, ValueError):
    """Tensors or sizes that do not fit each other."""


class UnsupportedError(SepwiseError, NotImplementedError):
    """Something we refuse to do, with the reason."""


class MissingExtraError(SepwiseError, ImportError):
    """An optional package is not installed; the message says how to install it."""


class ModelError(SepwiseError, ValueError):
    """A model that cannot be found, built or traced."""


class WeightsError(SepwiseError, ValueError):
    """Weights that are unsafe, unreadable or do not fit the model."""


class PictureError(SepwiseError, ValueError):
    """A picture, or a table of pictures, that cannot be read."""


class BudgetError(SepwiseError, ValueError):
    """A budget that is badly written or cannot be met."""


class PlanError(SepwiseError, ValueError):
    """A plan that does not fit the model, or a file that is no plan."""


class OutputError(SepwiseError, OSError):
    """A place that cannot be written."""
