"""Lossless compression of images by integer flows."""

from hybridkern.codec.codec import Codec
from hybridkern.codec.container import DamagedError, OtherModelError
from hybridkern.codec.files import load, save
from hybridkern.codec.learned import learn_steps
from hybridkern.codec.quantize import quantize
from hybridkern.codec.quantized import QuantizedIDF

__all__ = ["Codec", "DamagedError", "OtherModelError", "QuantizedIDF", "learn_steps", "load", "quantize", "save"]
