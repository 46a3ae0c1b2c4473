"""Whether a Glow is initialized is what its buffer says, however the flow came by it."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hybridkern import flows
from hybridkern.flows import _initialized, _later

SHAPE = (1, 4, 4)


def images(n: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed)) * scale + shift


FIRST, LATER = images(32, 0, 0.3, -0.2), images(8, 1, 5.0, 3.0)


def make(seed: int = 0, **options: object) -> flows.Glow:
    torch.manual_seed(seed)
    return flows.Glow(SHAPE, levels=1, steps=2, hidden=8, **options)


def started() -> flows.Glow:
    flow = make().train()
    flow.log_prob(FIRST)
    return flow


def actnorm(flow: nn.Module) -> Tensor:
    mixing = flow.levels[0].mixing
    return torch.cat([mixing.log_scale.detach().flatten(), mixing.shift.detach().flatten()])


def assert_keeps_its_start(flow: nn.Module, run: Callable[[Tensor], object] | None = None) -> None:
    before = actnorm(flow)
    assert before.any() and bool(flow._initialized)
    flow.train()
    (run or flow.log_prob)(LATER)
    assert torch.equal(actnorm(flow), before)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averages_made_before_the_first_batch(use_buffers: bool) -> None:
    for average in (None, get_ema_multi_avg_fn(0.9)):
        flow = make().train()
        mean = AveragedModel(flow, multi_avg_fn=average, use_buffers=use_buffers)
        flow.log_prob(FIRST)
        mean.update_parameters(flow)
        flow.log_prob(FIRST)
        mean.update_parameters(flow)
        assert_keeps_its_start(mean.module)


def _copied() -> flows.Glow:
    flow, other = started(), make(1)
    with torch.no_grad():
        for mine, theirs in zip(
            [*other.parameters(), *other.buffers()], [*flow.parameters(), *flow.buffers()], strict=True
        ):
            mine.copy_(theirs)
    return other


def _loaded(assign: bool) -> flows.Glow:
    other = make(1)
    other.load_state_dict(started().state_dict(), assign=assign)
    return other


def _from_meta(assign: bool) -> flows.Glow:
    with torch.device("meta"):
        other = make(1)
    if not assign:
        other.to_empty(device="cpu")
    other.load_state_dict(started().state_dict(), assign=assign)
    return other


def _saved() -> flows.Glow:
    file = io.BytesIO()
    torch.save(started(), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[], flows.Glow]] = {
    "values copied": _copied,
    "state_dict": lambda: _loaded(False),
    "state_dict, assign": lambda: _loaded(True),
    "meta, to_empty": lambda: _from_meta(False),
    "meta, assign": lambda: _from_meta(True),
    "deepcopy": lambda: copy.deepcopy(started()),
    "pickle": lambda: pickle.loads(pickle.dumps(started())),
    "torch.save": _saved,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_initialized_is_not_initialized_again(way: str) -> None:
    flow, original = WAYS[way](), started()
    torch.testing.assert_close(flow.eval().log_prob(FIRST), original.eval().log_prob(FIRST))
    assert flow.sample(2).device.type == "cpu" and flow.sample(2).isfinite().all()
    assert_keeps_its_start(flow)


def test_a_copy_made_before_the_first_batch_starts_by_itself() -> None:
    flow = make().train()
    other = copy.deepcopy(flow)
    flow.log_prob(FIRST)
    assert not other._initialized and not actnorm(other).any()
    other.log_prob(LATER)
    assert not torch.equal(actnorm(other), actnorm(flow))


def _replica(module: nn.Module) -> nn.Module:
    """What ``torch.nn.parallel.replicate`` makes of a module on the first device: views, and the same buffers."""
    copies = {name: part._replicate_for_data_parallel() for name, part in module.named_modules()}
    for name, part in module.named_modules():
        twin = copies[name]
        for key in part._modules:
            twin._modules[key] = copies[f"{name}.{key}".lstrip(".")]
        for key, value in part._parameters.items():
            if value is not None:
                setattr(twin, key, value.view_as(value))
        twin._buffers = dict(part._buffers)
    return copies[""]


def test_replicas_of_data_parallel_write_to_their_master() -> None:
    flow = make().train()
    _replica(flow)(FIRST)
    assert_keeps_its_start(flow, lambda x: _replica(flow)(x))


def test_inference_mode_before_training() -> None:
    flow = make().train()
    with torch.inference_mode():
        flow.log_prob(FIRST)
    assert torch.equal(actnorm(flow), actnorm(started()))
    flow.log_prob(FIRST).sum().backward()
    assert_keeps_its_start(flow)


def test_functional_call_reads_the_buffer_that_it_is_given() -> None:
    flow, state = make(1).train(), started().state_dict()
    tensors = {name: value for name, value in state.items() if not name.endswith("_extra_state")}
    given = {name: value.clone() for name, value in tensors.items()}
    functional_call(flow, given, (LATER,))
    assert all(torch.equal(given[name], value) for name, value in tensors.items()), "an initialized state is kept"
    assert not flow._initialized and not actnorm(flow).any()
    functional_call(started(), given | {"_initialized": torch.tensor(False)}, (LATER,))
    assert not torch.equal(given["levels.0.mixing.shift"], tensors["levels.0.mixing.shift"])


def test_the_buffer_set_back_starts_the_flow_again() -> None:
    flow = started()
    before = actnorm(flow)
    flow._initialized.fill_(False)
    flow.log_prob(LATER)
    assert not torch.equal(actnorm(flow), before)


def test_meta_tensors_run() -> None:
    with torch.device("meta"):
        flow = make().train()
        assert flow.log_prob(torch.empty(3, *SHAPE)).shape == (3,) and flow.sample(2).is_meta
        flow.initialize(torch.empty(3, *SHAPE))


@pytest.mark.parametrize("way", ["values copied", "state_dict, assign"])
def test_an_initialized_flow_compiles_to_one_graph(way: str) -> None:
    torch.compiler.reset()
    flow = WAYS[way]().train()
    before = actnorm(flow)
    got = torch.compile(flow.log_prob, fullgraph=True, backend="aot_eager")(LATER)
    torch.testing.assert_close(got, flow.log_prob(LATER), rtol=1e-4, atol=1e-3)
    assert torch.equal(actnorm(flow), before)


def test_a_flow_compiled_before_its_first_batch_starts_once() -> None:
    torch.compiler.reset()
    flow = make().train()
    compiled = torch.compile(flow.log_prob, backend="eager")
    compiled(FIRST)
    assert torch.equal(actnorm(flow), actnorm(started()))
    assert_keeps_its_start(flow, compiled)


def test_warns_once_where_it_is_used_uninitialized() -> None:
    flow = make().eval()
    with pytest.warns(RuntimeWarning, match=r"Glow: used before it was initialized.*flow\.initialize\(x\)"):
        flow.log_prob(FIRST)
    other = make()
    with pytest.warns(RuntimeWarning, match="used before it was initialized"):
        other.sample(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.log_prob(FIRST)
        other.eval().sample(2)
        make().train().log_prob(FIRST)
        make(norm="batchnorm").eval().log_prob(FIRST)
        started().eval().sample(2)


class _OnDevice:
    """Stands for a buffer on an accelerator, and counts how often it is waited for."""

    is_meta = is_cpu = False
    device = torch.device("cuda")

    def __init__(self) -> None:
        self.value, self._version, self.waits = False, 0, 0

    def __bool__(self) -> bool:
        self.waits += 1
        return self.value

    def is_inference(self) -> bool:
        return False

    def fill_(self, value: bool) -> None:
        self.value, self._version = value, self._version + 1


def test_a_buffer_on_a_device_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bool | None] = []

    class Asked:
        def __init__(self, flag: _OnDevice) -> None:
            self.flag = flag

        def answer(self) -> bool | None:
            return answers.pop(0)

    monkeypatch.setattr(_initialized, "_seen", {})
    monkeypatch.setattr(_initialized, "is_plain", lambda flag: True)
    monkeypatch.setattr(_initialized, "capturing", lambda device: False)
    monkeypatch.setattr(_initialized, "Later", Asked)
    flag = _OnDevice()
    assert not _initialized.is_initialized(flag) and flag.waits == 1
    _initialized.mark_initialized(flag)
    assert all(_initialized.is_initialized(flag) for _ in range(3)) and flag.waits == 1
    flag.fill_(True)  # a broadcast of buffers: asked for, never waited for
    answers += [None, None, True]
    assert all(_initialized.is_initialized(flag) for _ in range(4)) and flag.waits == 1 and not answers
    flag.fill_(False)
    answers += [None, False]
    assert _initialized.is_initialized(flag), "not known yet"
    assert not _initialized.is_initialized(flag) and flag.waits == 1
    assert not _initialized.is_initialized(flag) and flag.waits == 2


def test_an_answer_is_there_at_once_on_a_cpu() -> None:
    assert _later.Later(torch.tensor(True)).answer() is True and _later.Later(torch.tensor(False)).answer() is False


@pytest.mark.parametrize("shape", [6, (1, 4, 4)])
def test_starting_the_prior_leaves_frozen_parts_in_evaluation_mode(shape: int | tuple[int, ...]) -> None:
    flow = flows.IDF(shape, layers=1, parts=2, hidden=4, levels=1)
    flow.couplings.eval()
    modes = [module.training for module in flow.modules()]
    flow.initialize(torch.randint(5, (8, *flow.shape)))
    assert [module.training for module in flow.modules()] == modes
