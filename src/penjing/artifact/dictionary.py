"""The dictionary that header and graph are compressed against.  Part of the format version.

It is text a reader can check by eye, written out by ``build`` and pinned by its hash: the
usual keys of a header, the names that occur in ONNX graphs, and common nodes as they are
serialized.  What is most often needed stands last, where it is cheapest to refer to.
"""

from __future__ import annotations

import hashlib
import struct
from functools import cache

from penjing.artifact.binary import varint

SHA256 = "7c19de063fd1e82f042cfe75d1fab3e52a356e56032173b4c2866c85a32834f3"

_KEYS = """
"agreement","accuracy","f1","auc","mse","mae","rmse","r2","log_loss","top5",
{"only":"*","sparsity":0.5,"scope":"layer","use":"magnitude_pruning"},
{"keep":2,"only":"*","out_of":4,"use":"nm_sparsity"},
{"bits":4,"only":"*","start":"linear","use":"weight_clustering"},
{"form":"float16","only":"*","use":"cast_precision"},"bfloat16",
{"energy":0.95,"only":"*","rank":0,"use":"low_rank"},
{"energy":0.95,"only":"*","sweeps":3,"use":"tucker"},
{"bits":4,"damping":0.01,"only":"*","use":"gptq"},"per_weight","asymmetric",
{"bits":8,"clipping":"mse","granularity":"per_channel","grid":"symmetric","only":"*",
"use":"round_to_nearest"},{"damping":0.01,"descents":4,"only":"*","probe_at":0.0,
"rate_term":true,"sequential":true,"step_ratio":2.0,"trade_off":1e-06,"use":"rate_distortion"}
"context_arithmetic","rans","huffman","float_split","zstd","raw"
"betting on paired scores","paired bootstrap (BCa)","missed","undecided","not certified",
"over the limit","dominated","candidates":[{"label":"","size_bytes":100000,"status":"chosen"}],
"latency_ms":{"high":0.1,"low":0.1,"unit":"ms","value":0.1},"warnings":[],"splits":
"layers":[{"bits_per_weight":1.5,"damage":0.1,"name":"weight","zeros":0.5}],"offers":[
"certificate":{"approximate":false,"chosen":0,"confidence":0.95,"limit":0.005,
"tested":[{"drop":{"high":0.004,"low":-0.001,"unit":"","value":0.001},"label":"",
"p_value":0.01,"samples":5000,"samples_needed":null,"verdict":"met"}]},"ratio":20.0,
{"budget":{"max_drop":0.005,"max_size_bytes":100000},"data":{"calibration":{"rows":1024,
"sha256":"},"certification":{"rows":5000,"sha256":"0123456789abcdef"},"search":{"rows":10000,
"sha256":"},"evidence":{"confidence":0.95,"method":"exact paired test","metric":{
"compressed":0.99,"drop":0.001,"name":"accuracy","original":0.99,"samples":5000},"tests":1,
"upper":0.004,"verdict":"met"},"made_by":"penjing 0.1.0","model":"model.onnx",
"original_bytes":1000000,"recipe":{"seed":0,"steps":[{"only":"*","use":"bits"}]},"seed":0}
"""

_OPERATORS = """
Abs Acos And ArgMax ArgMin ArrayFeatureExtractor Atan Attention BitShift Ceil Compress
ConvInteger Cos CumSum DepthToSpace DequantizeLinear Dropout DynamicQuantizeLinear Einsum Elu
EyeLike FeatureVectorizer Floor GatherElements GatherND GlobalMaxPool GreaterOrEqual
GroupNormalization GridSample HardSigmoid HardSwish If Imputer InstanceNormalization IsNaN LRN
LeakyRelu Less LessOrEqual LinearClassifier LinearRegressor LogSoftmax Loop LpNormalization
MatMulInteger Max MeanVarianceNormalization Min Mish Mod Neg NonMaxSuppression NonZero Not
OneHot OneHotEncoder Or QLinearConv QuantizeLinear RandomNormalLike Range Reciprocal ReduceL2
ReduceMax ReduceProd ReduceSum Resize ReverseSequence RoiAlign Round SVMClassifier
SVMRegressor Scaler Scan ScatterElements ScatterND Selu Sign Sin Size Softplus Softsign
SpaceToDepth SplitToSequence StringNormalizer Sum TfIdfVectorizer Tile TopK
TreeEnsembleClassifier TreeEnsembleRegressor Upsample Xor ZipMap aten_::prim com.microsoft
ai.onnx.ml LabelEncoder Normalizer
"""

