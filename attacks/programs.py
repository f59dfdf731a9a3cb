"""Files of torch.export that would run code, allocate, or lie, if they were loaded as usual.

They are made around one small program, which ``penjing.wrap`` reads.  Code in them tries to
create a file called ``executed``.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import TYPE_CHECKING

from attacks.building import Attack
from attacks.exported import CODE, LEAF, MARK, Program, arguments, payload, pickled, size, spec

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS: dict[str, Attack] = {}
UNUSED: dict[str, Attack] = {}
"""Files with code in places that are never looked at: they are read, and nothing is run."""


def program(
    met_by: str, table: dict[str, Attack] = PROGRAMS
) -> Callable[[Callable[[Program], None]], Callable[[Program], None]]:
    """Add a file that is the small program after a change."""

    def add(change: Callable[[Program], None]) -> Callable[[Program], None]:
        def build() -> bytes:
            made = Program()
            change(made)
            return made.build()

        table[change.__name__] = Attack(build, met_by)
        return change

    return add


def file(met_by: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Add a file that is made as a whole."""

    def add(build: Callable[[], bytes]) -> Callable[[], bytes]:
        PROGRAMS[build.__name__] = Attack(build, met_by)
        return build

    return add


def entry(name: str, path: str, content: bytes, met_by: str = "is not accepted") -> None:
    def build() -> bytes:
        made = Program()
        made.entries[path] = content
        return made.build()

    PROGRAMS[f"program_{name}"] = Attack(build, met_by)


entry("old_weights", "p/data/weights/model.pt", pickled())
entry("custom_object", "p/data/constants/custom_obj_0", pickled())
entry("opaque_object", "p/data/constants/opaque_obj_0", pickled())
entry("second_model", "p/models/other.json", b"{}")
entry("compiled_library", "p/data/aotinductor/model/model.so", b"\x7fELF")
entry("source_of_library", "p/data/aotinductor/model/model.cpp", b"int main() {}")
entry("library_beside", "p/extra/model.so", b"\x7fELF")
entry("going_up", "p/../../executed", b"", "is not accepted")
entry("other_folder", "q/data/weights/weight_1", b"", "lies outside the folder")
entry("absolute", "/executed", b"", "lies outside the folder")
entry("byte_order", "p/byteorder", b"big", "does not say 'little'")
entry("version", "p/archive_version", b"1", "does not say '0'")


def expression(name: str, text: str) -> None:
    def build() -> bytes:
        made = Program()
        made.size(text)
        return made.build()

    PROGRAMS[f"program_size_{name}"] = Attack(build, "is no arithmetic of sizes")


expression("imports", f"__import__('os').system('touch {MARK}')")
expression("runs", CODE)
expression("hides", f"Max(Integer(1), {CODE})")
expression("climbs", "().__class__.__base__.__subclasses__()")
expression("names", f"Symbol('s0', integer={CODE})")
expression("indexes", f"Symbol([{CODE}][0])")
expression("comprehends", f"[{CODE} for s0 in (1,)]")
expression("defines", f"(lambda: {CODE})()")
expression("formats", f"f'{{{CODE}}}'")
expression("assigns", f"(s0 := {CODE})")
expression("multiplies", "9**9**9**9")
expression("raises", "Pow(Integer(9), Integer(999999999))")
expression("nests", "-" * 7000 + "s0")
expression("goes_on", "s0 + " * 5000 + "s0")
expression("shifts", "LShift(Integer(1), Integer(99999999999))")


def target(name: str, text: str) -> None:
    def build() -> bytes:
        made = Program()
        made.graph["nodes"][0]["target"] = text
        return made.build()

    PROGRAMS[f"program_calls_{name}"] = Attack(build, "is not one of PyTorch's operators")


target("load", "torch.load")
target("hub", "torch.hub.load")
target("system", "torch.os.system")
target("methods", "_operator.methodcaller")
target("attributes", "_operator.attrgetter.__class__")
target("files", "torch.ops.aten.from_file.default")
target("saving", "torch.ops.aten.save.default")
target("libraries", "torch.ops.load_library")
target("classes", "torch.ops.aten.__class__.mro")
target("inner", "torch.ops.aten.mul.__class__")
target("others", "torch.ops.mylib.mul.default")
target("extension", "#mine:mul")
target("kernels", "torch.ops.higher_order.triton_kernel_wrapper_functional")


@program("is pickled")
def program_pickled_weight(made: Program) -> None:
    made.entries["p/data/weights/weight_0"] = pickled()
    made.weights["w"]["use_pickle"] = True


@program("is no name of a value")
def program_code_in_a_name(made: Program) -> None:
    name = f"x):\n    {CODE}\ndef other(y"
    made.model = json.loads(json.dumps(made.model).replace('"x"', json.dumps(name)))


@program("is no name of a value")
def program_code_in_an_argument(made: Program) -> None:
    made.call["forward_arg_names"] = [f"x={CODE}"]


@program("is no name of a value")
def program_code_in_a_key(made: Program) -> None:
    made.call["out_spec"] = json.dumps([1, spec("builtins.dict", json.dumps([CODE]), LEAF)])


@program("is no name of a parameter")
def program_class_for_a_parameter(made: Program) -> None:
    made.model["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = (
        "__class__.w"
    )


@program("is no setting of an operator")
def program_code_in_a_constant(made: Program) -> None:
    text = f"' or {CODE} or '"
    made.graph["inputs"].append({"as_string": text})


