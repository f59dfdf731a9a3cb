"""Compressed weights go back into modules, parameters come from files, and no code is run."""

from __future__ import annotations

import copy
import json
import pickle
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.artifact.artifact import Artifact
from penjing.core.errors import ConfigError, MissingExtraError, ModelError, UnsupportedError
from penjing.core.model import MATRIX_KINDS
from penjing.core.tensors import Dense

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402

from penjing.testing.torch_models import ConvNet, conv_net, tagger, toy  # noqa: E402

if TYPE_CHECKING:
    from penjing.core.model import Model


def packed(model: Model) -> Artifact:
    """Round everything coarsely, each weight on its own, and put it into a file."""
    coarse = {
        name: Dense(np.round(weight.tensor.dense() * 16 + index / 97) / np.float32(16))
        for index, (name, weight) in enumerate(model.weights().items())
        if weight.is_float and (weight.kind in MATRIX_KINDS or weight.layer)
    }
    changed = model.with_weights(coarse)
    template = model.backend.template(model.native)  # type: ignore[attr-defined]
    return Artifact(template, {n: w.tensor for n, w in changed.weights().items()}, {})


def outputs_of_file(artifact: Artifact, feed: dict[str, Any], path: Path) -> list[Any]:
    artifact.save(path)
    return list(penjing.load(path).run({n: t.numpy() for n, t in feed.items()}).values())


@cache
def conv_small() -> tuple[Artifact, Any, Any]:
    """Give a file, the module before it was compressed, and the module out of the file."""
    artifact, module = packed(toy("conv")), conv_net().model.train()
    return artifact, module, penjing.to_module(artifact, module)


def test_a_module_carries_the_weights_of_the_file(tmp_path: Path) -> None:
    artifact, module, small = conv_small()
    state = conv_net().model.state_dict()
    module, small = copy.deepcopy(module), copy.deepcopy(small)
    assert isinstance(small, ConvNet)
    assert small.training
    assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())
    image = torch.randn(7, 2, 8, 8)
    (wanted,) = outputs_of_file(artifact, {"image": image}, tmp_path / "small.penjing")
    with torch.no_grad():
        given, before = small.eval()(image), module.eval()(image)
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
    assert not np.allclose(before, wanted, rtol=1e-2)


def test_a_folded_batch_norm_only_adds_a_bias() -> None:
    small = copy.deepcopy(conv_small()[2]).eval()
    values = torch.randn(5, 8, 3, 3)
    moved = small.first_norm(values) - values
    np.testing.assert_allclose(moved.std((0, 2, 3)).detach(), 0, atol=1e-5)
    values = torch.randn(5, 12, 3, 3)
    moved = small.second_norm(values) - values
    np.testing.assert_allclose(moved.std((0, 2, 3)).detach(), 0, atol=1e-5)
    assert not small.second.bias.any()


def test_recurrent_attention_and_tied_weights_go_back(tmp_path: Path) -> None:
    artifact = packed(toy("tagger"))
    small = penjing.to_module(artifact, tagger().model)
    assert small.out.weight is small.words.weight
    tokens = torch.randint(0, 8, (6, 3))
    (wanted,) = outputs_of_file(artifact, {"tokens": tokens}, tmp_path / "small.penjing")
    with torch.no_grad():
        given = small.eval()(tokens)["scores"]
    np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-4)


def test_batch_norms_that_are_alike_are_told_apart() -> None:
    blocks = [part for _ in range(3) for part in (nn.Conv1d(6, 6, 3), nn.BatchNorm1d(6))]
    module = nn.Sequential(*blocks)
    artifact = packed(penjing.wrap(module, torch.ones(2, 6, 9)))
    penjing.to_module(artifact, module)


def test_weights_do_not_go_into_another_module() -> None:
    other = penjing.WithExample(nn.Linear(4, 4), torch.ones(2, 4))
    with pytest.raises(UnsupportedError, match="is not built as the model in this file"):
        penjing.to_module(packed(toy("conv")), other)
    with pytest.raises(UnsupportedError, match="is no PyTorch module"):
        penjing.to_module(packed(toy("conv")), "module")
    with pytest.raises(ModelError, match=r"must be the path of a \.penjing or \.onnx file"):
        penjing.to_module(object(), other)  # type: ignore[arg-type]


