"""The definitions of the operators in 50-digit arithmetic, one scalar at a time: what the NumPy oracle is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpmath import mp, mpf

from hybridkern.ops import SplineForm

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


def _spline_knots(raw: Sequence[mpf], form: SplineForm, bins: int, bound: float, tails: str) -> list[list[mpf]]:
    """Places of the knots, their values, and the derivatives there."""

    def clip(v: mpf, most: mpf) -> mpf:
        return v / (1 + abs(v) / most)

    zuko, limit = form.scheme == "zuko", -mp.log(mpf(form.slope))
    places = []
    for part, floor in ((raw[:bins], form.min_width), (raw[bins : 2 * bins], form.min_height)):
        a = [clip(form.gain * v, limit / 2) if zuko else mpf(form.gain) * v for v in part]
        total, low = mp.fsum(map(mp.exp, a)), mpf(0) if zuko else mpf(floor)
        sizes = [low + (1 - low * bins) * mp.exp(v) / total for v in a]
        places.append([mpf(bound) * (2 * mp.fsum(sizes[:k]) - 1) for k in range(bins + 1)])
    least, beta = mpf(form.min_derivative), mpf(form.beta)
    d = [mp.exp(clip(r, limit)) if zuko else least + mp.log(1 + mp.exp(beta * r)) / beta for r in raw[2 * bins :]]
    if tails != "box":
        d = [*d, d[0]] if len(d) == bins else [mpf(1), *d, mpf(1)]
    return [*places, d]


def spline(
    x: mpf, raw: Sequence[mpf], form: SplineForm, bins: int, bound: float, tails: str, inverse: bool
) -> tuple[mpf, mpf]:
    """Value and log-derivative of a rational-quadratic spline, as Durkan et al. write it; ``x`` in the interval."""
    turn = form.scheme == "zuko" and tails == "circular"
    if turn and not inverse:
        x = x - mpf(bound) if x >= 0 else x + mpf(bound)
    across, up, d = _spline_knots(raw, form, bins, bound, tails)
    known = up if inverse else across
    k = max(i for i in range(bins) if known[i] <= x or i == 0)
    w, h, d0, d1 = across[k + 1] - across[k], up[k + 1] - up[k], d[k], d[k + 1]
    s = h / w
    if inverse:
        rise = x - up[k]
        a = h * (s - d0) + rise * (d0 + d1 - 2 * s)
        b = h * d0 - rise * (d0 + d1 - 2 * s)
        t = 2 * s * rise / (b + mp.sqrt(b * b + 4 * a * s * rise))
    else:
        t = (x - across[k]) / w
    below = s + (d0 + d1 - 2 * s) * t * (1 - t)
    slope = s * s * (d1 * t * t + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2) / below**2
    if not inverse:
        return up[k] + h * (s * t * t + d0 * t * (1 - t)) / below, mp.log(slope)
    y = across[k] + w * t
    return (y - mpf(bound) if y >= 0 else y + mpf(bound)) if turn else y, -mp.log(slope)
