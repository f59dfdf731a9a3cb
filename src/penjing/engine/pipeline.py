"""The main job: model + data + budget -> one file with its evidence."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from penjing.core.data import Splits, split
from penjing.core.errors import (
    ConfigError,
    DataError,
    ModelError,
    PenjingWarning,
    UnsupportedError,
)
from penjing.core.measure import Verdict
from penjing.core.metric import choose_metric
from penjing.core.model import MATRIX_KINDS
from penjing.core.recipe import LARGEST_SEED, Recipe
from penjing.core.registry import METRICS
from penjing.core.technique import Observation
from penjing.engine import asked, efforts, evidence_header, reporting, training
from penjing.engine.candidate import GIVEN
from penjing.engine.chance import warn_of_chance
from penjing.engine.decide import Decider
from penjing.engine.evaluate import Batching, run_all
from penjing.engine.job import Job, Result
from penjing.engine.judging import Judge
from penjing.engine.latency import interleaved
from penjing.engine.observe import observe
from penjing.engine.packing import session_of
from penjing.engine.running import Running
from penjing.engine.search import TIME_IS_UP, Search

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.artifact.artifact import Artifact
    from penjing.core.data import Part
    from penjing.core.measure import Measurement
    from penjing.core.metric import Metric
    from penjing.core.model import Model, Port, Weight
    from penjing.core.tensors import Array
    from penjing.engine.decide import Decision
    from penjing.training.trainer import TorchTrainer

LARGE_LEFT_ALONE = 0.05
"""Share of the original's bytes beyond which an untouched array deserves a warning."""


def compress(job: Job) -> Result:
    """Do the whole job.

    Raises:
        PenjingError: the model, the data or the settings cannot be used; nothing is written.
    """
    clock = _Clock()
    if not (isinstance(job.seed, int) and 0 <= job.seed <= LARGEST_SEED):
        raise ConfigError(
            "seed", f"must be a whole number in [0, {LARGEST_SEED}], got {job.seed!r}"
        )
    check_weights(job.model)
    if job.strict:
        check_types(job.model)
    asked.check(job)
    splits = split(job.data, job.calibration, job.test, job.seed, train=job.train)
    training.warn_of_overlap(job.train, splits)
    job.progress("splitting data", 1.0, splits.describe())
    original = Running(job.model)
    metric = pick_metric(job.metric, original, splits.search)
    judge = Judge(original, splits.search, metric, job.seed)
    proof = Judge(original, splits.certification, metric, job.seed)
    check_scale(job, judge, proof)
    if evidence_header.metric_name(judge) == "accuracy" and judge.part.labels is not None:
        warn_of_chance("the original", judge.original_value(), judge.part.labels)
    trainer = _trainer(job, splits)
    clock.stop("evaluate")
    # How BLAS divides a product among threads can change its last digits.
    with threadpool_limits(1, "blas"):
        search = _searched(job, splits, judge, clock, trainer)
        job.progress("certifying", 0.0)
        decider = Decider(search, proof)
        try:
            decision = decider.decide()
        except KeyboardInterrupt:
            job.progress("interrupted", 1.0, "keeping the best estimate, undecided")
            decision = decider.interrupted()
    clock.stop("certify")
    job.progress("certifying", 1.0, decision.reason)
    decision, artifact = _written(job, splits, decision, judge, proof)
    times = _timed(search.candidates[0].artifact, artifact, splits.certification)
    clock.stop("time")
    told = left_alone(job.model, decision)
    if job.strict and told:
        raise UnsupportedError("--strict", told[0], "run without --strict to accept this")
    before = evidence_header.original_bytes(job)
    if artifact.size_bytes >= before:
        larger = f"the file is no smaller than the model as it came ({before} bytes)"
        told += (f"{larger}: a model so small gains less than its evidence takes",)
    told += fed_back(original) + efforts.told(job, search, decision.chosen)
    if search.trainer is not None and not search.stopped:
        search.trainer.clear()
    report = reporting.build(
        job, splits, search, decision, proof, artifact, times, clock.seconds(), told
    )
    return Result(artifact, report)


def check_weights(model: Model) -> None:
    """Refuse models that hold nothing to compress, or NaN.

    Raises:
        ModelError: which weight, and what is wrong with it.
    """
    weights = model.weights()
    if not weights:
        raise ModelError(
            "model",
            "has no weights to compress",
            "are they computed inside the graph, or only a few numbers?",
        )
    for name, weight in weights.items():
        array = weight.tensor.dense()
        if not weight.is_float:
            continue
        bad = np.isnan(array) if weight.kind not in MATRIX_KINDS else ~np.isfinite(array)
        if bad.any():
            raise ModelError(
                f"weight {name!r}",
                f"holds {int(bad.sum())} values that are NaN or infinite",
                "was training stopped after it diverged?",
            )


