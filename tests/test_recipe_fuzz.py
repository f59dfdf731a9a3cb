"""Whatever is in the file, the reader answers with a recipe or with a ConfigError."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import ConfigError
from penjing.core.recipe import Recipe

keys = st.sampled_from(["steps", "seed", "use", "only", "sparsity", "scope", "bits", "x"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=3)
    | st.sampled_from(["gptq", "magnitude_pruning", "layer", "*", ""])
)
anything = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner))
options = st.fixed_dictionaries(
    {"use": st.sampled_from(["gptq", "magnitude_pruning", "low_rank"])},
    optional={"sparsity": leaves, "scope": leaves, "bits": leaves, "rank": leaves},
)
words = ["steps", "seed", "use", "gptq", "0x", "1_", "2024-13-01", "!!x", "&a", "*a", "<<"]
pieces = st.sampled_from([*words, *"-:?,[]{}'\"|>#~% \n\t", "- ", ": "])


@settings(deadline=None)
@given(anything | st.fixed_dictionaries({"steps": st.lists(options | anything)}))
def test_no_other_exception_from_data(data: Any) -> None:
    with suppress(ConfigError):
        recipe = Recipe.from_dict(data)
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@settings(deadline=None)
@given(st.text() | st.lists(pieces).map("".join))
def test_no_other_exception_from_text(text: str) -> None:
    with suppress(ConfigError):
        recipe = Recipe.from_yaml(text)
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe
