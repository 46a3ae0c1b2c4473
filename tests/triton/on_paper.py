"""Tensors that say they lie on a GPU, on machines without one: their memory is the CPU's, and nothing may touch it."""

from __future__ import annotations

import ctypes
from unittest import mock

import torch
from torch import Tensor

_CUDA, _FLOAT, _FLOAT32 = 2, 2, 32  # DLPack's numbers


class _Dense(ctypes.Structure):  # DLTensor and its manager, as dlpack.h has them
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_kept: list[object] = []


def on_paper(value: Tensor) -> Tensor:
    """``value``, float32, as a tensor on ``cuda:0``."""
    assert value.dtype is torch.float32
    shape, strides = ((ctypes.c_int64 * value.ndim)(*numbers) for numbers in (value.shape, value.stride()))
    dense = _Dense(value.data_ptr(), _CUDA, 0, value.ndim, _FLOAT, _FLOAT32, 1, shape, strides, 0, None, None)
    _kept.extend([value, shape, strides, dense])
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    with mock.patch.object(torch.cuda, "_lazy_init"):
        out: Tensor = torch.utils.dlpack.from_dlpack(make(ctypes.addressof(dense), b"dltensor", None))
    assert out.is_cuda and out.data_ptr() == value.data_ptr()
    return out