def check_types(model: Model) -> None:
    """Refuse, before any work, models of which a large part can only be packed losslessly.

    Raises:
        UnsupportedError: which array is no array of real numbers.
    """
    for name, weight in _large(model).items():
        if not weight.is_float:
            raise UnsupportedError(
                "--strict",
                f"{name} ({weight.tensor.nbytes} bytes of {weight.tensor.dtype}) holds no real "
                "numbers and can only be packed losslessly",
                "run without --strict to accept this",
            )


def check_scale(job: Job, judge: Judge, proof: Judge) -> None:
    """Refuse limits that are relative to a metric of zero.

    Raises:
        DataError: the metric of the original is zero, or not finite.
    """
    if judge.metric.absolute or job.budget.max_drop is None:
        return
    for made in (judge, proof):
        value = made.original_value()
        if value == 0 or not np.isfinite(value):
            raise DataError(
                made.part.dataset.source,
                f"the original's {evidence_header.metric_name(made)} here is {value:g}: "
                "no drop can be relative to that",
                "choose another metric, or a limit on size alone",
            )


def pick_metric(name: str, original: Running, part: Part) -> Metric:
    """Load a metric by name; ``auto`` looks at outputs and labels."""
    if name == "auto":
        first = type(part)(part.dataset, part.rows[:256])
        outputs = run_all(original, first)
        name = choose_metric(outputs, first.labels)
        if name == "agreement" and _rebuilds(original, outputs):
            name = "deviation"
    made: Metric = METRICS.load(name)()
    return made


def _rebuilds(original: Running, outputs: Mapping[str, Array]) -> bool:
    """Tell whether the outputs look like an autoencoder's: shaped as the inputs, no shares."""
    scores = next(iter(outputs.values()))
    if scores.dtype.kind != "f" or scores.ndim < 2:  # noqa: PLR2004  # one number per sample
        return False
    shapes = [port.shape[1:] for port in original.inputs if port.dtype.startswith("float")]
    sums = scores.astype(np.float64).sum(axis=-1)
    return scores.shape[1:] in shapes and not np.allclose(sums, 1, atol=1e-3)


def _alike(first: Port, second: Port) -> bool:
    """Tell whether two ports may hold the same thing: by type and shape, or by name."""
    if first.dtype != second.dtype or len(first.shape) != len(second.shape):
        return False
    pairs = [pair for pair in zip(first.shape, second.shape, strict=True) if None not in pair]
    if any(a != b for a, b in pairs):
        return False
    return bool(pairs) or second.name.startswith(first.name)


def fed_back(original: Running) -> tuple[str, ...]:
    """Warn of outputs that are shaped like an input: states, which go back in at each step."""
    found = []
    for output in original.outputs[1:]:
        same = [port.name for port in original.inputs if _alike(port, output)]
        if same:
            found.append(
                f"output {output.name!r} looks like the next {same[0]!r}: single steps are "
                "judged here, not how their errors add up where it is fed back"
            )
    return tuple(found)


def _searched(
    job: Job, splits: Splits, judge: Judge, clock: _Clock, trainer: TorchTrainer | None
) -> Search:
    """Observe and search; an interrupt ends the search with what there is."""
    deadline = np.inf if job.time_limit_s is None else clock.started + job.time_limit_s
    search = Search(
        job.model,
        Observation({}, {}),
        judge,
        job.budget,
        len(splits.certification),
        job.progress,
        job.seed,
        float(deadline),
    )
    search.attempt(Recipe((), job.seed), "lossless")

    def step(phase: str, share: float, note: str = "") -> None:
        job.progress(phase, share, note)
        if time.monotonic() >= deadline:
            raise _TimeIsUp

    try:
        if search.worthwhile or job.recipe is not None or trainer is not None:
            search.observation = observe(
                job.model,
                splits.calibration,
                job.seed,
                step,
                classes=judge.metric.bounded,
            )
            clock.stop("observe")
        if trainer is not None:
            trainer = replace(trainer, progress=step)
        if job.recipe is not None:
            search.trainer = trainer
            search.attempt(job.recipe, GIVEN)
        else:
            efforts.run(job, search, splits, trainer)
    except KeyboardInterrupt:
        if job.recipe is not None:  # what was asked for is not there: there is no result
            raise
        search.stopped = "the search was interrupted"
        job.progress("interrupted", 1.0, "keeping the best result so far")
    except _TimeIsUp:
        if job.recipe is not None:
            raise _recipe_cut_short(job) from None
        search.stopped = TIME_IS_UP
    clock.stop("search")
    return search


