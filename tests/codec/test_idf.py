"""The integer flow of IDF++, its networks, and quantized models as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridkern import codec, flows, nets
from hybridkern.flows._slices import Slices
from tests.codec import cases


@pytest.mark.parametrize("net", ["conv", "resnet", "densenet", "groupnorm-swish"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 8)])
def test_quarter_couplings_are_exact(net: str, shape: tuple[int, int, int]) -> None:
    flow = cases.flow(shape=shape, coupling="quarter", net=net, prior="mixture")
    x = cases.images(1, 6, shape)
    z, log_det = flow(x)
    assert torch.equal(z, z.round()) and not log_det.any()
    assert not torch.equal(z.flatten().sort().values, x.flatten().float().sort().values)
    assert torch.equal(flow.inverse(z)[0].long(), x)
    assert torch.equal(flow.inverse(z[2:3])[0].long(), x[2:3])


def test_quarter_couplings_learn() -> None:
    """Every parameter has a gradient, the factors before the rounding among them."""
    flow = cases.flow(coupling="quarter", net="resnet", prior="mixture").train()
    (-flow.log_prob(cases.images(2, 8)).mean()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in flow.parameters())


def test_fresh_flow_leaves_pixels_where_they_are() -> None:
    """Networks start at zero, and the permutation is undone."""
    flow = flows.IDF((1, 4, 4), levels=1, layers=3, hidden=12, coupling="quarter", net="densenet").eval()
    x = cases.images(3, 2, (1, 4, 4))
    z, _ = flow(x)
    assert torch.equal(z[:, 0].long(), x[:, 0, 0, 0]) and torch.equal(z[:, 3].long(), x[:, 0, 1, 1])


def test_states_load_or_are_refused_by_name() -> None:
    parts, quarter = cases.flow(), cases.flow(coupling="quarter")
    flows.IDF((1, 8, 8), layers=2, hidden=12, center=8, scale=8).load_state_dict(parts.state_dict())
    with pytest.raises(RuntimeError, match=r"couplings.levels.0.0"):
        quarter.load_state_dict(parts.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coupling": "half"}, "coupling: got 'half'"),
        ({"net": "transformer"}, "net: got 'transformer', expected .*'groupnorm-swish'"),
        ({"net": "densenet", "hidden": 3}, "hidden: got 3"),
    ],
)
def test_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flows.IDF((1, 8, 8), **options)


def test_images_alone() -> None:
    with pytest.raises(ValueError, match="coupling"):
        flows.IDF(4, coupling="quarter")
    with pytest.raises(TypeError, match="net: got 'resnet'"):
        flows.IDF(4, net="resnet")


def test_networks_have_their_sizes() -> None:
    x = torch.randn(2, 6, 5, 4)
    for net in (nets.ResNet(6, 3, 8, blocks=2), nets.DenseNet(6, 3, 25), nets.DenseNet(6, 3, 24, 4, norm=True)):
        assert net(x).shape == (2, 3, 5, 4) and not net(x).any()
    for build in (lambda: nets.ResNet(6, 3, 0), lambda: nets.DenseNet(6, 3, 4)):
        with pytest.raises(ValueError, match="hidden: got"):
            build()


@pytest.mark.parametrize("options", [{}, {"coupling": "quarter", "net": "resnet", "prior": "mixture"}])
def test_quantized_models_cost_little(options: dict) -> None:
    x = cases.images(4, 64)
    found = codec.quantize(cases.flow(strength=0.03, **options), x)
    half_a_byte = 4 / 64
    assert abs(found.bits["integers"] - found.bits["float"] - half_a_byte) < 0.05


@pytest.mark.parametrize(
    "options", [{"levels": 1}, {"levels": 3}, {"prior": "mixture", "components": 1}, {"slices": 3}], ids=str
)
def test_models_of_any_levels_and_components(options: dict, tmp_path: Path) -> None:
    x = cases.images(5, 4)
    model = codec.quantize(cases.flow(**options), x)
    codec.save(model, tmp_path / "model.npz")
    assert torch.equal(codec.Codec(codec.load(tmp_path / "model.npz")).decode(codec.Codec(model).encode(x)), x)


def test_files(tmp_path: Path) -> None:
    x = cases.images(5, 20)
    model = codec.quantize(cases.flow(coupling="quarter", net="resnet", prior="mixture"), x)
    codec.save(model, tmp_path / "model.npz")
    again = codec.load(tmp_path / "model.npz")
    assert again.fingerprint() == model.fingerprint() and again.bits == model.bits
    data = codec.Codec(model).encode(x)
    assert codec.Codec(again).encode(x) == data
    assert torch.equal(codec.Codec(again).decode(data), x)
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]
    content = (tmp_path / "model.npz").read_bytes()
    for damaged in (content[:-200], b"", content[:300] + b"x" * 50 + content[350:]):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged.npz: got"):
            codec.load(tmp_path / "damaged.npz")
    with pytest.raises(TypeError, match="model: got"):
        codec.save(cases.flow(), tmp_path / "other.npz")


def _described(path: Path, **changes: object) -> Path:
    """The file with another description; ``None`` leaves a part of it out."""
    with np.load(path) as archive:
        arrays = dict(archive)
    found = json.loads(arrays.pop("description").tobytes()) | changes
    text = json.dumps({name: value for name, value in found.items() if value is not None})
    np.savez(path, **arrays, description=np.frombuffer(text.encode(), np.uint8))
    return path


def test_files_without_a_number_of_slices_have_one(tmp_path: Path) -> None:
    """As versions before slices wrote them."""
    model = codec.quantize(cases.flow(), cases.images(5, 4))
    codec.save(model, tmp_path / "model.npz")
    assert codec.load(_described(tmp_path / "model.npz", slices=None)).fingerprint() == model.fingerprint()


@pytest.mark.parametrize("slices", [0, -1, 1, 2, 4, 2.0, "3"])
def test_files_with_another_number_of_slices_are_refused(slices: object, tmp_path: Path) -> None:
    codec.save(codec.quantize(cases.flow(slices=3), cases.images(5, 4)), tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"model.npz: got a file that holds no quantized model"):
        codec.load(_described(tmp_path / "model.npz", slices=slices))


@pytest.mark.parametrize("what", ["order", "sizes", "change", "means", "dtype", "table", "channels", "slices"])
def test_files_that_fit_nowhere_are_refused(tmp_path: Path, what: str) -> None:
    """Made by hand, with the fingerprint of what they hold."""
    model = codec.quantize(cases.flow(), cases.images(5, 4))
    prior, coupling = model.prior, model.couplings()[0][0]
    if what == "order":
        coupling.order[0] = coupling.order[1]
    elif what == "sizes":
        coupling.sizes = (coupling.sizes[0] + 1, *coupling.sizes[1:])
    elif what == "change":
        prior.change = prior.change[:100]
    elif what == "means":
        prior.means = prior.means[:, :-1]
    elif what == "dtype":
        prior.means = prior.means.double()
    elif what == "table":
        coupling.nets[0].tables = coupling.nets[0].tables[:100]
    elif what == "slices":  # none of them, nor numbers for any
        prior.slices, prior.nets = Slices([(2, 4, 4), (8, 2, 2)], 0), torch.nn.ModuleList()
        prior.logits, prior.means, prior.scales = (t[:, :0] for t in (prior.logits, prior.means, prior.scales))
    else:
        coupling.nets[0] = prior.nets[0]
    codec.save(model, tmp_path / "made.npz")
    with pytest.raises(ValueError, match=r"made.npz: got a file that holds no quantized model.*: got .*, expected"):
        codec.load(tmp_path / "made.npz")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["base.marginal.mean", "base.nets.0.conv2.weight"])
def test_models_that_are_not_finite_are_refused(name: str, value: float) -> None:
    model = cases.flow()
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(ValueError, match=f"model: got NaN or infinity in {name}, expected finite numbers"):
        codec.quantize(model, cases.images(0, 4))
