"""Simulate whole searches to see whether certificates keep their promise, and what they cost.

``python benchmarks/certificate.py`` prints one JSON line per row and a table, and draws
``docs/images/certificate.svg``.  A *search* here is everything between a model and its
certificate: many candidates, estimates on a search split that choose and order them, and the
sequence of tests on a certification split.  A promise is broken where a candidate passes whose
true drop is the limit or more.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core import betting, exact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Test = Callable[[int, int, int, float], bool]
    """Whether (lost, gained, n, limit) passes."""
    Row = dict[str, Any]

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "certificate.svg"
CONFIDENCE = 0.95
LIMIT = 0.005


@cache
def exact_test(lost: int, gained: int, n: int, limit: float) -> bool:
    """Test as penjing does."""
    return exact.p_value(lost, gained, n, limit, CONFIDENCE) <= 1 - CONFIDENCE


_SHUFFLES = count()


def betting_test(lost: int, gained: int, n: int, limit: float) -> bool:
    """Test as penjing does for graded scores."""
    differences = np.repeat([1.0, -1.0, 0.0], [lost, gained, n - lost - gained])
    # Sorted like this, the differences are in random order only if each shuffle is new.
    p = betting.p_value(differences, limit, CONFIDENCE, seed=next(_SHUFFLES))
    return p <= 1 - CONFIDENCE


def normal_test(lost: int, gained: int, n: int, limit: float) -> bool:
    """Test by the normal approximation: mean plus 1.645 standard errors.  Not valid."""
    drop = (lost - gained) / n
    spread = math.sqrt(max((lost + gained) / n - drop**2, 0.0) / n)
    return drop + NormalDist().inv_cdf(CONFIDENCE) * spread <= limit


def hoeffding_test(lost: int, gained: int, n: int, limit: float) -> bool:
    """Test by Hoeffding's inequality: valid, but blind to how few samples differ."""
    return (lost - gained) / n + math.sqrt(-2 * math.log(1 - CONFIDENCE) / n) <= limit