def test_computed_weights_have_no_place() -> None:
    torch.manual_seed(1)  # other weights may be refused in other words
    module = nn.utils.parametrizations.weight_norm(nn.Linear(8, 6))
    rows = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    model = penjing.wrap(module, rows)
    with pytest.raises(UnsupportedError, match="in some way that is not known here"):
        penjing.to_module(packed(model), module)


def test_a_module_is_compressed_end_to_end(tmp_path: Path) -> None:
    module = conv_net().model.eval()
    images = torch.randn(500, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        module.scores.bias -= module(images).mean(0)  # so that all classes occur
        labels = module(images).argmax(1)
    result = penjing.compress(
        module,
        torch.utils.data.DataLoader(list(zip(images, labels, strict=True)), 50),
        budget=penjing.Budget(max_drop=0.1, confidence=None),
        recipe=penjing.Recipe.from_dict({"steps": [{"use": "round_to_nearest", "bits": 8}]}),
    )
    summary = result.summary()
    assert summary["metric"] == "accuracy"
    assert summary["original_metric"] == 1
    assert summary["compressed_metric"] > 0.8
    result.artifact.save(tmp_path / "small.penjing")
    small = penjing.to_module(tmp_path / "small.penjing", module)
    given = penjing.predict(tmp_path / "small.penjing", (images, labels))["output"]
    with torch.no_grad():
        np.testing.assert_allclose(small(images), given, rtol=1e-3, atol=1e-4)


def write_safetensors(path: Path, tensors: dict[str, Any]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        data = tensor.numpy().tobytes()
        kind = {"torch.float32": "F32", "torch.int64": "I64"}[str(tensor.dtype)]
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_state_dicts_come_in_every_customary_form(tmp_path: Path) -> None:
    state = conv_net().model.state_dict()
    forms: dict[str, Any] = {
        "plain.pt": state,
        "wrapped.pth": {"state_dict": state, "epoch": 3},
        "parallel.pt": {"model": {f"module.{name}": value for name, value in state.items()}},
        "compiled.pt": {f"_orig_mod.module.{name}": value for name, value in state.items()},
    }
    for name, form in forms.items():
        torch.save(form, tmp_path / name)
    write_safetensors(tmp_path / "plain.safetensors", state)
    for path in sorted(tmp_path.iterdir()):
        module = penjing.from_state_dict(ConvNet, path)
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, state[name]), (path.name, name)
    given = penjing.from_state_dict(ConvNet, tmp_path / "plain.pt", torch.ones(2, 2, 8, 8))
    assert isinstance(given, penjing.WithExample)


def test_state_dicts_of_other_modules_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    state = copy.copy(conv_net().model.state_dict())
    del state["scores.bias"]
    torch.save(state | {"extra": torch.ones(1)}, path)
    with pytest.raises(ModelError, match=r"lacks scores\.bias; has extra besides"):
        penjing.from_state_dict(ConvNet, path)
    torch.save(conv_net().model.state_dict() | {"scores.bias": torch.ones(9)}, path)
    with pytest.raises(ModelError, match=r"does not fit ConvNet: size mismatch for scores\.b"):
        penjing.from_state_dict(ConvNet, path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds no state dict"):
        penjing.from_state_dict(ConvNet, path)
    with pytest.raises(ModelError, match="no such file"):
        penjing.from_state_dict(ConvNet, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="the constructor gives int"):
        penjing.from_state_dict(int, path)
    for constructor in (None, ConvNet(), "net"):
        with pytest.raises(ConfigError, match="constructor: must make the module"):
            penjing.from_state_dict(constructor, path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="path: must be the path of a file"):
        penjing.from_state_dict(path, ConvNet)  # type: ignore[arg-type]


class Trap:
    """Something that leaves a mark when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"state_dict": Trap(mark)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Trap(mark)))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ModelError, match=r"never loaded here|no file of PyTorch"):
            penjing.from_state_dict(ConvNet, tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 20,
        (8).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(60),
        (62).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}'.ljust(62)
        + b"0000",
    ],
    ids=["empty", "noise", "cut off", "list", "no data", "negative"],
)
def test_damaged_safetensors_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="no safetensors file, or damaged"):
        penjing.from_state_dict(ConvNet, tmp_path / "a.safetensors")


def test_missing_packages_are_named(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("penjing.backends.pytorch.find_spec", lambda _: None)
    (tmp_path / "a.pt").touch()
    with pytest.raises(MissingExtraError, match=r"penjing\[torch\]"):
        penjing.from_state_dict(ConvNet, tmp_path / "a.pt")