_NAMES = """
keras tf2onnx skl2onnx onnx-ml
StatefulPartitionedCall/sequential/dense/MatMul/ReadVariableOp:0 /Const_1:0 /Reshape__12:0
_quantized _zero_point _scale label output_label probabilities output_probability variable
float_input classes_ keys_strings values_int64s cats_int64s coefficients intercepts
multi_class post_transform SOFTMAX LOGISTIC NONE classlabels_int64s nodes_falsenodeids
nodes_featureids nodes_hitrates nodes_missing_value_tracks_true nodes_modes BRANCH_LEQ LEAF
nodes_nodeids nodes_treeids nodes_truenodeids nodes_values class_ids class_nodeids
class_treeids class_weights target_weights n_targets offset scale mul_result add_result
encoder.layers.0.self_attn.q_proj.k_proj.v_proj.out_proj.weight mlp.fc1.weight mlp.fc2.bias
embeddings.word_embeddings.weight attention.self.query.bias LayerNorm.weight lstm.weight_ih_l0
weight_hh_l0 bias_ih_l0 bias_hh_l0 input_ids attention_mask token_type_ids last_hidden_state
running_mean running_var num_batches_tracked downsample.0.weight features.0.0.weight
classifier.1.weight backbone. stem. blocks.0. conv2d dense_1 batch_normalization kernel bias
onnx::Conv_123 onnx::MatMul_45 /layer1/layer1.0/conv1/Conv_output_0 /Relu_output_0
/Add_output_0
"""

_ATTRIBUTES = (
    ("direction", b"forward"), ("direction", b"bidirectional"), ("hidden_size", 128),
    ("mode", b"nearest"), ("mode", b"constant"),
    ("coordinate_transformation_mode", b"asymmetric"),
    ("nearest_mode", b"floor"), ("cubic_coeff_a", -0.75), ("approximate", b"none"),
    ("count_include_pad", 0), ("output_padding", (0, 0)), ("output_shape", (0, 0)),
    ("momentum", 0.9), ("training_mode", 0), ("epsilon", 1e-5), ("keepdims", 1),
    ("noop_with_empty_axes", 0), ("select_last_index", 0), ("exclusive", 0), ("num_outputs", 2),
    ("axes", (2, 3)), ("starts", (0,)), ("ends", (1,)), ("perm", (0, 2, 1)),
    ("perm", (0, 2, 3, 1)), ("perm", (0, 3, 1, 2)), ("axis", 1), ("axis", -1), ("start", 0),
    ("to", 7), ("to", 1),
)  # fmt: skip

_NODES: tuple[tuple[str, tuple[str, ...], str, tuple[tuple[str, object], ...]], ...] = (
    ("ConstantOfShape", ("val_1",), "expand_1", ()),
    ("Constant", (), "val_3", (("value_int", 1),)),
    ("LSTM", ("x", "W", "R", "B"), "Y", (("hidden_size", 64),)),
    ("GRU", ("x", "W", "R", "B"), "Y_h", (("linear_before_reset", 1),)),
    ("Identity", ("x",), "y", ()), ("Where", ("eq",), "where", ()),
    ("Erf", ("div",), "erf", ()),
    ("Equal", ("val_2",), "eq", ()), ("Exp", ("sub",), "exp", ()),
    ("Log", ("sum",), "log", ()), ("Sqrt", ("add",), "sqrt", ()),
    ("Pow", ("sub",), "pow_1", ()), ("Gelu", ("x",), "gelu", ()),
    ("Expand", ("x",), "expand", ()), ("Split", ("x",), "split", (("axis", 1),)),
    ("Shape", ("x",), "val_0", (("start", 0),)), ("Squeeze", ("x",), "squeeze", ()),
    ("Unsqueeze", ("x",), "unsqueeze", ()), ("Slice", ("x", "val_2"), "slice_1", ()),
    ("Pad", ("x", "val_3"), "pad", (("mode", b"constant"),)), ("Clip", ("x",), "clamp", ()),
    ("LayerNormalization", ("x",), "layer_norm", (("axis", -1), ("epsilon", 1e-5))),
    ("BatchNormalization", ("conv2d",), "getitem", (("epsilon", 1e-5), ("momentum", 0.9))),
    ("Softmax", ("linear",), "softmax", (("axis", -1),)), ("Tanh", ("x",), "tanh", ()),
    ("Sigmoid", ("x",), "sigmoid", ()), ("Mul", ("x", "sigmoid"), "mul", ()),
    ("Gather", ("embed.weight", "input_ids"), "embedding", (("axis", 0),)),
    ("Transpose", ("x",), "permute", (("perm", (0, 2, 1)),)),
    ("Concat", ("x", "y"), "cat", (("axis", 1),)), ("MatMul", ("x", "val_4"), "matmul", ()),
    ("AveragePool", ("relu",), "avg_pool2d", (("count_include_pad", 1), ("ceil_mode", 0))),
    (
        "ConvTranspose", ("relu", "up.weight"), "conv_transpose2d",
        (("output_padding", (0, 0)),),
    ),
    ("GlobalAveragePool", ("relu",), "mean", ()),
    ("Flatten", ("mean",), "flatten", (("axis", 1),)),
    (
        "ReduceMean", ("relu_8", "val_9"), "mean",
        (("noop_with_empty_axes", 0), ("keepdims", 1)),
    ),
    ("Cast", ("image",), "_to_copy", (("to", 1),)), ("Div", ("x", "std"), "div", ()),
    ("Sub", ("div", "mean"), "sub", ()),
    ("Reshape", ("x", "val_8"), "view", (("allowzero", 1),)),
    (
        "Gemm", ("view", "fc1.weight", "fc1.bias"), "linear",
        (("beta", 1.0), ("transB", 1), ("alpha", 1.0), ("transA", 0)),
    ),
    (
        "MaxPool", ("relu",), "max_pool2d",
        (
            ("storage_order", 0), ("dilations", (1, 1)), ("ceil_mode", 0),
            ("pads", (0, 0, 0, 0)), ("auto_pad", b"NOTSET"), ("strides", (2, 2)),
            ("kernel_shape", (2, 2)),
        ),
    ),
    ("Add", ("conv2d_2", "relu"), "add_2", ()), ("Relu", ("add_2",), "relu_2", ()),
    (
        "Conv", ("relu_2", "layer1.0.conv1.weight", "layer1.0.conv1.bias"), "conv2d_3",
        (
            ("group", 1), ("pads", (1, 1, 1, 1)), ("auto_pad", b"NOTSET"), ("strides", (1, 1)),
            ("dilations", (1, 1)), ("kernel_shape", (3, 3)),
        ),
    ),
)  # fmt: skip