def _recipe_cut_short(job: Job) -> ConfigError:
    """Say that a recipe has no result, and how it comes to one."""
    hint = "allow more time, or fewer epochs"
    if job.recipe is not None and job.recipe.trains:
        hint += "; where checkpoints are kept, training goes on from the last one"
    return ConfigError(
        "time_limit",
        f"{job.time_limit_s:g} s were over before the recipe was done: it has no result",
        hint,
    )


def _trainer(job: Job, splits: Splits) -> TorchTrainer | None:
    """Make a trainer where something will or may be trained, and see that it can be."""
    if job.trains and job.train is None and job.recipe is not None:
        warnings.warn(
            f"no rows to train on were given: the recipe is trained on the "
            f"{len(splits.calibration)} rows that calibrate, without their labels",
            PenjingWarning,
            stacklevel=2,
        )
    may = job.recipe is None and job.effort == "auto" and job.budget.max_size_bytes is not None
    if not (job.trains or (may and training.is_installed())):
        return None
    made = training.trainer_for(
        job.model,
        training.training_part(splits, job.train),
        seed=job.seed,
        checkpoints=job.checkpoints,
        progress=job.progress,
    )
    made = replace(made, teachers=(job.model, *job.teachers))
    try:
        made.check(job.model)
    except UnsupportedError as error:
        if job.trains:
            raise
        told = f"{error.where}: {error.problem}: it is not trained"
        warnings.warn(told, PenjingWarning, stacklevel=2)
        return None
    return made


def _written(
    job: Job, splits: Splits, decision: Decision, judge: Judge, proof: Judge
) -> tuple[Decision, Artifact]:
    """Complete the file with its header; a limit on size is about just these bytes."""
    limit = job.budget.max_size_bytes
    header = evidence_header.build(job, splits, decision, judge, proof)
    artifact = decision.chosen.artifact.with_header(header)
    if limit is None or artifact.size_bytes <= limit or decision.verdict is not Verdict.MET:
        return decision, artifact
    reason = f"with its evidence the file has {artifact.size_bytes} bytes, more than {limit}"
    missed = replace(decision, verdict=Verdict.MISSED, reason=reason)
    header = evidence_header.build(job, splits, missed, judge, proof)
    return missed, decision.chosen.artifact.with_header(header)


def _timed(
    lossless: Artifact, artifact: Artifact, part: Part
) -> tuple[Measurement, Measurement, Measurement]:
    """Time the written file against the original on one batch, in sessions of one kind."""
    original, compressed = session_of(lossless), session_of(artifact)
    batching = Batching.of(original.inputs)
    rows = np.resize(part.rows, batching.rows if batching.fixed else 1)
    return interleaved((original, compressed), part.dataset.take(np.sort(rows)).inputs)


def left_alone(model: Model, decision: Decision) -> tuple[str, ...]:
    """Name every large array that the chosen recipe did not touch."""
    if not decision.chosen.recipe.steps:
        return ()
    return tuple(
        f"{name} ({weight.tensor.nbytes} bytes of {weight.tensor.dtype}) was "
        "left alone and only packed losslessly"
        for name, weight in _large(model).items()
        if name not in decision.chosen.model.changed
    )


def _large(model: Model) -> dict[str, Weight]:
    """Give the arrays whose being left alone matters."""
    weights = model.weights()
    total = sum(weight.tensor.nbytes for weight in weights.values())
    return {n: w for n, w in weights.items() if w.tensor.nbytes > LARGE_LEFT_ALONE * total}


class _TimeIsUp(Exception):  # noqa: N818  # nothing has gone wrong
    """Ends the observation at the time limit."""


class _Clock:
    """Adds up the seconds of each phase."""

    def __init__(self) -> None:
        self.started = self._last = time.monotonic()
        self._phases: dict[str, float] = {}

    def stop(self, phase: str) -> None:
        now = time.monotonic()
        self._phases[phase] = self._phases.get(phase, 0.0) + now - self._last
        self._last = now

    def seconds(self) -> dict[str, Any]:
        return {**self._phases, "total": time.monotonic() - self.started}
