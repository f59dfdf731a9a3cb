"""The single file ``.penjing``: graph, coded tensors, recipe and evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.artifact import container, graph, text
from penjing.artifact.container import Kind
from penjing.artifact.header import from_json, to_json
from penjing.artifact.limits import Limits
from penjing.core.errors import FormatError
from penjing.core.files import read_file, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.artifact.encodings import Plan
    from penjing.artifact.graph import Tables
    from penjing.core.template import Template
    from penjing.core.tensors import Array, Tensor

DEFAULT_LIMITS = Limits()
_LARGE = 4096
"""Elements from which decoding an array is worth handing it to another thread."""
_THREADS = 2
"""Coders release the interpreter lock; more threads would fight over memory."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """A compressed model with its evidence.  Immutable."""

    template: Template
    tensors: Mapping[str, Tensor]
    """One for each name of a slot.  Of a loaded file: decoded when first asked for."""
    header: Mapping[str, Any]
    """Anything JSON can hold: recipe, evidence, description of the model."""
    coder: str | None = None
    """Name of the one coder to use wherever it can be; None keeps the smallest of all."""

    def to_bytes(self) -> bytes:
        """Write the file; the same artifact always gives the same bytes.

        Raises:
            UnsupportedError: A tensor cannot be expressed in this format.
            ConfigError: The header is not JSON, or the coder is unknown.
        """
        return self._stored.data

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Artifact:
        """Read a file: all hashes and tables are checked, arrays are decoded when needed.

        Raises:
            FormatError: This is no ``.penjing`` file, or it is damaged, hostile or newer.
        """
        stored = _Stored.read(bytes(data), limits)
        tensors = _Lazy({name: entry.plan for name, entry in stored.tables.entries.items()})
        made = cls(stored.tables.template, tensors, stored.header)
        made.__dict__.update(_stored=stored, _body=stored.body)
        return made

    @classmethod
    def load(cls, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Artifact:
        """Read a file from disk.

        Raises:
            ModelError: There is no such file, or it cannot be read.
            FormatError: This is no ``.penjing`` file, or it is damaged, hostile or newer.
        """
        data = read_file(path, limits.file)
        try:
            return cls.from_bytes(data, limits)
        except FormatError as error:
            where = f"{path}: {error.where}"
            raise FormatError(where, error.problem, error.hint) from error

    def save(self, path: str | Path) -> None:
        """Write the file to disk, whole or not at all; an old file stays until the end.

        Raises:
            OutputError: It cannot be written there.
        """
        write_file(path, self.to_bytes())

    def with_header(self, header: Mapping[str, Any]) -> Artifact:
        """Return the same model with another header; nothing is coded again."""
        made = replace(self, header=header)
        made.__dict__["_body"] = self._body
        return made

    def arrays(self) -> dict[str, Array]:
        """Decode every tensor to a plain array of its slot's element type.

        Raises:
            FormatError: A tensor is damaged.
        """
        kinds = {slot.name: np.dtype(slot.dtype) for slot in self.template.slots}

        def dense(name: str) -> Array:
            with np.errstate(all="ignore"):  # a model may hold NaN; the numbers are not ours
                return self.tensors[name].dense().astype(kinds[name], copy=False)

        sizes = {slot.name: prod(slot.shape) for slot in self.template.slots}
        large = sorted((n for n in kinds if sizes[n] >= _LARGE), key=lambda n: -sizes[n])
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting = {name: pool.submit(dense, name) for name in large}
            found = {name: dense(name) for name in kinds if name not in waiting}
            found.update((name, future.result()) for name, future in waiting.items())
        return {name: found[name] for name in kinds}

    def onnx_bytes(self) -> bytes:
        """Give the plain ONNX model, every tensor decoded.

        Raises:
            FormatError: A tensor is damaged.
        """
        return self.template.fill(self.arrays())

    def __repr__(self) -> str:
        """Show the size and the number of tensors."""
        count = len(self.template.slots)
        return f"<Artifact: {self.size_bytes:,} bytes, {count} tensors>"

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return len(self.to_bytes())

    @property
    def sha256(self) -> str:
        """Hash of the file, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def ledger(self) -> list[dict[str, Any]]:
        """Account for every byte of the file; ``bytes`` adds up to its size exactly.

        A row for each tensor has ``name, shape, encoding, coder, bytes, original_bytes,
        bits_per_weight, zeros``: the bytes are its coded arrays and its share of the compressed
        tables; zeros is the share of zeros in the decoded weight, 0 to 1.  The rows ``graph``,
        ``header`` and ``container`` have only a ``name`` in angle brackets, ``bytes`` and
        ``original_bytes``.
        """
        stored = self._stored
        entries = stored.tables.entries
        original = dict.fromkeys(entries, 0)
        for slot in self.template.slots:
            original[slot.name] += slot.size_bytes
        sizes = {section.name: section.size_bytes for section in stored.sections}
        arrays = self.arrays()
        rows: list[dict[str, Any]] = []
        for name, entry in entries.items():
            share = sizes["graph"] * entry.table_bytes // max(1, len(stored.body.text))
            stored_bytes = entry.weight_bytes + share
            rows.append(
                {
                    "name": name,
                    "shape": list(entry.plan.shape),
                    "encoding": entry.plan.describe(),
                    "coder": _coders(entry.plan),
                    "bytes": stored_bytes,
                    "original_bytes": original[name],
                    "bits_per_weight": 8 * stored_bytes / max(1, prod(entry.plan.shape)),
                    "zeros": _zeros(arrays[name]),
                }
            )
        in_rows = sum(row["bytes"] for row in rows)
        rest = {
            "<graph>": (
                sizes["graph"] + sizes["weights"] - in_rows,
                len(self.template.skeleton),
            ),
            "<header>": (sizes["header"], 0),
        }
        others = stored.size - in_rows - sum(size for size, _ in rest.values())
        rest["<container>"] = (others, 0)
        return rows + [
            {"name": name, "bytes": size, "original_bytes": before}
            for name, (size, before) in rest.items()
        ]

    @cached_property
    def _body(self) -> graph.Body:
        return graph.write(self.template, self.tensors, self.coder)

    @cached_property
    def _stored(self) -> _Stored:
        body = self._body
        chunks = {
            Kind.HEADER: text.compress(to_json(self.header)),
            Kind.GRAPH: text.compress(body.text),
            Kind.WEIGHTS: body.weights,
        }
        # Read back what was written: a file that a reader would refuse is not a result.
        return _Stored.read(container.pack(chunks), DEFAULT_LIMITS)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A whole file, taken apart and checked."""

    data: bytes
    header: dict[str, Any]
    body: graph.Body
    tables: Tables
    sections: list[container.Section]

    @property
    def size(self) -> int:
        return len(self.data)

    @classmethod
    def read(cls, data: bytes, limits: Limits) -> _Stored:
        chunks = container.unpack(data, limits)
        header = _text(chunks[Kind.HEADER], "header", limits.header, limits)
        body_text = _text(chunks[Kind.GRAPH], "graph", limits.graph, limits)
        weights = chunks[Kind.WEIGHTS]
        tables = graph.read(body_text, weights, limits, len(data))
        body = graph.Body(body_text, bytes(weights))
        return cls(data, from_json(header), body, tables, container.sections(data))


def _text(chunk: memoryview, where: str, most: int, limits: Limits) -> bytes:
    limits.check_text(where, text.declared_size(chunk, where), len(chunk), most)
    return text.decompress(chunk, where)


class _Lazy(Mapping[str, "Tensor"]):
    """Tensors decoded when first asked for."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans
        self._decoded: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._decoded:
            try:
                with np.errstate(all="ignore"):
                    self._decoded[name] = self._plans[name].build()
            except FormatError as error:
                raise FormatError(f"tensor {name!r}", error.problem, error.hint) from None
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plans)

    def __len__(self) -> int:
        return len(self._plans)


def _coders(plan: Plan) -> str:
    """Name the coder of the largest array."""
    largest = max(plan.leaves(), key=lambda leaf: len(leaf.payload))
    return largest.coder_name


def _zeros(array: Array) -> float:
    return float(1 - np.count_nonzero(array) / array.size) if array.size else 0.0