@dataclass(frozen=True)
class World:
    """Candidates from safe to bold, by the true shares of samples lost and gained, (k,)."""

    lost: Floats
    gained: Floats
    nested: bool = False
    """Whether what a candidate loses, bolder ones lose too; else they are independent."""

    @property
    def drops(self) -> Floats:
        """True drops, (k,), free of rounding noise."""
        return np.round(self.lost - self.gained, 12)

    def draw(self, n: int, times: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
        """Draw how many of ``n`` samples each candidate loses and gains, (times, k) each."""
        if not self.nested:
            rates = np.stack([self.lost, self.gained, 1 - self.lost - self.gained], axis=-1)
            counts = rng.multinomial(n, rates, size=(times, len(self.lost)))
            return counts[..., 0], counts[..., 1]
        steps = np.concatenate([np.diff(self.lost, prepend=0), np.diff(self.gained, prepend=0)])
        counts = rng.multinomial(n, np.append(steps, 1 - steps.sum()), size=times)
        k = len(self.lost)
        return counts[:, :k].cumsum(axis=1), counts[:, k : 2 * k].cumsum(axis=1)


def on_the_limit(candidates: int = 30) -> World:
    """Make candidates that all have a drop of exactly the limit: none may pass."""
    gained = np.linspace(0.0, 2 * LIMIT, candidates)
    return World(LIMIT + gained, gained)


def through_the_limit(candidates: int = 21) -> World:
    """Make candidates whose drops climb from nothing to twice the limit, through the limit."""
    gained = np.linspace(0.2, 1.0, candidates) * LIMIT
    return World(gained + np.linspace(0.0, 2.0, candidates) * LIMIT, gained, nested=True)


@dataclass(frozen=True)
class Plan:
    """How often to simulate, and on how much data."""

    n: int
    """Samples of the search split, and as many of the certification split."""
    times: int = 2000
    seed: int = 0


def search(world: World, plan: Plan, test: Test, *, peek: bool = False) -> Integers:
    """Run whole searches; give the index of the candidate each returns, -1 for none.

    The search split drops what looks hopeless and puts the most promising first; the
    certification split tests in that order up to the first failure.  With ``peek``, the
    search cheats: it looks at the certification split instead.
    """
    rng = np.random.default_rng(plan.seed)
    searched = world.draw(plan.n, plan.times, rng)
    certified = world.draw(plan.n, plan.times, rng)
    seen = certified if peek else searched
    estimates = seen[0] - seen[1]
    returned = np.full(plan.times, -1)
    running = np.arange(plan.times)
    for turn in np.argsort(estimates, axis=1, kind="stable").T:
        candidate = turn[running]
        hopeful = estimates[running, candidate] <= 1.5 * LIMIT * plan.n
        lost, gained = (counts[running, candidate].tolist() for counts in certified)
        passed = np.array(
            [test(*pair, plan.n, LIMIT) for pair in zip(lost, gained, strict=True)],
            dtype=np.bool_,
        )
        passed &= hopeful
        running, candidate = running[passed], candidate[passed]
        returned[running] = candidate
    return returned


def wrong(world: World, returned: Integers) -> int:
    """Count searches that returned a candidate whose true drop is the limit or more."""
    return int((world.drops[returned[returned >= 0]] >= LIMIT).sum())


def certified_splits(lost: float, gained: float, plan: Plan, test: Test) -> int:
    """Count the certification splits that pass one candidate with these true shares."""
    world = World(np.array([lost]), np.array([gained]))
    counts = world.draw(plan.n, plan.times, np.random.default_rng(plan.seed))
    pairs = zip(counts[0][:, 0].tolist(), counts[1][:, 0].tolist(), strict=True)
    return sum(test(*pair, plan.n, LIMIT) for pair in pairs)


def promises() -> Iterator[Row]:
    """Check the promised figures, with 2,000 simulations each, and one beside them."""
    plan = Plan(10_000)
    start = time.perf_counter()
    share = certified_splits(0.0055, 0.0045, plan, exact_test) / plan.times
    yield {
        "what": "certified: limit 0.5 points, true drop 0.1, 1 % differ",
        "n": plan.n,
        "share": share,
        "at_least": 0.95,
        "held": share >= 0.95,
        "seconds": round(time.perf_counter() - start, 2),
    }
    for name, world, times in (
        ("on", on_the_limit(), 2000),
        ("through", through_the_limit(), 20_000),
    ):
        for n in (1000, 2500, 10_000):
            start = time.perf_counter()
            share = wrong(world, search(world, Plan(n, times), exact_test)) / times
            yield {
                "what": f"wrongly certified: candidates {name} the limit",
                "n": n,
                "share": share,
                "at_most": 0.05,
                "held": share <= 0.05,
                "seconds": round(time.perf_counter() - start, 2),
            }


LEFT: dict[str, Test] = {
    "exact (penjing)": exact_test,
    "betting": betting_test,
    "Hoeffding": hoeffding_test,
}
RIGHT: dict[str, tuple[Test, bool]] = {
    "choosing on the certification data": (exact_test, True),
    "normal approximation": (normal_test, False),
    "exact (penjing)": (exact_test, False),
}
SIZES = [250, 500, 1000, 2500, 5000, 10_000]


def panels() -> Iterator[Row]:
    """Simulate what the picture shows."""
    for method, test in LEFT.items():
        for step in range(13):
            drop, plan = step / 2000, Plan(10_000, seed=2)
            passed = certified_splits((0.01 + drop) / 2, (0.01 - drop) / 2, plan, test)
            yield {"what": "left", "method": method, "x": drop, "share": passed / plan.times}
    world = on_the_limit()
    for method, (test, peek) in RIGHT.items():
        for n in SIZES:
            plan = Plan(n, times=20_000, seed=1)
            broken = wrong(world, search(world, plan, test, peek=peek))
            yield {"what": "right", "method": method, "x": n, "share": broken / plan.times}


COLOURS = {
    "exact (penjing)": "#2f81f7",
    "betting": "#2da44e",
    "Hoeffding": "#8c959f",
    "normal approximation": "#d4881c",
    "choosing on the certification data": "#d1496b",
}
INK = "#1f2329"  # used for nothing else; the file says a variable instead, set by the theme
STYLE = "<style>svg{--ink:#1f2328}@media(prefers-color-scheme:dark){svg{--ink:#d1d7e0}}</style>"


def draw(found: list[Row], path: Path) -> None:
    """Draw both panels as an SVG that follows the reader's light or dark theme."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rc("svg", hashsalt="penjing", fonttype="none")
    mpl.rc("font", size=9)
    mpl.rc("text", color=INK)
    mpl.rc("axes", labelcolor=INK, edgecolor=INK)
    mpl.rc("xtick", color=INK)
    mpl.rc("ytick", color=INK)
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    for axes, panel, scale in ((left, "left", 100), (right, "right", 1)):
        for method, colour in COLOURS.items():
            line = [r for r in found if (r["what"], r.get("method")) == (panel, method)]
            if line:
                x, y = [scale * r["x"] for r in line], [100 * r["share"] for r in line]
                axes.plot(x, y, "o-", ms=3, lw=1.8, color=colour, label=method)
        axes.axhline(5, color=INK, lw=0.8, ls=":")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="center left" if axes is left else (0.32, 0.53))
    left.axvline(0.5, color=INK, lw=0.8, ls="--")
    left.annotate("limit", (0.5, 97), (4, 0), textcoords="offset points")
    left.annotate("5 %", (0.0, 5), (0, 3), textcoords="offset points")
    left.set_title("What is certified: 10,000 samples, 1 % differ")
    left.set_xlabel("true drop in points")
    left.set_ylabel("certified, % of 2,000 splits")
    right.set_title("All 30 candidates exactly on the limit")
    right.set_xlabel("certification samples")
    right.set_ylabel("wrongly certified, % of 20,000 searches")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_ylim(2, 110)
    right.set_xticks(SIZES, [f"{n:,}" for n in SIZES])
    right.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    right.minorticks_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = path.read_text(encoding="utf-8").replace(INK, "var(--ink, #7d8590)")
    text = text.replace("<defs>", f"{STYLE}\n <defs>", 1)
    lines = [line.rstrip() for line in text.splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Print every row, then a table of the promises; draw; give 1 if one is broken."""
    parser = argparse.ArgumentParser(description="Simulate searches and their certificates.")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where to draw")
    chosen = parser.parse_args()
    checked: list[Row] = []
    drawn: list[Row] = []
    for rows, kept in ((promises(), checked), (panels(), drawn)):
        for row in rows:
            kept.append(row)
            print(json.dumps(row), flush=True)
    print(f"\n{'':56}{'n':>7}{'share':>9}{'bound':>10}  held")
    for row in checked:
        bound = f">= {row['at_least']:.0%}" if "at_least" in row else f"<= {row['at_most']:.0%}"
        held = "yes" if row["held"] else "NO"
        print(f"{row['what']:56}{row['n']:7,}{row['share']:9.2%}{bound:>10}  {held}")
    draw(drawn, chosen.picture)
    return 0 if all(row["held"] for row in checked) else 1


if __name__ == "__main__":
    raise SystemExit(main())
