"""Train a classifier on handwritten digits, compress it, and show the evidence.

Run it as ``python examples/digits.py [FOLDER]``; ``make demo`` does.  It needs the extras
``sklearn`` and ``report`` and no network: the 1,797 images come with scikit-learn.

A certificate needs samples that nobody has seen.  600 images train the network and, without
their labels, calibrate; the other 1,197 are divided into 479 that the search may look at and
718 that prove the result.  So few can prove "at most 3 points lost" with 95 % confidence,
not much less: even where no answer changes, 718 samples only tell that fewer than 1 in 200 do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import penjing

TRAINING_IMAGES = 600


def main(folder: Path) -> None:
    """Do everything, and leave ``digits.penjing`` and ``report.html`` in ``folder``."""
    images, digits = load_digits(return_X_y=True)
    x_train, x_rest, y_train, y_rest = train_test_split(
        images.astype("float32"),
        digits,
        train_size=TRAINING_IMAGES,
        stratify=digits,
        random_state=0,
    )
    network = MLPClassifier((256, 128), alpha=0.1, max_iter=1000, random_state=0)
    model = make_pipeline(StandardScaler(), network)
    model.fit(x_train, y_train)
    print(
        f"Trained on {len(x_train)} images: {model.score(x_rest, y_rest):.1%} of others right"
    )

    result = penjing.compress(
        model,
        data=(x_rest, y_rest),
        calibration=x_train,
        budget=penjing.Budget(max_drop=0.03, confidence=0.95),
        name="digits classifier",
    )
    result.report.show()

    folder.mkdir(parents=True, exist_ok=True)
    small, page = folder / "digits.penjing", folder / "report.html"
    result.artifact.save(small)
    result.report.save(page)
    loaded = penjing.evaluate(small, (x_rest, y_rest))
    print(f"\nLoaded back from {small}: {loaded.metric} {loaded.value.value:.4f}")
    print(f"The evidence, with charts: {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
