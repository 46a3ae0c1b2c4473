"""Single instructions against what the PTX ISA says of them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from tests.evidence.ptx import Fault, execute, parse

_TEXT = """
.visible .entry k(.param .u64 k_param_0, .param .u64 k_param_1)
{{
  .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<20>; .reg .f32 %f<9>; .reg .b64 %rd<9>;
  ld.param.u64 %rd1, [k_param_0];
  ld.param.u64 %rd2, [k_param_1];
  mov.u32 %r19, %tid.x;
  mul.wide.u32 %rd3, %r19, 4;
  add.s64 %rd1, %rd1, %rd3;
  add.s64 %rd2, %rd2, %rd3;
  ld.global.b32 %r1, [%rd1];
  ld.global.b32 %r2, [%rd2];
  mov.b32 %r3, 0;
  {code}
  st.global.b32 [%rd1], %r3;
  ret;
}}
"""


def _bits(value: float | int) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0] if isinstance(value, float) else value & 0xFFFFFFFF


def _run(code: str, first: float | int, second: float | int = 0, threads: int = 32, seed: int | None = None) -> int:
    a, b = (torch.from_numpy(np.full(threads, _bits(v), np.uint32).view(np.int32)) for v in (first, second))
    pointers = [struct.pack("<Q", value.data_ptr()) for value in (a, b)]
    execution = execute(parse(_TEXT.format(code=code)), (1, 1, 1), threads, pointers, {"a": a, "b": b}, seed=seed)
    assert execution.findings == ()
    return int(a.numpy().view(np.uint32)[0])


CASES = [
    ("add.s32 %r3, %r1, %r2;", 2**31 - 1, 1, 2**31),
    ("sub.u32 %r3, %r1, %r2;", 0, 1, 2**32 - 1),
    ("mul.lo.s32 %r3, %r1, %r2;", -3, 7, -21),
    ("mul.hi.u32 %r3, %r1, %r2;", 2**31, 6, 3),
    ("mul.hi.s32 %r3, %r1, %r2;", -1, 1, -1),
    ("mad.lo.s32 %r3, %r1, %r2, %r1;", 5, 3, 20),
    ("mul.wide.s32 %rd4, %r1, %r2; shr.s64 %rd4, %rd4, 32; cvt.u32.u64 %r3, %rd4;", -(2**30), 4, -1),
    ("div.s32 %r3, %r1, %r2;", -7, 2, -3),
    ("rem.s32 %r3, %r1, %r2;", -7, 2, -1),
    ("div.u32 %r3, %r1, %r2;", 2**32 - 1, 2, 2**31 - 1),
    ("shl.b32 %r3, %r1, %r2;", 1, 32, 0),
    ("shr.u32 %r3, %r1, %r2;", 2**31, 31, 1),
    ("shr.s32 %r3, %r1, %r2;", -8, 40, -1),
    ("shf.l.wrap.b32 %r3, %r1, %r2, 8;", 0xAB000000, 0x11223344, 0x223344AB),
    ("shf.r.wrap.b32 %r3, %r1, %r2, 8;", 0x11223344, 0xAB, 0xAB112233),
    ("bfe.u32 %r3, %r1, 4, 8;", 0xABCD, 0, 0xBC),
    ("bfe.s32 %r3, %r1, 4, 8;", 0xABCD, 0, 0xFFFFFFBC),
    ("bfi.b32 %r3, %r1, %r2, 8, 4;", 0x5, 0xFFFF, 0xF5FF),
    ("lop3.b32 %r3, %r1, %r2, -1, 0x80;", 0b1100, 0b1010, 0b1000),
    ("lop3.b32 %r3, %r1, %r2, 0, 0x3c;", 0b1100, 0b1010, 0b0110),
    ("prmt.b32 %r3, %r1, %r2, 0x5410;", 0x11223344, 0xAABBCCDD, 0xCCDD3344),
    ("prmt.b32 %r3, %r1, %r2, 0x7632;", 0x11223344, 0xAABBCCDD, 0xAABB1122),
    ("popc.b32 %r3, %r1;", 0xF0F, 0, 8),
    ("clz.b32 %r3, %r1;", 0xF0F, 0, 20),
    ("brev.b32 %r3, %r1;", 1, 0, 2**31),
    ("min.s32 %r3, %r1, %r2;", -1, 1, -1),
    ("min.u32 %r3, %r1, %r2;", -1, 1, 1),
    ("add.f32 %r3, %r1, %r2;", 1.0, 2.0**-24, 1.0),
    ("add.rp.f32 %r3, %r1, %r2;", 1.0, 2.0**-24, 1.0 + 2.0**-23),
    ("add.rm.f32 %r3, %r1, %r2;", 1.0, -(2.0**-26), 1.0 - 2.0**-24),
    ("fma.rn.f32 %r3, %r1, %r1, %r2;", 1.0 + 2.0**-23, -1.0, 2.0**-22 + 2.0**-46),
    (
        "cvt.f64.f32 %rd4, %r1; mul.f64 %rd4, %rd4, %rd4; mul.f64 %rd5, %rd4, %rd4; neg.f64 %rd5, %rd5;"
        " fma.rn.f64 %rd5, %rd4, %rd4, %rd5; cvt.rn.f32.f64 %r3, %rd5;",
        1.0 + 2.0**-23,
        0,
        2.0**-67,
    ),
    ("cvt.f64.f32 %rd4, %r1; rcp.approx.ftz.f64 %rd4, %rd4; cvt.u32.u64 %r3, %rd4;", 3.0, 0, 0),
    ("mul.f32 %r3, %r1, %r2;", 2.0**-100, 2.0**-40, 2.0**-140),
    ("mul.ftz.f32 %r3, %r1, %r2;", 2.0**-100, -(2.0**-40), -0.0),
    ("add.sat.f32 %r3, %r1, %r2;", 1.0, 1.0, 1.0),
    ("max.f32 %r3, %r1, %r2;", float("nan"), 2.0, 2.0),
    ("max.NaN.f32 %r4, %r1, %r2; setp.nan.f32 %p1, %r4, %r4; selp.b32 %r3, 1, 0, %p1;", float("nan"), 2.0, 1),
    ("neg.f32 %r3, %r1;", 0.0, 0, -0.0),
    ("abs.f32 %r3, %r1;", -3.5, 0, 3.5),
    ("copysign.f32 %r3, %r1, %r2;", -1.0, 4.0, -4.0),
    ("ex2.approx.f32 %r3, %r1;", 3.0, 0, 8.0),
    ("lg2.approx.f32 %r3, %r1;", 8.0, 0, 3.0),
    ("rcp.approx.ftz.f32 %r3, %r1;", 4.0, 0, 0.25),
    ("div.full.f32 %r3, %r1, %r2;", 1.0, 4.0, 0.25),
    ("cvt.rn.f32.s32 %r3, %r1;", -3, 0, -3.0),
    ("cvt.rzi.s32.f32 %r3, %r1;", -3.7, 0, -3),
    ("cvt.rni.f32.f32 %r3, %r1;", 2.5, 0, 2.0),
    ("cvt.rni.s32.f32 %r3, %r1;", 1e20, 0, 2**31 - 1),
    ("cvt.sat.f32.f32 %r3, %r1;", -0.5, 0, 0.0),
    ("cvt.rn.bf16.f32 %h1, %r1; cvt.u32.u16 %r3, %h1;", 1.0 + 3 * 2.0**-8, 0, 0x3F82),
    ("cvt.rn.bf16x2.f32 %r3, %r1, %r2;", 1.0, 2.0, 0x3F804000),
    ("cvt.rn.f16x2.f32 %r3, %r1, %r2;", 1.0, 2.0, 0x3C004000),
    ("mov.b32 {%h1, %h2}, %r1; cvt.f32.bf16 %r3, %h2;", 0x40003F80, 0, 2.0),
    ("mov.b32 {%h1, %h2}, %r1; cvt.f32.f16 %r3, %h1;", 0x3C00, 0, 1.0),
    ("fma.rn.bf16x2 %r3, %r1, %r2, %r2;", 0x3F803F80, 0x40003F80, 0x40804000),
    ("mov.b32 {%h1, %h2}, %r1; add.rn.f32.bf16 %r3, %h1, %r2;", 0x3F80, 0.5, 1.5),
    ("mov.b64 %rd4, {%r1, %r2}; add.rn.f32x2 %rd4, %rd4, %rd4; mov.b64 {%r4, %r3}, %rd4;", 1.0, 3.0, 6.0),
    ("setp.lt.f32 %p1, %r1, %r2; selp.b32 %r3, 1, 0, %p1;", float("nan"), 1.0, 0),
    ("setp.ltu.f32 %p1, %r1, %r2; selp.b32 %r3, 1, 0, %p1;", float("nan"), 1.0, 1),
    ("setp.lt.and.s32 %p1|%p2, %r1, %r2, true; selp.b32 %r3, 1, 0, %p1;", -1, 1, 1),
    ("setp.eq.s32 %p1, %r1, 7; @%p1 mov.b32 %r3, 5; @!%p1 mov.b32 %r3, 6;", 7, 0, 5),
    ("shfl.sync.bfly.b32 %r3, %r19, 16, 31, -1;", 0, 0, 16),
    ("shfl.sync.down.b32 %r3|%p1, %r19, 2, 31, -1;", 0, 0, 2),
    ("shfl.sync.up.b32 %r3, %r19, 2, 0, -1;", 0, 0, 0),
    ("shfl.sync.idx.b32 %r3, %r19, 9, 31, -1;", 0, 0, 9),
    ("setp.lt.u32 %p1, %r19, 3; vote.sync.ballot.b32 %r3, %p1, -1;", 0, 0, 7),
    ("setp.lt.u32 %p1, %r19, 3; vote.sync.any.pred %p2, %p1, -1; selp.b32 %r3, 1, 0, %p2;", 0, 0, 1),
    ("setp.lt.u32 %p1, %r19, 3; vote.sync.all.pred %p2, %p1, -1; selp.b32 %r3, 1, 0, %p2;", 0, 0, 0),
]


@pytest.mark.parametrize(("code", "first", "second", "expected"), CASES, ids=[case[0].split()[0] for case in CASES])
def test_an_instruction_does_what_the_manual_says(code, first, second, expected):
    assert _run(code, first, second) == _bits(expected)


def test_approximate_functions_are_off_by_what_is_documented_and_no_more():
    errors = []
    for seed in range(50):
        got = struct.unpack("<f", struct.pack("<I", _run("ex2.approx.f32 %r3, %r1;", 0.3, seed=seed)))[0]
        errors.append(got / 2.0 ** float(np.float32(0.3)) - 1.0)
    assert 0 < max(np.abs(errors)) < 2.0**-22.5 + 2.0**-24


def test_a_register_that_nobody_wrote_is_no_number():
    assert _run("mov.b32 %r3, %r7;", 1) == 2**32 - 1


def test_matrices_go_through_shared_memory():
    code = """.shared .align 16 .b8 m[512]; shl.b32 %r5, %r19, 4; mov.u32 %r6, m; add.u32 %r5, %r5, %r6;
      st.shared.v4.b32 [%r5], {%r19, %r19, %r19, %r19}; bar.sync 0;
      ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r7, %r8, %r9, %r10}, [%r5]; add.u32 %r3, %r8, %r10;"""
    assert _run(code, 0) == 8 + 24  # lane 0 gets row 0 of each matrix; matrix 1 is at lane 8, matrix 3 at lane 24


def test_matrices_are_transposed_on_the_way():
    start = ".shared .align 16 .b8 m[512]; shl.b32 %r5, %r19, 4; mov.u32 %r6, m; add.u32 %r5, %r5, %r6; "
    load = """st.shared.v4.b32 [%r5], {%r19, %r19, %r19, %r19}; bar.sync 0;
      ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r7, %r3}, [%r5];"""
    assert _run(start + load, 0) == 8 | 9 << 16  # lane 0 gets column 0 of rows 0 and 1; matrix 1 is at lane 8
    store = """stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r5], {%r19}; bar.sync 0;
      ld.shared.b32 %r3, [%r6+32];"""
    assert _run(start + store, 0) == 1 | 5 << 16  # row 2 is column 2: of lanes 1, 5, ..., the lower halves


def test_a_loop_ends_for_each_thread_by_itself():
    code = "$L: add.s32 %r3, %r3, 2; sub.s32 %r1, %r1, 1; setp.gt.s32 %p1, %r1, 0; @%p1 bra $L;"
    assert _run(code, 5) == 10


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 %r3, %r1, %r2;", "not supported"),
        ("add.s32 %undeclared7, %r1, %r1;", "not supported"),
        ("setp.lt.u32 %p1, %r19, 5; @%p1 shfl.sync.bfly.b32 %r3, %r19, 16, 31, -1;", "missing"),
        ("setp.lt.u32 %p1, %r19, 5; @%p1 bar.sync 0;", "barrier"),
        ("$L: bra $L;", "not done"),
    ],
)
def test_it_refuses_what_it_cannot_answer_for(code, message, monkeypatch):
    monkeypatch.setattr("tests.evidence.ptx.machine._MOST_STEPS", 1000)
    with pytest.raises(Fault, match=message):
        _run(code, 1, threads=64 if "barrier" in message else 32)
