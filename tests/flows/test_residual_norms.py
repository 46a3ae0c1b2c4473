"""Residual flows keep their bounds however their weights are written to, loaded or replaced."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hybridkern.flows import Residual
from hybridkern.lipschitz import LipschitzLayer
from hybridkern.lipschitz.squaring import leading

X = torch.randn(16, 2, generator=torch.Generator().manual_seed(5))


def made() -> Residual:
    torch.manual_seed(0)
    flow = Residual(2, blocks=2, hidden=(16,))
    flow.log_prob(X)
    return flow


def layers(flow: Residual) -> list[LipschitzLayer]:
    return [module for module in flow.modules() if isinstance(module, LipschitzLayer)]


def largest(flow: Residual) -> float:
    """The largest spectral norm that a pass uses, by a singular value decomposition."""
    flow.log_prob(X)
    return max(float(torch.linalg.matrix_norm(w.detach().double(), 2)) for w in flow._weights().values())


@torch.no_grad()
def _through_data(flow: Residual, values: list[Tensor]) -> None:
    for parameter, value in zip(flow.parameters(), values, strict=True):
        parameter.data.copy_(value)


@torch.no_grad()
def _as_data(flow: Residual, values: list[Tensor]) -> None:
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(values), flow.parameters())


def _by_assignment(flow: Residual, values: list[Tensor]) -> None:
    names = [name for name, _ in flow.named_parameters()]
    flow.load_state_dict(dict(zip(names, values, strict=True)), strict=False, assign=True)


@pytest.mark.parametrize("write", [_through_data, _as_data, _by_assignment])
def test_weights_written_past_their_version_are_followed(write: Callable[[Residual, list[Tensor]], None]) -> None:
    flow = made()
    write(flow, [3 * torch.randn_like(p) for p in flow.parameters()])
    assert largest(flow) <= 0.98 * 1.001


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_weight_that_was_lost_is_followed_again(value: float) -> None:
    """A last layer that starts at zero, as that of an identity does; a step that went wrong and was taken back."""
    flow = made()
    weight = layers(flow)[-1].weight
    for new in (torch.full_like(weight, value), 3 * torch.randn_like(weight)):
        with torch.no_grad():
            weight.copy_(new)
        flow.log_prob(X)
    assert largest(flow) <= 0.98 * 1.001


def test_a_direction_that_became_blind_is_left() -> None:
    flow = made()
    weight = layers(flow)[0].weight
    for column in (0, 1):
        with torch.no_grad():
            weight.zero_()
            weight[:, column] = 3.0
        assert largest(flow) <= 0.98 * 1.001


def test_averaged_checkpoints_keep_their_bounds() -> None:
    flow, other = made(), made()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(5 * torch.randn_like(parameter))
    other.log_prob(X)
    both = zip(flow.state_dict().items(), other.state_dict().values(), strict=True)
    average = {name: (a + b) / 2 if a.is_floating_point() else a for (name, a), b in both}
    average["scales.0.blocks.1.net.layers.1.left"].zero_()  # the signs of singular vectors are arbitrary
    flow.load_state_dict(average)
    assert largest(flow) <= 0.98 * 1.001


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_models_keep_their_bound(use_buffers: bool) -> None:
    flow = Residual(2, blocks=2, hidden=(16,))
    mean = AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=use_buffers)
    plain = AveragedModel(flow, use_buffers=use_buffers)
    for scale in (1.0, 3.0, 5.0):
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
        flow.log_prob(X)
        for average in (mean, plain):
            average.update_parameters(flow)
    assert largest(mean.module) <= 0.98 * 1.001 and largest(plain.module) <= 0.98 * 1.001


def test_saved_after_a_step_it_goes_on_as_it_would_have() -> None:
    flow, other = made(), made()
    optimizer = torch.optim.SGD(flow.parameters(), lr=0.5)
    flow.log_prob(X).mean().backward()
    optimizer.step()
    state = copy.deepcopy(flow.state_dict())
    other.load_state_dict(state)
    assert torch.equal(other.log_prob(X), flow.log_prob(X))
    assert layers(flow)[0].settled and not state["scales.0.blocks.0.net.layers.0.settled"]


def test_transforms_with_weights_of_unknown_norm_warn() -> None:
    flow = made().eval()
    params, buffers = dict(flow.named_parameters()), dict(flow.named_buffers())

    def loss(given: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(flow, (given, buffers), (X,))[1].mean()

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        torch.func.grad(loss)(params)
        torch.func.vmap(lambda x: flow(x[None])[1])(X)
    with pytest.warns(RuntimeWarning, match=r"call update_lipschitz\(\) outside"):
        torch.func.grad(loss)({name: 3 * value.detach() for name, value in params.items()})


@pytest.mark.parametrize("net", ["mlp", "dense"])
def test_hooks_of_layers_run(net: str) -> None:
    flow = Residual(2, blocks=2, net=net, hidden=(4, 4)).eval()
    seen: list[nn.Module] = []
    for layer in layers(flow):
        layer.register_forward_hook(lambda module, given, out: seen.append(module))
    with torch.no_grad():
        flow.inverse(X)
        flow(X)
    assert set(seen) == set(layers(flow))


@pytest.mark.parametrize(("outputs", "inputs"), [(7, 30), (30, 7), (1, 4), (24, 24)])
@pytest.mark.parametrize("asks", [True, False])
def test_squaring_finds_the_norms(outputs: int, inputs: int, asks: bool) -> None:
    """Of matrices whose two largest singular values are a hundredth apart, from the vectors of the smallest."""
    generator = torch.Generator().manual_seed(2)
    u, s, v = torch.linalg.svd(torch.randn(3, outputs, inputs, generator=generator), full_matrices=False)
    if s.shape[1] > 1:
        s[:, 1] = 0.99 * s[:, 0]
    found = leading((u * s[:, None]) @ v, v[:, -1], stages=4, tolerance=1e-4 if asks else None)
    reached = torch.linalg.vector_norm((u * s[:, None]) @ v @ found[..., None], dim=(1, 2))
    torch.testing.assert_close(reached, s[:, 0], rtol=1e-4, atol=0)


def test_squaring_leaves_directions_that_a_matrix_does_not_see() -> None:
    weights = torch.diag_embed(torch.tensor([[1.0, 0.0], [1.0, 1e-12]]))
    found = leading(weights, torch.tensor([[0.0, 1.0], [0.0, 1.0]]), stages=4, tolerance=1e-6)
    assert found[:, 0].abs().tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_bound(dtype: torch.dtype) -> None:
    """Factorizations have no kernels for float16. A weight rounded to 8 bits has a norm that is as far off."""
    flow = made().to(dtype)
    with torch.no_grad():
        for layer in layers(flow):
            layer.weight.mul_(3)
    flow.log_prob(X.to(dtype))
    norms = [float(torch.linalg.matrix_norm(w.detach().double(), 2)) for w in flow._weights().values()]
    assert max(norms) <= 0.98 * (1 + 2 * torch.finfo(dtype).eps)
