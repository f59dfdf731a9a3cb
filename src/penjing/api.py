"""The functions people call.  Everything here is also what the command line calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from penjing.artifact.artifact import Artifact
from penjing.core.budget import Budget
from penjing.core.data import Dataset, first_rows, gathered, open_data
from penjing.core.errors import ConfigError, ModelError, UnsupportedError
from penjing.core.example import LearnsFromExample, WithExample
from penjing.core.files import as_path
from penjing.core.model import Model
from penjing.core.recipe import Recipe
from penjing.core.registry import BACKENDS
from penjing.engine.job import Effort, Job, Result, silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.core.runtime import Session
    from penjing.core.tensors import Array
    from penjing.engine.benching import Timing
    from penjing.engine.search import Progress
    from penjing.engine.serving import Evaluation, Form, Unpacked

__all__ = [
    "bench",
    "compress",
    "evaluate",
    "load",
    "open_artifact",
    "predict",
    "unpack",
    "wrap",
]


def wrap(native: object, data: object = None, target: str | None = None) -> Model:
    """Open any supported model: a path, a framework's object, or a wrapped model.

    Args:
        native: the model.
        data: what ``compress`` takes, for models that do not say which inputs they take: the
            first rows are an example.  ``WithExample(native, inputs)`` does the same.
        target: name of the labels in ``data``, which are no input.

    Raises:
        ModelError: it cannot be read.
        UnsupportedError: no backend knows this kind of object or file.
    """
    if isinstance(native, Model):
        return native
    if isinstance(native, str | Path):
        _check_path(Path(native))
    for name in BACKENDS.names():
        backend = BACKENDS.load(name)()
        if backend.recognises(native):
            lacks = isinstance(backend, LearnsFromExample) and backend.lacks_example(native)
            if lacks and data is not None:
                native = WithExample(native, first_rows(gathered(data), target))
            opened: Model = backend.open(native)
            return opened
    if isinstance(native, str | Path):
        raise ModelError(
            str(native),
            "is no kind of model file known here",
            "give a .onnx, .keras or .pt2 file; scikit-learn estimators and PyTorch modules "
            "come in through the Python function",
        )
    kind = f"{type(native).__module__}.{type(native).__qualname__}"
    raise UnsupportedError(
        "model", f"no backend knows {kind}", f"backends: {', '.join(BACKENDS.names())}"
    )


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise ModelError(str(path), "is a folder", "give the model file inside it")
    if not path.exists():
        raise ModelError(str(path), "no such file")
    if path.suffix.lower() in {".pkl", ".pickle", ".joblib"}:
        raise ModelError(
            str(path),
            "is a pickle, which can run any code when loaded",
            "load it yourself if you trust it, and pass the estimator to penjing.compress()",
        )


def compress(  # noqa: PLR0913  # the one function that takes everything
    model: object,
    data: object,
    *,
    budget: Budget | None = None,
    metric: str = "auto",
    calibration: object = None,
    test: object = None,
    train: object = None,
    teachers: Sequence[object] = (),
    effort: Effort = "auto",
    checkpoints: str | Path | None = None,
    target: str | None = None,
    recipe: Recipe | str | Path | None = None,
    seed: int | None = None,
    time_limit_s: float | None = None,
    strict: bool = False,
    allow_missing: bool = False,
    progress: Progress = silent,
    name: str | None = None,
) -> Result:
    """Find the smallest model that keeps the budget, and prove it.

    Args:
        model: a path to an ONNX file, an ``onnx.ModelProto``, a fitted scikit-learn estimator,
            or a PyTorch module (see ``WithExample`` where ``data`` do not show its inputs).
        data: a path to .npz, .npy, .csv or .parquet, arrays: ``{"x": ..., "y": ...}``,
            ``(x, y)`` or ``x``, or batches of them such as a DataLoader gives.  Divided, with
            ``seed``, into rows that calibrate, search and certify.
        budget: limits; without any, a drop of 0.5 points is allowed.
        metric: name of a metric; ``auto`` chooses by outputs and labels.
        calibration: unlabelled rows for calibration, instead of a part of ``data``.
        test: rows for certification, instead of a part of ``data``.
        train: rows to train on, with labels or without; nothing else sees them.
        teachers: models with the original's inputs and outputs.  Where anything is trained, all
            speak as one with the original, by the mean of what they give.
        effort: how far to go: ``post-training`` quantizes what is there, ``reconstruct``
            trains towards the original's outputs, ``train`` towards the labels of ``train``
            (with fewer than 20,000 images towards the outputs, on blends of images, which goes
            further than learning labels by heart); ``auto`` takes the cheapest that meets the
            budget.
        checkpoints: folder in which unfinished training is kept; the same call goes on from
            there, to the same result.
        target: name of the label column of tables.
        recipe: steps to apply instead of searching, or the path of their YAML file.
        seed: of every random choice; the same seed gives the same file.  0, or the recipe's
            own, unless given.
        time_limit_s: seconds after which the search ends with the best it has; a recipe that is
            not done by then is an error.
        strict: refuse a result in which something large was left uncompressed.
        allow_missing: accept missing values in tables.
        progress: told what is going on.
        name: how to call the model in the report.

    Returns:
        The artifact and the report.

    Raises:
        PenjingError: the model, the data or a setting cannot be used.
    """
    from penjing.engine import pipeline
    from penjing.engine.commands import command
    from penjing.engine.placing import placing

    budget, steps = _checked_budget(budget), _read_recipe(recipe)
    chosen_seed = seed_of(seed, steps)
    if steps is not None:
        steps = replace(steps, seed=chosen_seed)
    rows, calibration, test = [
        None if given is None else gathered(given) for given in (data, calibration, test)
    ]
    wrapped = wrap(model, rows, target)
    ports = wrapped.backend.inputs(wrapped.native)
    called = name or _called(model)

    def opened(source: object) -> Dataset:
        return open_data(source, ports, target, allow_missing=allow_missing)

    job = Job(
        model=wrapped,
        name=called,
        data=opened(rows),
        calibration=None if calibration is None else opened(calibration),
        test=None if test is None else opened(test),
        train=None if train is None else opened(train),
        teachers=tuple(wrap(teacher, rows, target) for teacher in teachers),
        effort=_checked_effort(effort),
        checkpoints=None if checkpoints is None else Path(checkpoints),
        metric=metric,
        budget=budget,
        recipe=steps,
        seed=chosen_seed,
        time_limit_s=time_limit_s,
        strict=strict,
        reproduce=command(
            {
                "compress": model,
                "--data": data,
                "--calibration": calibration,
                "--test": test,
                "--train": train,
                "--teacher": list(teachers) or None,
                "--effort": effort if effort != "auto" else None,
                "--target": target,
                "--metric": metric,
            },
            budget,
            steps,
            chosen_seed,
            allow_missing=allow_missing,
        ),
        progress=progress,
    )
    sources = (job.data, job.test, job.calibration, job.train)
    given = [each for each in sources if each is not None]
    with placing(called, ports, given, metric):
        return pipeline.compress(job)


def seed_of(given: int | None, recipe: Recipe | None) -> int:
    """Choose the seed: the one that was given, the recipe's own, or 0."""
    if given is not None:
        return given
    return 0 if recipe is None else recipe.seed


