"""Random models of every layer of each library: accelerated they compute what they computed, or fail as they failed.

``HYBRIDKERN_EXAMPLES=2000`` draws so many of each kind instead of a few, and others each time.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridkern import use_backend
from tests.integrations.compositions import freia_layers, nflows_layers, normflows_layers, normflows_models, zuko_layers
from tests.integrations.compositions.compare import Call, Plan, check
from tests.integrations.compositions.networks import NETWORKS

WANTED = os.environ.get("HYBRIDKERN_EXAMPLES")
EXAMPLES = settings(
    max_examples=int(WANTED or 20),
    derandomize=WANTED is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
OPTIONS: list[dict[str, Any]] = [{}, {"memory": "recompute"}, {"networks": True}]


@pytest.fixture(params=["reference", "auto"], autouse=True)
def _backend(request: pytest.FixtureRequest) -> Iterator[None]:
    with use_backend(request.param):
        yield


class Named:
    """A function that shows what it makes when a test fails."""

    def __init__(self, name: str, function: Callable[[], Any]) -> None:
        self.name, self.function = name, function

    def __repr__(self) -> str:
        return self.name

    def __call__(self) -> Any:
        """Calls the function."""
        return self.function()


@st.composite
def plans(
    draw: Any, build: Callable[[Any], Callable[[], Any]], calls: Sequence[tuple[str, Call]], shape: tuple[int, ...]
) -> Plan:
    """What is done with a model that ``build`` makes of drawn layers."""
    function = build(draw)
    return Plan(
        function,
        draw(st.permutations(calls))[: draw(st.integers(2, 5))],
        shape,
        dtype=draw(st.sampled_from([torch.float64, torch.float64, torch.float32])),
        train=draw(st.booleans()),
        initialized=draw(st.booleans()),
        count=draw(st.sampled_from([5, 5, 5, 2, 1, 0])),
        seed=draw(st.integers(0, 2**16)),
        context=2,
        lenient=any(f"({name})" in repr(function) for name in ("writing", "in place", "constant")),
        options=draw(st.sampled_from(OPTIONS)),
    )


def layers(draw: Any, couplings: Any, others: Any) -> tuple[list[tuple[Any, str]], str]:
    """Up to five layers with the names of their networks, a coupling for sure; and all of it in words."""
    anything = st.one_of(st.sampled_from(sorted(couplings)), st.sampled_from(sorted(others)))
    names = draw(st.lists(anything, min_size=0, max_size=4))
    names.insert(draw(st.integers(0, len(names))), draw(st.sampled_from(sorted(couplings))))
    # these fill random numbers in the order of memory, which need not be that of the library after a strided network
    allowed = NETWORKS.keys() - ({"strided"} if {"residual", "hmc", "metropolis"} & set(names) else set())
    networks = [draw(st.sampled_from(sorted(allowed))) for _ in names]
    pairs = list(zip(names, networks, strict=True))
    made = [({**others, **couplings}[name], network) for name, network in pairs]
    return made, "; ".join(f"{name} ({network})" if name in couplings else name for name, network in pairs)


def run(plan: Plan) -> None:
    """Compares, without the libraries' warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(plan)


def normflows_plan(images: bool) -> Any:
    """A model of normflows."""
    module = normflows_layers
    kinds = (module.IMAGE_COUPLINGS, module.IMAGE_OTHERS) if images else (module.COUPLINGS, module.OTHERS)
    shape = module.IMAGE if images else (module.DIM,)

    def plan(name: str) -> Any:
        model, calls = normflows_models.MODELS[name]

        def build(draw: Any) -> Callable[[], Any]:
            drawn, words = layers(draw, *kinds)
            return Named(f"{name}: {words}", lambda: model([make(network) for make, network in drawn], shape))

        return plans(build, calls, shape)

    return st.sampled_from(normflows_models.IMAGE_MODELS if images else normflows_models.VECTOR_MODELS).flatmap(plan)


def nflows_plan(images: bool) -> Any:
    """A model of nflows."""
    module = nflows_layers
    kinds = (module.IMAGE_COUPLINGS, module.IMAGE_OTHERS) if images else (module.COUPLINGS, module.OTHERS)
    shape = module.IMAGE if images else (module.DIM,)

    def build(draw: Any) -> Callable[[], Any]:
        name = draw(st.sampled_from(sorted(module.MODELS)))
        model = module.MODELS[name]
        drawn, words = layers(draw, *kinds)
        return Named(f"{name}: {words}", lambda: model([make(network) for make, network in drawn], shape))

    return plans(build, module.CALLS, shape)


def freia_plan(images: bool) -> Any:
    """A model of FrEIA."""
    module = freia_layers
    others = module.IMAGE_OTHERS if images else module.VECTOR_OTHERS
    shape = module.IMAGE if images else (module.DIM,)

    def build(draw: Any) -> Callable[[], Any]:
        model = draw(st.sampled_from([module.sequence, module.graph]))
        drawn, words = layers(draw, module.COUPLINGS, others)
        kinds, networks = zip(*drawn, strict=True)
        return Named(f"{model.__name__}: {words}", lambda: model(kinds, networks, shape))

    return plans(build, module.CALLS, shape)


def zuko_plan() -> Any:
    """A model of zuko."""
    module = zuko_layers

    def build(draw: Any) -> Callable[[], Any]:
        name = draw(st.sampled_from(sorted(module.MODELS)))
        model = module.MODELS[name]
        drawn, words = layers(draw, module.COUPLINGS, module.OTHERS)
        return Named(f"{name}: {words}", lambda: model([make(network) for make, network in drawn], module.SHAPE))

    return plans(build, module.CALLS, module.SHAPE)


@EXAMPLES
@given(plan=normflows_plan(images=False))
def test_normflows_on_vectors(plan: Plan) -> None:
    run(plan)


@EXAMPLES
@given(plan=normflows_plan(images=True))
def test_normflows_on_images(plan: Plan) -> None:
    run(plan)


@EXAMPLES
@given(plan=nflows_plan(images=False))
def test_nflows_on_vectors(plan: Plan) -> None:
    run(plan)


@EXAMPLES
@given(plan=nflows_plan(images=True))
def test_nflows_on_images(plan: Plan) -> None:
    run(plan)


@EXAMPLES
@given(plan=freia_plan(images=False))
def test_freia_on_vectors(plan: Plan) -> None:
    run(plan)


@EXAMPLES
@given(plan=freia_plan(images=True))
def test_freia_on_images(plan: Plan) -> None:
    run(plan)


@EXAMPLES
@given(plan=zuko_plan())
def test_zuko(plan: Plan) -> None:
    run(plan)
