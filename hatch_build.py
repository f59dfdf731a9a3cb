"""Compile the entropy coders when the package is built or installed.

The library lies beside its source, ``src/penjing/coders/native``, which is where an editable
install looks for it; wheels carry a copy and are tagged for the platform.  It does not touch
Python, so one wheel serves every version.  ``python hatch_build.py`` compiles it by hand.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # compiled by hand, outside a build
    BuildHookInterface = object

_NATIVE = Path("src/penjing/coders/native")
_LIBRARY = f"libpenjing_coder{ {'win32': '.dll', 'darwin': '.dylib'}.get(sys.platform, '.so') }"
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=c99", "-O3", "-DNDEBUG", "-fPIC", "-shared", "-fvisibility=hidden")


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc,unused-ignore]  # may be object
    """Puts the compiled library into wheels and editable installs."""

    def dependencies(self) -> list[str]:
        """Ask for the compiler on PyPI where there is no other."""
        has_one = os.environ.get("CC") or any(shutil.which(name) for name in _COMPILERS)
        return [] if has_one else ["ziglang"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the library to a wheel; an editable install finds it in place."""
        library = compile_library(Path(self.root))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"
        if version != "editable":
            inside = (_NATIVE / _LIBRARY).relative_to("src").as_posix()
            build_data["force_include"][str(library)] = inside


def compile_library(root: Path) -> Path:
    """Compile ``coder.c`` beside itself with the compiler found; return the library's path."""
    source, library = root / _NATIVE / "coder.c", root / _NATIVE / _LIBRARY
    unfinished = library.with_suffix(f".{os.getpid()}.tmp")
    command = [*_compiler(), *_FLAGS, str(source), "-o", str(unfinished)]
    try:
        subprocess.run(command, check=True)  # noqa: S603  # a compiler of the user's choice
        unfinished.replace(library)  # at once: another process may be using the old one
    finally:
        unfinished.unlink(missing_ok=True)
    return library


def _compiler() -> list[str]:
    """Name the C compiler: $CC, one on the PATH, or the one in the ziglang package."""
    if chosen := os.environ.get("CC"):
        return chosen.split()
    for name in _COMPILERS:
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise SystemExit(
        "penjing's entropy coders need a C compiler and none was found\n"
        "Hint: install gcc or clang, or 'pip install ziglang' and build without isolation"
    )


def _platform() -> str:
    """Name this platform as wheel tags do."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    sys.stdout.write(f"{compile_library(Path(__file__).parent)}\n")
