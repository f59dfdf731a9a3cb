from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penjing.testing import backend_cases, encoding_cases, technique_cases

if TYPE_CHECKING:
    from penjing.core.technique import Technique
    from penjing.core.tensors import Tensor
    from penjing.testing.backends import BackendCheck
    from penjing.testing.conformance import Check
    from penjing.testing.encodings import EncodingCheck
    from penjing.testing.models import Build

TECHNIQUES = dict(technique_cases())
BACKENDS = dict(backend_cases())
ENCODINGS = dict(encoding_cases())


@pytest.mark.parametrize(("check", "technique", "build"), TECHNIQUES.values(), ids=TECHNIQUES)
def test_technique(check: Check, technique: type[Technique], build: Build) -> None:
    check(technique, build)


@pytest.mark.parametrize(("check", "build"), BACKENDS.values(), ids=BACKENDS)
def test_backend(check: BackendCheck, build: Build) -> None:
    check(build)


@pytest.mark.parametrize(("check", "tensor"), ENCODINGS.values(), ids=ENCODINGS)
def test_encoding(check: EncodingCheck, tensor: Tensor) -> None:
    check(tensor)
