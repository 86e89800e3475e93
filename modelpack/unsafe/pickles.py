"""Pickle streams, judged opcode by opcode without running one.

Owns a symbolic run of the unpickler: its stack and memo hold what each value is (a name, a text,
the result of calling a name), so that a name assembled on the stack or fetched from the memo is
seen as well as one spelled out. Leaves out reading opcodes (``opcodes.py``) and archives that hold
pickles (``scan.py``).

Everything is refused but a short list of names that rebuild tensors. Lists of bad names always
miss one (the standard library alone has hundreds that run code).

    >>> import pickle
    >>> from modelpack.unsafe.finding import BytesReader
    >>> judge(BytesReader(pickle.dumps({"step": 1}, 4))).unsafe
    ()
    >>> judge(BytesReader(pickle.dumps(eval, 4))).unsafe
    ('names builtins.eval',)
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelpack.unsafe.finding import Reader
from modelpack.unsafe.opcodes import AmbiguousError, BrokenError, LimitError, Stream, read_opcodes

# A state dict takes some 50 opcodes a tensor; 20,000 tensors are beyond any model, and this many
# opcodes take about five seconds.
MAX_OPCODES = 2_000_000
# Of all files of a model together: the largest checkpoints, in hundreds of shards, take a tenth.
MAX_ALL_OPCODES = 20_000_000
# torch's old format has five pickles in a row, then raw tensors.
MAX_PICKLES = 64
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PICKLES = 5
_PROTOCOL = 0x80
_MAX_PROTOCOL = 5
_MAX_REASONS = 8

_STORAGES = (
    *("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"),
    *("ComplexFloat", "ComplexDouble", "QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4"),
)
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
    *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
    *("complex32", "complex64", "complex128"),
    *("qint8", "quint8", "qint32", "quint4x2", "quint2x4"),
)

# Types that a tensor's pickle names without calling them.
_NAMED = (
    {("torch", f"{name}Storage") for name in _STORAGES}
    | {("torch.cuda", f"{name}Storage") for name in _STORAGES}
    | {("torch", name) for name in _DTYPES}
    | {("torch.storage", "UntypedStorage"), ("torch.storage", "TypedStorage")}
    | {("torch", "UntypedStorage"), ("torch", "Tensor")}
)
# What it calls: each builds a tensor, or a plain container, from its arguments and does no more.
_CALLED = {
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._utils", "_rebuild_qtensor"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"),
    ("torch.serialization", "_get_layout"),
    ("torch.nn.parameter", "Parameter"),
    ("torch", "Size"),
    ("torch", "device"),
    ("collections", "OrderedDict"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "complex"),
    ("__builtin__", "set"),
    ("__builtin__", "frozenset"),
    ("__builtin__", "complex"),
}
# BUILD sets attributes; state dicts do so on these (``_metadata``), and nothing else needs it.
_BUILT = {("collections", "OrderedDict")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a stream would do when loaded."""

    unsafe: tuple[str, ...]
    """Why it must not be loaded, each reason once; empty when there is none."""
    broken: str | None
    """Why the stream could not be followed to its end. What came before has then been judged, and
    would have run."""
    limited: bool
    """It could not be followed because of a bound, so that a loader could go on."""
    opcodes: int
    """How many were followed."""
    calls: int
    """How many of them call a name or set attributes."""
    names: int
    """How many of them name something."""


@dataclass(slots=True)
class Effort:
    """What may still be spent on following pickles; shared by the files of one model."""

    opcodes: int = MAX_ALL_OPCODES


@dataclass(frozen=True, slots=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True, slots=True)
class _Result:
    of: _Global


_OPCODES = {opcode.name: opcode for opcode in pickletools.opcodes}
_MARK = object()
_OTHER = object()

_TEXT_OPCODES = {
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
}
_PUT_OPCODES = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET_OPCODES = {"GET", "BINGET", "LONG_BINGET"}
# These change the container under their arguments and leave it there.
_FILL_OPCODES = {"APPEND": 1, "SETITEM": 2}
_FILL_TO_MARK_OPCODES = {"APPENDS", "SETITEMS", "ADDITEMS"}
_NO_EFFECT = {"PROTO", "FRAME"}


