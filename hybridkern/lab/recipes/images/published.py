"""The published figures of the experiments on images."""

from __future__ import annotations

from typing import NamedTuple

PAPER = "Nalisnick et al. 2019"


class PaperRow(NamedTuple):
    """A row of Nalisnick et al. 2019 (arXiv:1902.02767), tables 2 and 3.

    ``lam`` is per dimension, and so are the bits; NLL and entropy of ``p(y|x)`` are in nats; ``ood_`` is of the other
    set.
    """

    lam: float
    bits: float
    error: float
    nll: float
    ood_bits: float
    ood_nll: float
    ood_entropy: float


# test part MNIST, other set notMNIST; the whole training set, 16 steps of Glow, Highway networks of width 200
MNIST_ROWS = (
    PaperRow(0.0, 81.80, 0.0067, 0.082, 87.74, 29.27, 0.130),
    PaperRow(0.01, 1.83, 0.0073, 0.035, 5.84, 2.36, 2.300),
    PaperRow(1.0, 1.26, 0.0222, 0.081, 6.13, 2.30, 2.300),
    PaperRow(10.0, 1.25, 0.0401, 0.145, 6.17, 2.30, 2.300),
)
# test part SVHN, other set CIFAR-10; the whole training set, 24 steps of Glow, Highway networks of width 300
SVHN_ROWS = (
    PaperRow(0.0, 15.40, 0.0426, 0.225, 15.20, 4.60, 0.998),
    PaperRow(0.1, 3.35, 0.0486, 0.260, 7.06, 5.06, 1.153),
    PaperRow(1.0, 2.40, 0.0523, 0.253, 6.16, 4.23, 1.677),
    PaperRow(10.0, 2.23, 0.0727, 0.268, 7.03, 2.69, 2.143),
)


def by_lam(rows: tuple[PaperRow, ...], ood: str) -> dict[float, dict[str, str]]:
    """The figures as text by the keys of ``metrics.json``, for each ``lam``; ``ood`` is the name of the other set."""
    return {
        row.lam: {
            "ood": ood,
            "test_error": f"{100 * row.error:.2f} %",
            "test_bits_per_dim": f"{row.bits:.2f}",
            "test_class_nll_nats": f"{row.nll:.3f}",
            "ood_bits_per_dim": f"{row.ood_bits:.2f}",
            "ood_entropy_nats": f"{row.ood_entropy:.3f}",
        }
        for row in rows
    }