def _called(model: object) -> str:
    native = model.model if isinstance(model, WithExample) else model
    return str(native) if isinstance(native, str | Path) else type(native).__name__


def _checked_budget(given: object) -> Budget:
    if given is None:
        return Budget()
    if not isinstance(given, Budget):
        raise ConfigError(
            "budget",
            f"must be a penjing.Budget, got {given!r}",
            "such as penjing.Budget(max_drop=0.005) or penjing.Budget(max_size='100kB')",
        )
    return given


def _checked_effort(given: str) -> Effort:
    known = get_args(Effort)
    if given not in known:
        raise ConfigError("effort", f"must be one of {', '.join(known)}, got {given!r}")
    return cast("Effort", given)


def _read_recipe(given: object) -> Recipe | None:
    if isinstance(given, str | Path):
        return Recipe.load(given)
    if given is not None and not isinstance(given, Recipe):
        raise ConfigError(
            "recipe",
            f"must be a penjing.Recipe or the path of a YAML file, got {type(given).__name__}",
            "penjing.Recipe.from_dict takes plain data",
        )
    return given


def open_artifact(path: str | Path) -> Artifact:
    """Read a ``.penjing`` file and check its hashes; arrays are decoded when needed.

    Raises:
        ModelError: there is no such file.
        FormatError: it is damaged, hostile or newer.
    """
    return Artifact.load(as_path(path))


