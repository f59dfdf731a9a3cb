"""``penjing inspect``: header, ledger and sections of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penjing.cli.screen import printable, size, table

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.cli.screen import Screen


def show(screen: Screen, file: Path) -> None:
    """Show everything about a file; arrays are decoded to count their zeros.

    Raises:
        ModelError: there is no such file.
        FormatError: it is damaged, hostile or newer.
    """
    from dataclasses import asdict

    from penjing import api
    from penjing.artifact import inspection

    artifact = api.open_artifact(str(file))
    ledger = artifact.ledger()
    sections = inspection.sections(str(file))
    header = dict(artifact.header)
    screen.json(
        {
            "file": str(file),
            "bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
            "header": header,
            "ledger": ledger,
            "sections": [asdict(section) for section in sections],
        }
    )
    if not screen.talks:
        return
    screen.out.print(printable(f"{file}: {size(artifact.size_bytes)}"), soft_wrap=True)
    screen.out.print(f"sha256 {artifact.sha256}\n", soft_wrap=True)
    screen.out.print(printable(_as_yaml(_labelled(header))), soft_wrap=True)
    screen.out.print(_ledger(ledger))
    screen.out.print()
    rows = table("section", "offset", "bytes", "sha256", right=("offset", "bytes"))
    for section in sections:
        rows.add_row(
            section.name, str(section.offset), str(section.size_bytes), section.sha256[:16]
        )
    screen.out.print(rows)


def _labelled(header: dict[str, Any]) -> dict[str, Any]:
    """Call the hash of a part of the data what it is: that of the whole source."""
    parts = header.get("data")
    if not isinstance(parts, dict):
        return header
    named = {
        part: {
            "source digest" if key == "sha256" else key: entry for key, entry in said.items()
        }
        if isinstance(said, dict)
        else said
        for part, said in parts.items()
    }
    return {**header, "data": named}


def _as_yaml(header: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=88)
    return text


def _ledger(ledger: list[dict[str, Any]]) -> Any:
    rows = table(
        *("array", "shape", "encoding", "coder", "bytes", "bits", "zeros"),
        right=("bytes", "bits", "zeros"),
    )
    for entry in ledger:
        if "shape" in entry:
            rows.add_row(
                printable(entry["name"]),
                "x".join(map(str, entry["shape"])) or "one number",
                printable(entry["encoding"]),
                printable(entry["coder"]),
                str(entry["bytes"]),
                f"{entry['bits_per_weight']:.2f}",
                f"{100 * entry['zeros']:.0f}%",
            )
        else:
            rows.add_row(entry["name"], "", "", "", str(entry["bytes"]), "", "")
    rows.add_row("total", "", "", "", str(sum(entry["bytes"] for entry in ledger)), "", "")
    return rows