@program("which is not read from files")
def program_text_for_an_input(made: Program) -> None:
    made.model["graph_module"]["signature"]["input_specs"].append(
        {"constant_input": {"name": "y", "value": {"as_string": CODE}}}
    )


@program("which is not read from files")
def program_operator_as_argument(made: Program) -> None:
    made.graph["nodes"][0]["inputs"][1]["arg"] = {"as_operator": "torch.load"}


@program("which is not read from files")
def program_object_as_argument(made: Program) -> None:
    made.graph["nodes"][0]["inputs"][1]["arg"] = {
        "as_custom_obj": {"name": "a", "class_fqn": "b"}
    }


@program("is no name of a value|the keys of its inputs")
def program_imports_an_enumeration(made: Program) -> None:
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:a", "name": "b"}])
    made.call["in_spec"] = arguments(spec("builtins.dict", context, LEAF))


@program("nested in 'collections.defaultdict'")
def program_imports_a_default(made: Program) -> None:
    context = {
        "default_factory_module": "antigravity",
        "default_factory_name": "a",
        "dict_context": ["b"],
    }
    made.call["in_spec"] = arguments(
        {**spec("collections.defaultdict", None, LEAF), "context": context}
    )


@program("nested in 'builtins.tuple'")
def program_nests_forever(made: Program) -> None:
    inner = LEAF
    for _ in range(200):
        inner = spec("builtins.tuple", "null", inner)
    made.call["in_spec"] = arguments(inner)


@program("is none of ATEN, TRAINING")
def program_unknown_dialect(made: Program) -> None:
    made.model["verifiers"] = ["MINE"]


@program("is no arithmetic of sizes")
def program_counts_to_the_end(made: Program) -> None:
    made.model["range_constraints"] = {"u999999999999": {"min_val": 0, "max_val": None}}


@program("graph_module is|nodes is")
def program_of_other_types(made: Program) -> None:
    made.graph["nodes"] = "torch.load"


@program("cannot be put together: Parameter v")
def program_contradicts_itself(made: Program) -> None:
    made.model["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = (
        "v"
    )


@program("does not fit its bytes")
def program_weight_of_terabytes(made: Program) -> None:
    made.weights["w"] = payload("weight_0", [1 << 40], stride=0)


@program("does not fit its bytes")
def program_weight_past_the_end(made: Program) -> None:
    made.weights["w"]["tensor_meta"]["storage_offset"] = size(1)


@program("too many times")
def program_one_weight_a_thousand_times(made: Program) -> None:
    made.weights |= {f"w{index}": payload("weight_0", [4]) for index in range(1000)}


@program("entry 'data/weights/weight_7' is missing")
def program_weight_elsewhere(made: Program) -> None:
    made.weights["w"]["path_name"] = "weight_7"


@program("is pickled, or is no tensor")
def program_weight_outside(made: Program) -> None:
    made.weights["w"]["path_name"] = "other.weight_0"


@file("is compressed or encrypted")
def program_zip_bomb() -> bytes:
    made = Program()
    made.entries["p/data/weights/weight_0"] = bytes(32 << 20)
    return made.build(zipfile.ZIP_DEFLATED)


@file("claim more bytes than the file has")
def program_declares_gigabytes() -> bytes:
    data = bytearray(Program().build())
    listed = data.rindex(b"p/data/weights/weight_0") - 46
    data[listed + 20 : listed + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    return bytes(data)


@file("claims a size that it does not have")
def program_sizes_disagree() -> bytes:
    data = bytearray(Program().build())
    listed = data.rindex(b"p/data/weights/weight_0") - 46
    data[listed + 24 : listed + 28] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(data)


@file("is no JSON")
def program_json_nests_forever() -> bytes:
    made = Program()
    made.entries["p/models/model.json"] = b"[" * 200_000
    return made.build()


@file("damaged")
def program_cut_off() -> bytes:
    data = Program().build()
    return data[: len(data) // 2]


@file("damaged")
def program_of_other_bytes() -> bytes:
    return pickled()


@file("damaged")
def program_of_nothing() -> bytes:
    return b""


@file("is not accepted")
def program_of_another_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("word/document.xml", b"<?xml?>")
    return made.getvalue()


@file("is not accepted")
def program_saved_by_torch_save() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("model/data.pkl", pickled())
        archive.writestr("model/byteorder", b"little")
        archive.writestr("model/data/0", bytes(16))
    return made.getvalue()


@file("is missing")
def program_of_an_empty_zip() -> bytes:
    made = io.BytesIO()
    zipfile.ZipFile(made, "w").close()
    return made.getvalue()


@program("", UNUSED)
def program_pickled_inputs(made: Program) -> None:
    made.entries["p/data/sample_inputs/model.pt"] = pickled()


@program("", UNUSED)
def program_code_in_guards(made: Program) -> None:
    made.model["guards_code"] = [CODE, f"L['x'].size()[0] == {CODE}"]


@program("", UNUSED)
def program_code_in_notes(made: Program) -> None:
    made.graph["nodes"][0]["metadata"] = {
        "stack_trace": f'File "a", line 1\n{CODE}\n',
        "source_fn_stack": f"mul,torch.{CODE}",
        "custom": "[" * 100_000,
    }
    made.model["graph_module"]["metadata"] = {"custom": CODE}
    made.model["torch_version"] = f"\n{CODE}"


@program("", UNUSED)
def program_exported_elsewhere(made: Program) -> None:
    made.weights["w"]["tensor_meta"]["device"] = {"type": "cuda", "index": 3}
    for each in made.graph["tensor_values"].values():
        each["device"] = {"type": "cuda", "index": 3}