def judge(reader: Reader, *, whole: bool = True, effort: Effort | None = None) -> Judgement:
    """Follow every pickle in ``reader``, one after another, to its end.

    A loader may read on where another stops, so bytes after the last pickle break the stream,
    unless it is torch's old format, whose five pickles are followed by raw tensors. ``whole`` is
    False where ``reader`` has only the beginning of what a loader would read.
    """
    stream = Stream(reader, whole=whole)
    reasons: dict[str, None] = {}
    machine = _Machine(reasons, effort or Effort())
    broken, limited = None, False
    try:
        _follow(machine, stream, reader.size)
    except BrokenError as error:
        if isinstance(error, AmbiguousError):
            reasons[str(error)] = None
        broken, limited = str(error), isinstance(error, LimitError)
    return Judgement(
        unsafe=tuple(reasons),
        broken=broken,
        limited=limited,
        opcodes=machine.opcodes,
        calls=machine.calls,
        names=machine.names,
    )


def _follow(machine: "_Machine", stream: Stream, size: int) -> None:
    number, wanted = 0, MAX_PICKLES
    while number < wanted and (stream.tell() < size or not number):
        machine.restart()
        machine.run(stream)
        if number == 0 and machine.first_integer == _TORCH_MAGIC:
            wanted = _TORCH_PICKLES
        number += 1
    if wanted == MAX_PICKLES and stream.tell() < size:
        raise LimitError(f"more than {MAX_PICKLES} pickles in a row")


def is_pickle(head: bytes, judgement: Judgement) -> bool:
    """Tell whether a file with these first bytes is a pickle, whatever its name.

    From protocol 2 on pickles say so in their first two bytes. Older ones are told by how far they
    can be followed: text and binary files break within a few opcodes, before anything is called. One
    that was followed up to a bound may be one.
    """
    if len(head) >= 2 and head[0] == _PROTOCOL and head[1] <= _MAX_PROTOCOL:
        return True
    followed = judgement.broken is None and judgement.opcodes > 1
    return judgement.calls > 0 or judgement.limited or followed


