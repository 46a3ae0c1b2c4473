"""The columns of the table: every way PyTorch differentiates, applied to a :class:`Subject`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as fw
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

from tests.derivatives.subject import Subject, Tensors, all_close, close, dot, moved


def backward(subject: Subject) -> None:
    """All gradients, then each alone."""
    leaves = subject.leaves()
    subject.loss(leaves).backward()
    got = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    all_close(got, subject.expected_gradient, "backward")


def each_alone(subject: Subject) -> None:
    """One tensor requires a gradient, the others do not."""
    names = list(subject.tensors)
    for name in names if len(names) <= 6 else (names[0], names[len(names) // 2], names[-1]):
        leaf = subject.tensors[name].detach().clone().requires_grad_()
        loss = subject.loss(subject.tensors | {name: leaf})
        if not loss.requires_grad:
            assert not subject.expected_gradient[name].any()
            continue
        (got,) = subject.grads(loss, {name: leaf}, create_graph=True)
        close(got, subject.expected_gradient[name], f"only {name} requires a gradient")


def forward_mode(subject: Subject) -> None:
    """``jvp`` and dual numbers: of tensors that require a gradient or not, with and without ``no_grad``."""
    expected = dot(subject.expected_gradient, subject.direction)
    value, tangent = jvp(subject.loss, (subject.tensors,), (subject.direction,))
    close(tangent, expected, "jvp")
    close(value, subject.loss(subject.tensors), "the value of jvp")
    with torch.no_grad():
        close(jvp(subject.loss, (subject.tensors,), (subject.direction,))[1], expected, "jvp under no_grad")
    for given in (subject.tensors, subject.leaves()):
        for recording in (True, False):
            with torch.set_grad_enabled(recording), fw.dual_level():
                duals = {name: fw.make_dual(value, subject.direction[name]) for name, value in given.items()}
                found = fw.unpack_dual(subject.loss(duals)).tangent
            assert found is not None, "dual numbers lost their tangent"
            close(found, expected, "dual numbers")


def one_dual(subject: Subject) -> None:
    """A tangent of ``main`` alone; the other tensors are ordinary ones."""
    name = subject.main
    expected = (subject.expected_gradient[name] * subject.direction[name]).sum()
    with fw.dual_level():
        dual = fw.make_dual(subject.tensors[name], subject.direction[name])
        found = fw.unpack_dual(subject.loss(subject.with_main(dual))).tangent
    assert found is not None, "a dual number lost its tangent"
    close(found, expected, "one dual number")
    close(jacfwd(lambda v: subject.loss(subject.with_main(v)))(subject.tensors[name]),
          subject.expected_gradient[name], "jacfwd")  # fmt: skip


def product(subject: Subject) -> None:
    """Hessian-vector products: backward twice, forward over reverse, reverse over forward."""
    expected, v = subject.expected_product, subject.direction
    leaves = subject.leaves()
    first = dict(zip(leaves, subject.grads(subject.loss(leaves), leaves, create_graph=True), strict=True))
    all_close(first, subject.expected_gradient, "the gradient of create_graph")
    twice = dict(zip(leaves, subject.grads(dot(first, v), leaves), strict=True))
    all_close(twice, expected, "backward twice")
    all_close(jvp(grad(subject.loss), (subject.tensors,), (v,))[1], expected, "jvp of grad")
    all_close(grad(lambda t: jvp(subject.loss, (t,), (v,))[1])(subject.tensors), expected, "grad of jvp")
    with fw.dual_level():
        duals = {name: fw.make_dual(value, v[name]) for name, value in subject.leaves().items()}
        found = [fw.unpack_dual(g).tangent for g in subject.grads(subject.loss(duals), duals)]
    filled = {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(v.items(), found, strict=True)}
    all_close(filled, expected, "tangents of gradients")


def penalty(subject: Subject) -> None:
    """A gradient penalty: ``backward`` through the gradient of ``main`` reaches every tensor."""
    name = subject.main
    slope = subject.expected_gradient[name]
    size = max(1.0, slope.abs().max().item())  # differences of a short way, however steep it is
    direction = {n: torch.zeros_like(t) if n != name else slope / size for n, t in subject.tensors.items()}
    expected = {n: 2 * size * value for n, value in subject.along(direction).items()}
    leaves = subject.leaves()
    (inner,) = torch.autograd.grad(subject.loss(leaves), leaves[name], create_graph=True)
    inner.square().sum().backward()
    got = {n: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for n, leaf in leaves.items()}
    all_close(got, expected, "gradient penalty")


def hessians(subject: Subject) -> None:
    """The whole Hessian in ``main``, seven ways."""
    at, expected = subject.tensors[subject.main], subject.expected_hessian
    loss: Callable[[Tensor], Tensor] = lambda value: subject.loss(subject.with_main(value))  # noqa: E731
    plain = torch.autograd.functional.hessian
    ways: dict[str, Callable[[], Tensor]] = {
        "functional.hessian": lambda: plain(loss, at),
        "functional.hessian, vectorized": lambda: plain(loss, at, vectorize=True),
        "functional.hessian, forward over reverse": lambda: plain(
            loss, at, vectorize=True, outer_jacobian_strategy="forward-mode"
        ),
        "func.hessian": lambda: hessian(loss)(at),
        "jacrev(jacrev)": lambda: jacrev(jacrev(loss))(at),
        "jacrev(jacfwd)": lambda: jacrev(jacfwd(loss))(at),
        "jacfwd(jacfwd)": lambda: jacfwd(jacfwd(loss))(at),
    }
    for name, way in ways.items():
        found = way()
        close(found.reshape(expected.shape), expected, name)


def third(subject: Subject) -> None:
    """The third derivative along the direction, by three backward passes."""
    v = subject.direction

    def curvature(tensors: Tensors, create_graph: bool = False) -> tuple[Tensor, Tensors]:
        leaves = {name: value.detach().requires_grad_() for name, value in tensors.items()}
        first = dict(zip(leaves, subject.grads(subject.loss(leaves), leaves, create_graph=True), strict=True))
        second = dict(zip(leaves, subject.grads(dot(first, v), leaves, create_graph=create_graph), strict=True))
        return dot(second, v), leaves

    if subject.smooth is None:
        ahead, behind = (curvature(moved(subject.tensors, v, s))[0] for s in (1e-4, -1e-4))
        expected = (ahead - behind) / 2e-4
    else:
        with torch.no_grad():
            smooth = Subject(subject.smooth, subject.tensors)
        inner: Callable[[Tensors], Tensor] = lambda t: jvp(smooth.loss, (t,), (v,))[1]  # noqa: E731
        middle: Callable[[Tensors], Tensor] = lambda t: jvp(inner, (t,), (v,))[1]  # noqa: E731
        expected = jvp(middle, (subject.tensors,), (v,))[1]
    value, leaves = curvature(subject.tensors, create_graph=True)
    if value.requires_grad:
        found = dot(dict(zip(leaves, subject.grads(value, leaves), strict=True)), v)
    else:
        found = torch.zeros_like(value)
    close(found, expected, "third derivative", relative=1e-5)


def transforms(subject: Subject) -> None:
    """``grad``, ``vjp`` and ``jacrev`` of ``torch.func``; ``vmap`` over values of all tensors; batched gradients."""
    all_close(grad(subject.loss)(subject.tensors), subject.expected_gradient, "func.grad")
    _, pull = vjp(subject.loss, subject.tensors)
    all_close(pull(torch.ones((), dtype=torch.float64))[0], subject.expected_gradient, "func.vjp")
    all_close(jacrev(subject.loss)(subject.tensors), subject.expected_gradient, "jacrev")
    others = [moved(subject.tensors, subject.direction, by) for by in (0.0, 0.1, -0.2)]
    stacked = {name: torch.stack([other[name] for other in others]) for name in subject.tensors}
    close(vmap(subject.loss)(stacked), torch.stack([subject.loss(other) for other in others]), "vmap")
    mapped = vmap(grad(subject.loss))(stacked)
    for i, other in enumerate(others):
        all_close({n: g[i] for n, g in mapped.items()}, subject.gradient(other), "vmap of grad")
    for name in subject.tensors if len(subject.tensors) <= 6 else (subject.main,):
        one = vmap(lambda v, name=name: subject.loss(subject.tensors | {name: v}))(stacked[name])
        each = [subject.loss(subject.tensors | {name: v}) for v in stacked[name]]
        close(one, torch.stack(each), f"vmap over {name} alone")


def per_example(subject: Subject) -> None:
    """Gradients of each example by ``vmap(grad)``, and the score, against a loop."""
    if not subject.rows:
        return
    each = {name: value[:, None] if name in subject.rows else value for name, value in subject.tensors.items()}
    dims = {name: 0 if name in subject.rows else None for name in subject.tensors}
    mapped = vmap(grad(subject.loss), (dims,))(each)
    for i, example in enumerate(subject.examples()):
        all_close({n: g[i] for n, g in mapped.items()}, subject.gradient(example), f"example {i}")


def batched(subject: Subject) -> None:
    """``is_grads_batched``: one backward pass for several gradients of the outputs, recorded or not."""
    leaves = subject.leaves()
    outputs = [out for out in subject.function(**leaves) if out.requires_grad]
    flat = torch.cat([out.flatten() for out in outputs])
    wanted = list(leaves.values())
    directions = torch.stack([torch.sin(torch.arange(len(flat), dtype=flat.dtype) * k + k) for k in (1, 2, 3)])
    each = [torch.autograd.grad(flat, wanted, d, retain_graph=True, allow_unused=True) for d in directions]
    for recorded in (False, True):
        found = torch.autograd.grad(
            flat, wanted, directions, is_grads_batched=True, retain_graph=True, allow_unused=True, create_graph=recorded
        )
        for k, name in enumerate(leaves):
            if found[k] is not None:
                assert recorded or not found[k].requires_grad
                close(found[k], torch.stack([one[k] for one in each]), f"batched gradients, {name}")
            else:
                assert all(one[k] is None or not one[k].any() for one in each)


def checkpointed(subject: Subject) -> None:
    """Both kinds of ``torch.utils.checkpoint``; a second derivative through the one that can."""
    for reentrant in (False, True):
        leaves = subject.leaves()
        names = tuple(leaves)
        out = checkpoint(
            lambda *values, names=names: subject.loss(dict(zip(names, values, strict=True))),
            *leaves.values(),
            use_reentrant=reentrant,
        )
        out.backward()
        got = {n: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for n, leaf in leaves.items()}
        all_close(got, subject.expected_gradient, f"checkpoint, reentrant: {reentrant}")
    leaves = subject.leaves()
    out = checkpoint(subject.loss, leaves, use_reentrant=False)
    first = dict(zip(leaves, subject.grads(out, leaves, create_graph=True), strict=True))
    twice = dict(zip(leaves, subject.grads(dot(first, subject.direction), leaves), strict=True))
    all_close(twice, subject.expected_product, "backward twice through a checkpoint")


class _Raised(Exception):
    pass


def hooks(subject: Subject) -> None:
    """What hooks of saved tensors raise arrives as it was; hooks that move tensors change nothing."""

    def fail(_: object) -> Tensor:
        raise _Raised("in a hook")

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()):
        leaves = subject.leaves()
        loss = subject.loss(leaves)
    first = dict(zip(leaves, subject.grads(loss, leaves, create_graph=True), strict=True))
    all_close(first, subject.expected_gradient, "hooks that copy")
    twice = dict(zip(leaves, subject.grads(dot(first, subject.direction), leaves), strict=True))
    all_close(twice, subject.expected_product, "hooks that copy")
    outputs: tuple[Tensor, ...] = ()
    packs = []
    leaves = subject.leaves()
    try:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: packs.append(1) or t, fail):
            outputs = subject.function(**leaves)
    except _Raised:
        return  # it differentiates within
    flowing = [out for out in outputs if out.requires_grad]
    if not packs:
        return
    for recorded in (False, True):
        with pytest.raises(_Raised, match="in a hook"):
            torch.autograd.grad(
                [out.sum() for out in flowing],
                list(leaves.values()),
                allow_unused=True,
                create_graph=recorded,
                retain_graph=True,
            )
    with torch.autograd.graph.saved_tensors_hooks(fail, lambda t: t), pytest.raises(_Raised, match="in a hook"):
        subject.function(**subject.leaves())


COLUMNS: dict[str, Callable[[Subject], None]] = {
    f.__name__: f
    for f in (backward, each_alone, forward_mode, one_dual, product, penalty, hessians, third, transforms, per_example,
              batched, checkpointed, hooks)
}  # fmt: skip
