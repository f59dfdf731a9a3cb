"""One small exported program, ``x * w``, as a ``.pt2`` file whose parts can be changed."""

from __future__ import annotations

import copy
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

MARK = "executed"
CODE = f"__import__('pathlib').Path({MARK!r}).touch()"
FLOAT = 7
STRIDED = 7


class Payload:
    def __reduce__(self) -> Any:
        return Path.touch, (Path(MARK),)


def pickled() -> bytes:
    return pickle.dumps(Payload())


class Program:
    """The parts of a file, to be changed."""

    def __init__(self) -> None:
        self.model = copy.deepcopy(MODEL)
        self.weights = {"w": payload("weight_0", [4])}
        self.entries: dict[str, bytes] = {
            "p/data/weights/weight_0": struct.pack("<4f", 1, 2, 3, 4),
            "p/data/constants/model_constants_config.json": b'{"config": {}}',
            "p/archive_format": b"pt2",
            "p/archive_version": b"0",
            "p/byteorder": b"little",
        }

    @property
    def graph(self) -> Any:
        return self.model["graph_module"]["graph"]

    @property
    def call(self) -> Any:
        return self.model["graph_module"]["module_call_graph"][0]["signature"]

    def size(self, expression: str) -> None:
        """Put an expression where the number of samples stands."""
        self.graph["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = expression

    def build(self, compression: int = zipfile.ZIP_STORED) -> bytes:
        made = io.BytesIO()
        entries = {
            "p/models/model.json": json.dumps(self.model).encode(),
            "p/data/weights/model_weights_config.json": json.dumps(
                {"config": self.weights}
            ).encode(),
        }
        with zipfile.ZipFile(made, "w", compression) as archive:
            for name, content in (entries | self.entries).items():
                archive.writestr(zipfile.ZipInfo(name), content, compression)
        return made.getvalue()


def spec(kind: str | None, context: str | None, *children: Any) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": list(children)}


LEAF = spec(None, None)


def arguments(leaf: Any = LEAF) -> str:
    """Describe how the program is called: with one argument."""
    pair = spec("builtins.tuple", "null", leaf), spec("builtins.dict", "[]")
    return json.dumps([1, spec("builtins.tuple", "null", *pair)])


def size(value: int | str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"as_expr": {"expr_str": value, "hint": {"as_int": 2}}}
    return {"as_int": value}


def meta(*sizes: int | str, strides: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "dtype": FLOAT,
        "sizes": [size(each) for each in sizes],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [size(each) for each in strides],
        "storage_offset": size(0),
        "layout": STRIDED,
    }


def payload(path: str, sizes: list[int], stride: int = 1) -> dict[str, Any]:
    tensor = meta(*sizes, strides=(stride,) * len(sizes))
    return {"path_name": path, "is_param": True, "use_pickle": False, "tensor_meta": tensor}


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


BATCH = "Symbol('s0', positive=True, integer=True)"
MODEL: dict[str, Any] = {
    "graph_module": {
        "graph": {
            "inputs": [tensor("p_w"), tensor("x")],
            "outputs": [tensor("mul")],
            "nodes": [
                {
                    "target": "torch.ops.aten.mul.Tensor",
                    "inputs": [
                        {"name": "self", "arg": tensor("x"), "kind": 1},
                        {"name": "other", "arg": tensor("p_w"), "kind": 1},
                    ],
                    "outputs": [tensor("mul")],
                    "metadata": {},
                    "name": "mul",
                }
            ],
            "tensor_values": {
                "p_w": meta(4, strides=(1,)),
                "x": meta(BATCH, 4, strides=(4, 1)),
                "mul": meta(BATCH, 4, strides=(4, 1)),
            },
            "sym_int_values": {},
            "sym_bool_values": {},
        },
        "signature": {
            "input_specs": [
                {"parameter": {"arg": {"name": "p_w"}, "parameter_name": "w"}},
                {"user_input": {"arg": tensor("x")}},
            ],
            "output_specs": [{"user_output": {"arg": tensor("mul")}}],
        },
        "module_call_graph": [
            {
                "fqn": "",
                "signature": {
                    "inputs": [],
                    "outputs": [],
                    "in_spec": arguments(),
                    "out_spec": json.dumps([1, LEAF]),
                    "forward_arg_names": ["x"],
                },
            }
        ],
        "metadata": {},
    },
    "opset_version": {"aten": 10},
    "range_constraints": {"s0": {"min_val": 0, "max_val": None}},
    "schema_version": {"major": 8, "minor": 1},
    "verifiers": ["TRAINING"],
    "torch_version": "2.13.0",
    "guards_code": [],
}