@dataclass(slots=True)
class _Machine:
    """One run of the unpickler over values that only say what they are."""

    reasons: dict[str, None]
    effort: Effort
    opcodes: int = 0
    calls: int = 0
    names: int = 0
    first_integer: int | None = None
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def restart(self) -> None:
        """Forget the values of the last pickle, but not what has been counted and found."""
        self.first_integer = None
        self.stack.clear()
        self.memo.clear()

    def run(self, stream: Stream) -> None:
        for name, argument in read_opcodes(stream):
            self.opcodes += 1
            if self.opcodes > MAX_OPCODES:
                raise LimitError(f"more than {MAX_OPCODES} opcodes")
            self.effort.opcodes -= 1
            if self.effort.opcodes < 0:
                raise LimitError("more opcodes in the model's files together than are followed")
            if self.first_integer is None and isinstance(argument, int) and name != "PROTO":
                self.first_integer = argument
            self._step(name, argument)

    def _step(self, name: str, argument: Any) -> None:
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, argument)
        elif name in _TEXT_OPCODES:
            self.stack.append(argument)
        elif name in _PUT_OPCODES:
            self.memo[argument] = self._top()
        elif name in _GET_OPCODES:
            if argument not in self.memo:
                raise BrokenError("fetches a value that was never stored")
            self.stack.append(self.memo[argument])
        elif name in _FILL_OPCODES:
            self._pop(_FILL_OPCODES[name])
            self._top()
        elif name in _FILL_TO_MARK_OPCODES:
            self._pop_to_mark()
            self._top()
        elif name.startswith("EXT"):
            self._refuse("uses the extension registry, which names anything")
            self.stack.append(_OTHER)
        elif name not in _NO_EFFECT:
            self._generic(_OPCODES[name])

    def _generic(self, opcode: pickletools.OpcodeInfo) -> None:
        before = opcode.stack_before
        if pickletools.markobject in before:
            self._pop_to_mark()
            self._pop(before.index(pickletools.markobject))
        else:
            self._pop(len(before))
        self.stack.extend([_OTHER] * len(opcode.stack_after))

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise BrokenError("takes a value from an empty stack")
        return self.stack[-1]

    def _pop(self, count: int = 1) -> list[Any]:
        taken = self.stack[len(self.stack) - count :] if count else []
        if len(taken) != count or any(value is _MARK for value in taken):
            raise BrokenError("takes a value from an empty stack")
        del self.stack[len(self.stack) - count :]
        return taken

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                taken = self.stack[position + 1 :]
                del self.stack[position:]
                return taken
        raise BrokenError("closes a group that was never opened")

    def _refuse(self, reason: str) -> None:
        if len(self.reasons) < _MAX_REASONS:
            self.reasons[reason] = None

    def _name(self, module: str, name: str) -> _Global:
        self.names += 1
        if (module, name) not in _NAMED and (module, name) not in _CALLED:
            self._refuse(f"names {_shown(module)}.{_shown(name)}")
        return _Global(module, name)

    def _call(self, function: Any) -> Any:
        self.calls += 1
        if not isinstance(function, _Global):
            self._refuse("calls something other than a name")
            return _OTHER
        pair = (function.module, function.name)
        if pair in _NAMED:
            self._refuse(f"calls {_shown(function.module)}.{_shown(function.name)}")
        return _Result(function)

    def on_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def on_pop(self, _: Any) -> None:
        if not self.stack:
            raise BrokenError("takes a value from an empty stack")
        self.stack.pop()

    def on_pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def on_dup(self, _: Any) -> None:
        self.stack.append(self._top())

    def on_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self._top()

    def on_global(self, argument: tuple[str, str]) -> None:
        self.stack.append(self._name(*argument))

    def on_stack_global(self, _: Any) -> None:
        module, name = self._pop(2)
        if isinstance(module, str) and isinstance(name, str):
            self.stack.append(self._name(module, name))
            return
        self._refuse("names something by a text that is not constant")
        self.stack.append(_OTHER)

    def on_inst(self, argument: tuple[str, str]) -> None:
        # Some unpicklers import what is named before they look for the group.
        named = self._name(*argument)
        self._pop_to_mark()
        self.stack.append(self._call(named))

    def on_obj(self, _: Any) -> None:
        taken = self._pop_to_mark()
        if not taken:
            raise BrokenError("makes an object of no class")
        self.stack.append(self._call(taken[0]))

    def on_reduce(self, _: Any) -> None:
        self.stack.append(self._call(self._pop(2)[0]))

    def on_newobj_ex(self, _: Any) -> None:
        self.stack.append(self._call(self._pop(3)[0]))

    def on_build(self, _: Any) -> None:
        self._pop()
        target = self._top()
        self.calls += 1
        if isinstance(target, _Result):
            if (target.of.module, target.of.name) in _BUILT:
                return
            self._refuse(
                f"sets attributes of a {_shown(target.of.module)}.{_shown(target.of.name)}"
            )
        else:
            self._refuse("sets attributes of something other than a plain container")

    def on_stop(self, _: Any) -> None:
        self._pop()


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.on_mark,
    "POP": _Machine.on_pop,
    "POP_MARK": _Machine.on_pop_mark,
    "DUP": _Machine.on_dup,
    "MEMOIZE": _Machine.on_memoize,
    "GLOBAL": _Machine.on_global,
    "STACK_GLOBAL": _Machine.on_stack_global,
    "INST": _Machine.on_inst,
    "OBJ": _Machine.on_obj,
    "REDUCE": _Machine.on_reduce,
    "NEWOBJ": _Machine.on_reduce,
    "NEWOBJ_EX": _Machine.on_newobj_ex,
    "BUILD": _Machine.on_build,
    "STOP": _Machine.on_stop,
}


def _shown(name: str) -> str:
    return ascii(name[:80]).strip("'\"")
