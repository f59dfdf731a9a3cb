"""Checks every plug-in must pass.  Third parties import these too.

>>> from penjing.testing import technique_cases
>>> from penjing.techniques.nm_sparsity import NMSparsity
>>> for name, (check, technique, build) in technique_cases({"mine": NMSparsity}):
...     check(technique, build)
"""

from penjing.testing.backends import backend_cases as backend_cases
from penjing.testing.conformance import technique_cases as technique_cases
from penjing.testing.encodings import encoding_cases as encoding_cases
