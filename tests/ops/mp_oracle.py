"""The definitions of the operators in 50-digit arithmetic, one scalar at a time: what the NumPy oracle is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpmath import mp, mpf

DIGITS = 50


def sigmoid(v: mpf) -> mpf:
    """The logistic function."""
    return 1 / (1 + mp.exp(-v))


LOG_SCALES: dict[str, Callable[[mpf], mpf]] = {
    "exp": lambda a: a,
    "glow": lambda a: mp.log(sigmoid(a + 2)),
    "additive": lambda a: mpf(0),
    "realnvp": lambda a: 2 * mp.tanh(a / 2),
    "normflows": lambda a: mp.log(sigmoid(a + 2)),
    "nflows": lambda a: mp.log(sigmoid(a + 2) + mpf(1e-3)),
    "freia": lambda a: 2 * mpf(0.636) * mp.atan(a),
    "zuko": lambda a: a / (1 + abs(a / mpf(float(mp.log(mpf(1e-3)))))),
    "bounded": lambda a: mp.tanh(a),
    "normflows_sigmoid_inv": lambda a: -mp.log(sigmoid(a + 2)),
    "normflows_exp": lambda a: -a,
    "nflows_maf": lambda a: mp.log(mp.log(1 + mp.exp(a)) + mpf(1e-3)),
    "normflows_maf": lambda a: mp.log(sigmoid(a + 2) + mpf(1e-3)),
    "zuko_maf": lambda a: a / (1 + abs(a / mpf(float(mp.log(mpf(1e-3)))))),
    "freia_tanh": lambda a: 2 * mp.tanh(a),
    "freia_sigmoid": lambda a: 2 * (2 * sigmoid(a) - 1),
    "freia_all_in_one": lambda a: 2 * mp.tanh(mpf("0.1") * a / 2),
}


def coupling(name: str, x: mpf, a: mpf, t: mpf, inverse: bool) -> tuple[mpf, mpf]:
    """``y`` and ``log |dy/dx|`` of one element, as the named library writes the map."""
    log_s = LOG_SCALES[name](a)
    s = mp.exp(log_s)
    t = mpf("0.1") * t if name == "freia_all_in_one" else t
    if name == "glow":
        return (x / s - t, -log_s) if inverse else ((x + t) * s, log_s)
    if name.startswith("normflows") and name != "normflows_maf":
        return (x / s + t, -log_s) if inverse else ((x - t) * s, log_s)
    return ((x - t) / s, -log_s) if inverse else (x * s + t, log_s)


def discretized_logistic(x: mpf, mean: mpf, log_scale: mpf, bin_width: float) -> mpf:
    """Log of the mass between the edges of the bin; taken in the left tail, where the difference keeps its digits."""
    distance, scale = -abs(x - mean), mp.exp(log_scale)
    half = mpf(bin_width) / 2
    return mp.log(sigmoid((distance + half) / scale) - sigmoid((distance - half) / scale))


def mixture(x: mpf, logits: Sequence[mpf], mean: Sequence[mpf], log_scale: Sequence[mpf], bin_width: float) -> mpf:
    """Log of the weighted sum of the components' masses."""
    total = mp.fsum(mp.exp(logit) for logit in logits)
    components = zip(logits, mean, log_scale, strict=True)
    return mp.log(
        mp.fsum(mp.exp(l) / total * mp.exp(discretized_logistic(x, m, s, bin_width)) for l, m, s in components)
    )


def gaussian(x: mpf, mean: mpf, log_scale: mpf) -> mpf:
    """Log of the normal density."""
    return mp.log(mp.npdf(x, mean, mp.exp(log_scale)))


def derivative(function: Callable[..., mpf], args: Sequence[mpf], index: int) -> mpf:
    """Central difference in one argument, with digits to spare: exact to 20 digits or more."""
    step = mpf(10) ** -25 * max(abs(args[index]), mpf(10) ** -5)

    def at(shift: mpf) -> mpf:
        return function(*args[:index], args[index] + shift, *args[index + 1 :])

    with mp.workdps(2 * DIGITS + 30):
        return (at(step) - at(-step)) / (2 * step)