def load(path: str | Path, *, threads: int = 1) -> Session:
    """Load a ``.penjing`` or ``.onnx`` file, ready to run.

    >>> session = load("small.penjing")  # doctest: +SKIP
    >>> session.run({"x": x})  # doctest: +SKIP

    Raises:
        ModelError: there is no such file, or the runtime cannot load it.
        FormatError: the file is damaged, hostile or newer.
    """
    from penjing.engine.serving import load as load_session

    return load_session(as_path(path), threads=threads)


def unpack(path: str | Path, output: str | Path, *, form: Form = "float") -> Unpacked:
    """Write the plain ONNX model of a ``.penjing`` file.

    Args:
        path: of the ``.penjing`` file.
        output: the ``.onnx`` file to write.
        form: what becomes of quantized weights: ``float`` numbers, or with ``qdq`` the integers
            of the file behind ``DequantizeLinear``.  Both compute the same; where activations
            are quantized too, runtimes compute the second one in integers.

    Returns:
        Its size in bytes, and which of its weights are integers.

    Raises:
        ConfigError: there is no such form.
        FormatError: the file is damaged, hostile or newer.
        OutputError: the model cannot be written.
    """
    from penjing.engine.serving import unpack as write

    return write(as_path(path), output, form)


def evaluate(
    path: str | Path,
    data: object,
    *,
    metric: str = "auto",
    target: str | None = None,
    allow_missing: bool = False,
) -> Evaluation:
    """Measure a model on labelled data: every row of ``data``.

    Raises:
        DataError: the data do not fit the model or the metric.
    """
    from penjing.engine.placing import placing
    from penjing.engine.serving import evaluate as measure

    session = load(path)
    dataset = open_data(data, session.inputs, target, allow_missing=allow_missing)
    with placing(str(path), session.inputs, [dataset], metric):
        return measure(session, dataset, metric)


def predict(
    path: str | Path,
    data: object,
    *,
    target: str | None = None,
    allow_missing: bool = False,
) -> dict[str, Array]:
    """Run a model on every row of ``data``; give each output with the sample axis first.

    ``target`` names a column of labels, which is left out.

    Raises:
        DataError: the data do not fit the model.
    """
    from penjing.engine.placing import placing
    from penjing.engine.serving import predict as run

    session = load(path)
    dataset = open_data(data, session.inputs, target, allow_missing=allow_missing)
    with placing(str(path), session.inputs, [dataset], "auto"):
        return run(session, dataset)


def bench(
    path: str | Path,
    *,
    seconds: float = 2.0,
    threads: int = 1,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Timing:
    """Time loading and running a model on random inputs.

    Args:
        path: of a ``.penjing`` or ``.onnx`` file.
        seconds: about how long to measure.
        threads: to run on.
        batch: samples per run; None for as many as the model is fixed to, else one.
        shapes: of inputs, by name.  Where a model leaves other sizes open than the batch, and
            nothing is given here, the first size is taken that the model runs with.

    Raises:
        ConfigError: the batch or a shape is not what the model takes.
        DataError: the model does not run on these shapes.
        UnsupportedError: it runs with none of the sizes that were tried.
    """
    from penjing.engine.benching import bench as measure

    return measure(as_path(path), seconds=seconds, threads=threads, batch=batch, shapes=shapes)