_RECORDS = bytes.fromhex(
    "0201 0201 000a04 000500 0200 0101 000a02 000500 0200 0201 000a04 000500"
    "0200 0001 01 000a04 000500 0201 0101 000a04 000500 0200 0101 000a04 000500"
)
"""Records of the tensor table: affine weights with one step or one per output."""

_FLOAT, _INT, _STRING, _INTS = 1, 2, 3, 7
"""``AttributeProto.AttributeType``."""


@cache
def build() -> bytes:
    """Give the dictionary; the same bytes on every machine."""
    words = f"{_OPERATORS} {_NAMES}".replace("\n", " ").encode()
    lists = b"".join(_node("", (), "", ((name, value),)) for name, value in _ATTRIBUTES)
    nodes = b"".join(_node(*node) for node in _NODES)
    keys = _KEYS.replace("\n", "").encode()
    content = b"".join([words, lists, keys, nodes, _edges()])
    assert hashlib.sha256(content).hexdigest() == SHA256, "the dictionary is pinned"
    return content


def _edges() -> bytes:
    """Begin and end of typical files: producer, first initializers, inputs and outputs."""
    producers = (b"skl2onnx", b"tf2onnx", b"pytorch")
    head = b"".join(_number(1, 8) + _field(2, name) for name in producers)
    head += _field(3, b"2.5.1") + b":"
    names = ("val_0", "mean", "std", "fc1.bias", "fc1.weight", "layer1.0.conv1.bias")
    shapes = ((2,), (1, 3, 1, 1), (1, 3, 1, 1), (512,), (512, 784), (16,))
    tensors = [
        _field(
            5, b"".join(_number(1, d) for d in shape) + _number(2, 1) + _field(8, name.encode())
        )
        for name, shape in zip(names, shapes, strict=True)
    ]
    last = b"".join(_number(1, d) for d in (64, 64, 3, 3)) + _number(2, 1)
    tensors.append(_field(5, last + _field(8, b"layer1.0.conv2.weight") + b"J\x80\x90\x09"))
    graph_name = _field(2, b"torch_jit") + _field(2, b"main_graph")
    inputs = [_port(11, name, 1, (None, 1, 28, 28)) for name in ("x", "input", "image")]
    outputs = [
        _port(12, name, 1, (None, 10)) for name in ("y", "probabilities", "output", "logits")
    ]
    opset = _field(8, _field(1, b"ai.onnx.ml") + _number(2, 3))
    opset += b"".join(_field(8, _field(1, b"") + _number(2, v)) for v in (13, 15, 17, 18, 20))
    return b"".join([head, graph_name, *tensors, *inputs, *outputs, opset, _RECORDS])


def _port(number: int, name: str, kind: int, shape: tuple[int | None, ...]) -> bytes:
    dims = b"".join(
        _field(1, _field(2, b"batch") if size is None else _number(1, size)) for size in shape
    )
    kind_and_shape = _field(1, _number(1, kind) + _field(2, dims))
    return _field(number, _field(1, name.encode()) + _field(2, kind_and_shape))


def _node(
    operator: str,
    inputs: tuple[str, ...],
    output: str,
    attributes: tuple[tuple[str, object], ...],
) -> bytes:
    body = b"".join(_field(1, name.encode()) for name in inputs)
    body += _field(2, output.encode())
    body += _field(3, f"node_{output}".encode())
    body += _field(4, operator.encode())
    body += b"".join(_field(5, _attribute(name, value)) for name, value in attributes)
    return _field(1, body)


def _attribute(name: str, value: object) -> bytes:
    head = _field(1, name.encode())
    match value:
        case float():
            return head + b"\x15" + struct.pack("<f", value) + _kind(_FLOAT)
        case int():
            return head + _number(3, value) + _kind(_INT)
        case bytes():
            return head + _field(4, value) + _kind(_STRING)
        case tuple():
            return head + b"".join(_number(8, item) for item in value) + _kind(_INTS)
    raise AssertionError(value)


def _kind(kind: int) -> bytes:
    return b"\xa0\x01" + varint(kind)


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value % (1 << 64))


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content
