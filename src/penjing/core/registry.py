"""The directory is the registry.

A plug-in is a module in the family's package whose ``__all__`` names one class.  Its public
name is the module's name.  Listing names imports nothing; loading one imports that one file.
Installed packages add plug-ins through the entry-point group of the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from penjing.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Registry:
    """Plug-ins of one family, for example ``Registry("penjing.techniques")``."""

    package: str

    def names(self) -> tuple[str, ...]:
        """Every known name, sorted; nothing is imported to find them."""
        points = {point.name for point in entry_points(group=self.package)}
        return tuple(sorted(_own_names(self.package) | points))

    def load(self, name: str) -> Any:
        """Import one plug-in.  Import errors are not caught: they are the truth."""
        if name not in _own_names(self.package):
            for point in entry_points(group=self.package, name=name):
                return point.load()
            raise ConfigError(self.noun, f"no {self.noun} is called {name!r}", self._hint(name))
        module = importlib.import_module(f"{self.package}.{name}")
        (only_export,) = module.__all__
        return getattr(module, only_export)

    @property
    def noun(self) -> str:
        """What one plug-in of the family is called: "technique"."""
        return self.package.rpartition(".")[2].removesuffix("s")

    def _hint(self, name: str) -> str:
        begun = [known for known in self.names() if name and known.startswith(name.lower())]
        close = begun or get_close_matches(name, self.names(), n=1)
        if close:
            return f"did you mean {' or '.join(map(repr, close))}?"
        return f"known: {', '.join(self.names())}"

    def name_of(self, plugin: type) -> str:
        """Give the public name of a plug-in class; the inverse of ``load``."""
        package, _, module = plugin.__module__.rpartition(".")
        if package == self.package:
            return module
        for point in entry_points(group=self.package):
            if point.value == f"{plugin.__module__}:{plugin.__qualname__}":
                return point.name
        raise ConfigError(plugin.__qualname__, f"is not registered in {self.package}")


@cache
def _own_names(package: str) -> frozenset[str]:
    """Modules of the family's folder; packages inside it hold what its plug-ins share."""
    spec = find_spec(package)
    paths = spec.submodule_search_locations if spec else None
    modules = pkgutil.iter_modules(paths or [])
    return frozenset(info.name for info in modules if not info.ispkg)


TECHNIQUES = Registry("penjing.techniques")
BACKENDS = Registry("penjing.backends")
CODERS = Registry("penjing.coders")
READERS = Registry("penjing.readers")
METRICS = Registry("penjing.metrics")
RUNTIMES = Registry("penjing.runtimes")
REPORTS = Registry("penjing.report")
TEMPLATES = Registry("penjing.templates")
