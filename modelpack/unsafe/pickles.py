"""Pickle streams, judged opcode by opcode without running one.

Owns a symbolic run of the unpickler: its stack and memo hold what each value is (a name, a text,
the result of calling a name), so that a name assembled on the stack or fetched from the memo is
seen as well as one spelled out. Leaves out archives that hold pickles (``scan.py``).

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

# A state dict takes some 50 opcodes a tensor; 20,000 tensors are beyond any model, and this many
# opcodes take about five seconds.
MAX_OPCODES = 2_000_000
# Text and bytes inside a pickle of tensors are names; the tensors themselves lie outside.
MAX_ARGUMENT_BYTES = 16 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024
# torch's old format has five pickles in a row, then raw tensors.
MAX_PICKLES = 64
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PICKLES = 5
# Most files that are no pickles are known as such by their first bytes; reading ahead may cost a
# request to a registry, so it starts small and grows.
_FIRST_BLOCK_BYTES = 4 * 1024
_BLOCK_BYTES = 256 * 1024
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
    opcodes: int
    """How many were followed."""
    calls: int
    """How many of them call a name or set attributes."""


@dataclass(frozen=True, slots=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True, slots=True)
class _Result:
    of: _Global


class _BrokenError(ValueError):
    """The stream cannot be followed any further."""


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


def judge(reader: Reader) -> Judgement:
    """Follow every pickle in ``reader``, one after another, to its end.

    A loader may read on where another stops, so bytes after the last pickle break the stream,
    unless it is torch's old format, whose five pickles are followed by raw tensors.
    """
    stream = _Stream(reader)
    reasons: dict[str, None] = {}
    machine = _Machine(reasons)
    broken = None
    wanted = MAX_PICKLES
    try:
        number = 0
        while number < wanted and stream.tell() < reader.size:
            machine.restart()
            machine.run(stream)
            if number == 0 and machine.first_integer == _TORCH_MAGIC:
                wanted = _TORCH_PICKLES
            number += 1
        if wanted == MAX_PICKLES and stream.tell() < reader.size:
            raise _BrokenError(f"more than {MAX_PICKLES} pickles in a row")
        if reader.size == 0:
            raise _BrokenError("the file is empty")
    except (ValueError, OverflowError, Warning) as error:
        # pickletools raises ValueError for whatever it cannot read, as _BrokenError is. Where
        # warnings are errors, it raises those that Python has for odd escapes too.
        broken = ascii(str(error)[:150]).strip("'\"") or "cannot be read"
    return Judgement(
        unsafe=tuple(reasons), broken=broken, opcodes=machine.opcodes, calls=machine.calls
    )


def is_pickle(head: bytes, judgement: Judgement) -> bool:
    """Tell whether a file with these first bytes is a pickle, whatever its name.

    From protocol 2 on pickles say so in their first two bytes. Older ones are told by how far they
    can be followed: text and binary files break within a few opcodes, before anything is called.
    """
    if len(head) >= 2 and head[0] == _PROTOCOL and head[1] <= _MAX_PROTOCOL:
        return True
    return judgement.calls > 0 or (judgement.broken is None and judgement.opcodes > 1)


class _Stream:
    """The file object that pickletools reads from, with every length bounded."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._position = 0
        self._block = b""
        self._block_start = 0
        self._ahead = _FIRST_BLOCK_BYTES

    def tell(self) -> int:
        return self._position

    def read(self, length: int) -> bytes:
        if length > MAX_ARGUMENT_BYTES:
            raise _BrokenError(f"an argument of {length} bytes")
        data = self._peek(length)
        self._position += len(data)
        return data

    def readline(self) -> bytes:
        data = self._peek(_FIRST_BLOCK_BYTES)
        end = data.find(b"\n") + 1
        if not end:
            data = self._peek(MAX_LINE_BYTES)
            end = data.find(b"\n") + 1
        if end == 0 and len(data) == MAX_LINE_BYTES:
            raise _BrokenError(f"a line of more than {MAX_LINE_BYTES} bytes")
        line = data[:end] if end else data
        self._position += len(line)
        return line

    def _peek(self, length: int) -> bytes:
        length = min(length, self._reader.size - self._position)
        start = self._position - self._block_start
        if start < 0 or start + length > len(self._block):
            wanted = min(max(length, self._ahead), self._reader.size - self._position)
            self._ahead = min(2 * self._ahead, _BLOCK_BYTES)
            self._block = self._reader.read(self._position, wanted)
            self._block_start, start = self._position, 0
        return self._block[start : start + length]


@dataclass(slots=True)
class _Machine:
    """One run of the unpickler over values that only say what they are."""

    reasons: dict[str, None]
    opcodes: int = 0
    calls: int = 0
    first_integer: int | None = None
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def restart(self) -> None:
        """Forget the values of the last pickle, but not what has been counted and found."""
        self.first_integer = None
        self.stack.clear()
        self.memo.clear()

    def run(self, stream: _Stream) -> None:
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            self.opcodes += 1
            if self.opcodes > MAX_OPCODES:
                raise _BrokenError(f"more than {MAX_OPCODES} opcodes")
            if self.first_integer is None and isinstance(argument, int) and opcode.name != "PROTO":
                self.first_integer = argument
            self._step(opcode, argument)

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, argument)
        elif name in _TEXT_OPCODES:
            self.stack.append(argument)
        elif name in _PUT_OPCODES:
            self.memo[int(argument)] = self._top()
        elif name in _GET_OPCODES:
            if int(argument) not in self.memo:
                raise _BrokenError("fetches a value that was never stored")
            self.stack.append(self.memo[int(argument)])
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
            self._generic(opcode)

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
            raise _BrokenError("takes a value from an empty stack")
        return self.stack[-1]

    def _pop(self, count: int = 1) -> list[Any]:
        taken = self.stack[len(self.stack) - count :] if count else []
        if len(taken) != count or any(value is _MARK for value in taken):
            raise _BrokenError("takes a value from an empty stack")
        del self.stack[len(self.stack) - count :]
        return taken

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                taken = self.stack[position + 1 :]
                del self.stack[position:]
                return taken
        raise _BrokenError("closes a group that was never opened")

    def _refuse(self, reason: str) -> None:
        if len(self.reasons) < _MAX_REASONS:
            self.reasons[reason] = None

    def _name(self, module: str, name: str) -> _Global:
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
            raise _BrokenError("takes a value from an empty stack")
        self.stack.pop()

    def on_pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def on_dup(self, _: Any) -> None:
        self.stack.append(self._top())

    def on_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self._top()

    def on_global(self, argument: str) -> None:
        # pickletools joins the two lines with a space; a module's name holds none.
        module, _, name = argument.partition(" ")
        self.stack.append(self._name(module, name))

    def on_stack_global(self, _: Any) -> None:
        module, name = self._pop(2)
        if isinstance(module, str) and isinstance(name, str):
            self.stack.append(self._name(module, name))
            return
        self._refuse("names something by a text that is not constant")
        self.stack.append(_OTHER)

    def on_inst(self, argument: str) -> None:
        self._pop_to_mark()
        module, _, name = argument.partition(" ")
        self.stack.append(self._call(self._name(module, name)))

    def on_obj(self, _: Any) -> None:
        taken = self._pop_to_mark()
        if not taken:
            raise _BrokenError("makes an object of no class")
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
