"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from penjing.core.errors import MissingExtraError, OutputError
from penjing.report.support import page

if TYPE_CHECKING:
    from penjing.core.report import Report

__all__ = ["Html"]

_SUPPORT = "penjing.report.support"


class Html:
    """Renders a report as one page without scripts or requests, light and dark."""

    def render(self, report: Report) -> str:
        """Give the page; the same report gives the same text.

        Raises:
            MissingExtraError: jinja2 or matplotlib is not installed.
        """
        try:
            import jinja2
            import matplotlib as mpl
        except ImportError as missing:
            raise MissingExtraError("report", "the HTML report") from missing
        del mpl  # looked for here, used by the charts
        files = resources.files(_SUPPORT)
        environment = jinja2.Environment(
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["typeset"] = page.typeset
        template = environment.from_string(files.joinpath("report.html.j2").read_text("utf-8"))
        style = files.joinpath("style.css").read_text("utf-8")
        return template.render(style=style, **page.view(report)) + "\n"

    def save(self, report: Report, path: str | os.PathLike[str]) -> None:
        """Write the page; what stood there before is kept until the new one is complete.

        Raises:
            MissingExtraError: jinja2 or matplotlib is not installed.
            OutputError: the file cannot be written.
        """
        content = self.render(report).encode("utf-8")
        target = Path(path)
        try:
            _write(target, content)
        except OSError as problem:
            hint = "choose a folder that exists and may be written to, with space left"
            message = f"the report cannot be written: {problem.strerror or problem}"
            raise OutputError(str(path), message, hint) from problem


def _write(target: Path, content: bytes) -> None:
    if target.exists() and not target.is_file() and not target.is_dir():
        # A pipe or a device: there is nothing to keep and nothing to rename onto.
        target.write_bytes(content)
        return
    # A link stays a link: its target is replaced.
    target = Path(os.path.realpath(target))
    beside = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    try:
        with beside.open("xb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
