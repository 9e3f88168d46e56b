#!/usr/bin/env python3
"""Makes the files that tests/weights_formats.rs reads, in the ways of PyTorch 0.1 to 0.3 and with other objects beside the weights.

    python tests/pth/make_old.py      # nothing but the standard library

PyTorch is not needed: modules of its names stand in for it, and Python's pickle writes what it would write. All files hold
"a", 2 x 3 floats 0, 1, 2 ..., "b", its transposed view, and "c", the floats 0.5 and -0.5.

  old_rebuild.pth      calls torch._utils._rebuild_tensor (0.2, 0.3)
  old_parameter.pth    empty torch.nn.Parameter objects that are given a state (0.1)
  old_arguments.pth    torch.nn.Parameter objects that are made from a tensor
  old_tensor.pth       empty torch.FloatTensor objects that are given a state (0.1)
  old_python2.pth      the same as Python 2 writes it: strings are bytes, and an OrderedDict is made from a list
  neighbours.pth       {"state_dict": ..., and NumPy's arrays and scalars, a Counter, a Namespace and other objects}
"""
import argparse, collections, copyreg, datetime, functools, pathlib, pickle, struct, sys, types

HERE = pathlib.Path(__file__).parent
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {"10": [0, 1, 2, 3, 4, 5], "11": [0.5, -0.5]}
# Name, key of the storage, offset, shape, strides.
TENSORS = [("a", "10", 0, (2, 3), (3, 1)), ("b", "10", 0, (3, 2), (1, 3)), ("c", "11", 0, (2,), (1,))]


def stand_in(module, name, value=None):
    """Makes `module.name` known to pickle: a class, or a function that is never called."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:n]), types.ModuleType(parts[n - 1]))
    value = value or type(name, (), {})
    value.__module__, value.__qualname__, value.__name__ = module, name, name
    setattr(sys.modules[module], name, value)
    return value


def function():
    return lambda: None


FloatStorage = stand_in("torch", "FloatStorage")
FloatTensor = stand_in("torch", "FloatTensor")
Parameter = stand_in("torch.nn.parameter", "Parameter")
rebuild_tensor = stand_in("torch._utils", "_rebuild_tensor", function())
dtype, ndarray = stand_in("numpy", "dtype"), stand_in("numpy", "ndarray")
numpy_scalars = stand_in("numpy.core.multiarray", "scalar", function())
reconstruct = stand_in("numpy.core.multiarray", "_reconstruct", function())
Meter = stand_in("__main__", "Meter")


class Storage:
    def __init__(self, key):
        self.key = key


class Reduced:
    """Pickled as this call, followed by this state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce_ex__(self, protocol):
        return self.reduced

    @property
    def __class__(self):
        """pickle makes sure that `__newobj__` is of the object's own class."""
        call, arguments, *_ = self.reduced
        return arguments[0] if call is copyreg.__newobj__ else Reduced


class Pickler(pickle._Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", FloatStorage, value.key, "cpu", len(STORAGES[value.key]), None)


class Python2Pickler(Pickler):
    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        self.memoize(value)

    def save_text(self, value):
        self.save_bytes(value.encode("ascii"))

    dispatch[bytes], dispatch[str] = save_bytes, save_text


def rebuilt(key, *numbers):
    return Reduced(rebuild_tensor, (Storage(key), *numbers))


def new(cls, *arguments):
    return copyreg.__newobj__, (cls, *arguments)


STYLES = {
    "old_rebuild": rebuilt,
    "old_parameter": lambda *a: Reduced(*new(Parameter), (rebuilt(*a), None, collections.OrderedDict(), True, False)),
    "old_arguments": lambda *a: Reduced(*new(Parameter, rebuilt(*a), True)),
    "old_tensor": lambda key, *numbers: Reduced(*new(FloatTensor), (Storage(key), *numbers)),
    "old_python2": lambda key, *numbers: Reduced(FloatTensor, (), (Storage(key), *numbers)),
}


def numpy_scalar(raw):
    return Reduced(numpy_scalars, (numpy_dtype(), raw))


def numpy_dtype():
    return Reduced(dtype, ("f8", 0, 1), (3, "<", None, None, None, -1, -1, 0))


def numpy_array():
    return Reduced(reconstruct, (ndarray, (0,), b"b"), (1, (1,), numpy_dtype(), False, struct.pack("<d", 76.13)))


def write(name, root, pickler=Pickler):
    with open(HERE / f"{name}.pth", "wb") as file:
        facts = dict(protocol_version=VERSION, little_endian=True, type_sizes=dict(short=2, int=4, long=4))
        pickle.dump(MAGIC, file, 2)
        pickle.dump(VERSION, file, 2)
        pickle.dump(facts, file, 2)
        pickler(file, 2).dump(root)
        pickle.dump(sorted(STORAGES), file, 2)
        for _, values in sorted(STORAGES.items()):
            file.write(struct.pack(f"<q{len(values)}f", len(values), *values))


def main():
    for name, style in STYLES.items():
        pairs = [(tensor, style(*about)) for tensor, *about in TENSORS]
        if name == "old_python2":
            listed = Reduced(collections.OrderedDict, ([list(pair) for pair in pairs],))
            root = {"best": numpy_scalar(struct.pack("<d", 76.13)), "state_dict": listed}
            write(name, root, Python2Pickler)
        else:
            write(name, collections.OrderedDict(pairs))
    of_user = Meter()
    of_user.values = [1.5, 2.5]
    counts = collections.defaultdict(list)
    counts["seen"].append(3)
    write("neighbours", {
        "args": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("data")),
        "best": numpy_scalar(struct.pack("<d", 76.13)),
        "history": [numpy_array(), numpy_array()],
        "milestones": collections.Counter([30, 60, 60]),
        "counts": counts,
        "meter": of_user,
        "when": datetime.datetime(2026, 1, 2),
        "sets": [set([1, 2]), frozenset([3]), bytearray(b"4"), 5j, 1 << 100, range(3)],
        "norm": functools.partial(int, base=2),
        "queue": collections.deque([1, 2], 4),
        "state_dict": collections.OrderedDict((tensor, rebuilt(*about)) for tensor, *about in TENSORS),
    })


if __name__ == "__main__":
    main()
