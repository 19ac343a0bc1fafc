"""A GPU where there is none: it computes on the CPU, bit for bit, and refuses what CUDA refuses.

    with simulated_gpu():
        weights = torch.ones(3, device="cuda")   # a tensor that says it is on cuda:0
        weights + torch.ones(3)                  # RuntimeError, as on a GPU
        weights.cpu() + torch.ones(3)            # fine

It also refuses random numbers of its own: training draws all of them on the CPU. It cannot show
what a GPU does otherwise than a processor: rounding, speed, kernels that are missing.
"""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

GPU = torch.device("cuda:0")
aten = torch.ops.aten

BETWEEN_DEVICES = {
    aten._to_copy.default,
    aten.copy_.default,
    aten._local_scalar_dense.default,
    # Rows may be named by an index on the CPU.
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
}
NOT_EVEN_SCALARS = {aten.cat.default, aten.stack.default}
"""Elsewhere a CPU tensor of a single number may be mixed with tensors of a GPU."""


class OnGPU(Tensor):
    """A tensor of the simulated GPU; `inner` is where its numbers are."""

    @staticmethod
    def __new__(cls, inner):
        # Autograd has no queue for a GPU that is not there; it takes this for a device "meta".
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )

    def __init__(self, inner):
        self.inner = inner

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def new_tensor(self, data):
        return torch.tensor(data, dtype=self.dtype, device=GPU)

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self):
        return f"OnGPU({self.inner!r})"

    def __reduce_ex__(self, protocol):
        # What `torch.load(map_location="cpu")` makes of a tensor of a GPU.
        return self.inner.__reduce_ex__(protocol)

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, *_):
        return OnGPU(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


class SimulatedGPU(TorchDispatchMode):
    """Sees also what makes new tensors on the device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


@contextmanager
def simulated_gpu():
    """One GPU for what runs in here; `cuda` needs its number, `cuda:0`, in `tensor.to`."""
    with (
        patch.object(torch.cuda, "device_count", return_value=1),
        patch.object(torch.cuda, "_lazy_init"),
        patch.object(torch, "tensor", made_here(torch.tensor)),
        patch.object(torch, "as_tensor", made_here(torch.as_tensor)),
        SimulatedGPU(),
    ):
        yield


def made_here(function):
    """A function that makes tensors of Python's numbers, which no mode sees, then moves them."""

    def make(*args, device=None, **kwargs):
        made = function(*args, **kwargs)
        return made if device is None else made.to(device)

    return make


def run(operation, args, kwargs):
    """The result of an operation of PyTorch, which is on the GPU if anything in it is."""
    wanted = kwargs.get("device")
    to_gpu = wanted is not None and torch.device(wanted).type in ("cuda", "meta")
    tensors = [x for x in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(x, Tensor)]
    on_gpu = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    if not on_gpu and not to_gpu:
        return operation(*args, **kwargs)
    require_possible(operation, tensors, on_gpu)
    inner = pytree.tree_map_only(OnGPU, lambda tensor: tensor.inner, (args, dict(kwargs)))
    if to_gpu:
        inner[1]["device"] = torch.device("cpu")
    result = operation(*inner[0], **inner[1])
    if operation is aten.copy_.default:
        return args[0]
    if wanted is not None and not to_gpu:
        return result
    result = pytree.tree_map_only(Tensor, OnGPU, result)
    return return_and_correct_aliasing(operation, args, kwargs, result) if on_gpu else result


def require_possible(operation, tensors, on_gpu):
    if torch.Tag.nondeterministic_seeded in operation.tags:
        raise RuntimeError(f"{operation}: random numbers of the GPU, or by a generator of the CPU")
    if on_gpu and operation not in BETWEEN_DEVICES:
        strict = operation in NOT_EVEN_SCALARS
        if any(one.ndim or strict for one in tensors if not isinstance(one, OnGPU)):
            raise RuntimeError(f"{operation}: expected all tensors to be on the same device")
