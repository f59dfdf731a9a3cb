"""A line to fit, the loop around it, and a small network with rows and a trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest

from penjing.core.data import Part, open_data
from penjing.core.model import Port
from penjing.core.training import Optimization

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.core.model import Model
    from penjing.core.training import Moment
    from penjing.training.rows import Rows, Sample
    from penjing.training.state import Pace
    from penjing.training.trainer import TorchTrainer

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

FEATURES = 4


def line_part(rows: int = 64) -> Part:
    """Draw points beside a line."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3 + 0.1 * rng.normal(size=rows)
    data = open_data({"x": x, "y": y}, [Port("x", "float32", (None, FEATURES))])
    return Part(data, np.arange(rows))


@dataclass(eq=False)
class Line:
    """What the loop trains: a line, by squared errors."""

    memory: int = 1 << 30
    """Rows that fit into it."""
    breaks: Callable[[Line], bool] = lambda line: line is None
    """Tells whether the loss is to be NaN."""
    fails_at: int = -1
    """Step at which Ctrl-C is pressed."""
    module: Any = None
    sizes: list[int] = field(default_factory=list)
    """Rows of every batch."""
    seen: dict[int, list[float]] = field(default_factory=dict)
    """First feature of every row, by step."""
    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.module = torch.nn.Linear(FEATURES, 1, dtype=torch.float32)

    def groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Put all parameters into one group."""
        parameters = list(self.module.parameters())
        return [{"params": parameters, "lr": learning_rate, "weight_decay": weight_decay}]

    def loss(self, module: Any, sample: Sample, moment: Moment) -> tuple[Any, Any]:
        """Give the mean squared error."""
        inputs, labels = sample
        assert labels is not None
        if len(labels) > self.memory:
            raise torch.OutOfMemoryError
        if moment.step == self.fails_at:
            raise KeyboardInterrupt
        self.sizes.append(len(labels))
        self.seen.setdefault(moment.step, []).extend(inputs["x"][:, 0].tolist())
        self.rates.append(moment.learning_rate)
        loss = (module(inputs["x"])[:, 0].float() - labels.float()).square().mean()
        if self.breaks(self):
            loss = loss * float("nan")
        return loss, loss

    def after(self, moment: Moment, pace: Pace) -> None:
        """Note the norm of the gradient that a step was made with."""
        del moment, pace
        grads = [parameter.grad.reshape(-1) for parameter in self.module.parameters()]
        self.norms.append(float(torch.cat(grads).norm()))

    @property
    def parameters(self) -> Any:
        """All numbers that are trained."""
        return torch.cat([p.detach().reshape(-1).clone() for p in self.module.parameters()])


@dataclass
class Done:
    """A run that came to its end."""

    line: Line
    run: Any
    notes: list[str]

    @property
    def parameters(self) -> Any:
        """What it has found."""
        return self.line.parameters

    def said(self, part: str) -> int:
        """Count the notes that say so."""
        return sum(part in note for note in self.notes)


class Fit(Protocol):
    """Fits a line with the loop."""

    def __call__(self, line: Line | None = None, **changes: Any) -> Done:
        """Change the settings of the run, of ``Run``, or of ``Optimization``."""


def fit_line(line: Line | None = None, **changes: Any) -> Done:
    """Run the loop; ``notes`` in the changes is a list that is filled."""
    from penjing.training.checkpoints import Checkpoints
    from penjing.training.loop import Run
    from penjing.training.rows import Rows, divided

    line = line or Line()
    notes: list[str] = changes.pop("notes", [])
    known: dict[str, Any] = {"epochs": 5, "learning_rate": 0.05, "seed": 0, "key": "run"}
    known |= {name: changes.pop(name) for name in list(changes) if name in {*known, "settled"}}
    part, checkpoints = line_part(changes.pop("rows", 64)), Checkpoints(changes.pop("at", None))
    settings = Optimization(**{"batch_size": 16, **changes})
    held = None
    if settings.patience:
        part, other = divided(part, known["seed"])
        held = Rows(other, {"x": 0})
    run = Run(
        trainee=line,
        rows=Rows(part, {"x": 0}),
        settings=settings,
        checkpoints=checkpoints,
        progress=lambda _, note: notes.append(note),
        held=held,
        **known,
    )
    run.go()
    return Done(line, run, notes)


@pytest.fixture
def fit() -> Fit:
    """Give the function that fits a line."""
    return fit_line


@pytest.fixture
def line() -> type[Line]:
    """Give the class of what is trained."""
    return Line


@pytest.fixture
def rows() -> Callable[[int], Rows]:
    """Give a function that draws rows."""
    from penjing.training.rows import Rows

    return lambda count: Rows(line_part(count), {"x": 0})


@pytest.fixture(scope="session")
def network() -> Model:
    """Open a small network."""
    pytest.importorskip("onnx")
    from penjing.testing.models import onnx_model

    return onnx_model("mlp")


@pytest.fixture(scope="session")
def trainer(network: Model) -> TorchTrainer:
    """Make a trainer on labelled rows for the small network."""
    from penjing.training.trainer import TorchTrainer

    rng = np.random.default_rng(3)
    x = rng.normal(size=(96, 12)).astype(np.float32)
    data = open_data(
        {"x": x, "y": x[:, :3].argmax(axis=1)}, network.backend.inputs(network.native)
    )
    return TorchTrainer(Part(data, np.arange(96)), (network,))
