"""State the budget, get the smallest model that provably keeps it.

>>> import penjing
>>> budget = penjing.Budget(max_drop=0.005)
>>> result = penjing.compress("model.onnx", "val.npz", budget=budget)  # doctest: +SKIP
>>> result.artifact.save("small.penjing")  # doctest: +SKIP
"""

from penjing.api import bench as bench
from penjing.api import compress as compress
from penjing.api import evaluate as evaluate
from penjing.api import load as load
from penjing.api import open_artifact as open_artifact
from penjing.api import predict as predict
from penjing.api import unpack as unpack
from penjing.api import wrap as wrap
from penjing.core.budget import Budget as Budget
from penjing.core.errors import PenjingError as PenjingError
from penjing.core.errors import PenjingWarning as PenjingWarning
from penjing.core.recipe import Recipe as Recipe
from penjing.core.recipe import Step as Step
