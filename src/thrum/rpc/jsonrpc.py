"""The wire format: JSON-RPC 2.0 requests, answers and errors, one object per line (rpc.md §1, §2)."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from thrum.model import limits
from thrum.model.errors import AnswerTooLarge, InvalidParams, InvalidRequest, ParseError, ThrumError, from_wire

RequestId = str | int

_ENVELOPE_BYTES: Final = 1024
"""More than what an answer's line holds besides its result."""

_EMPTY: Final = msgspec.Raw(b"{}")


class Request(msgspec.Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    """`id` None: it is executed and not answered."""

    jsonrpc: Literal["2.0"]
    method: str
    params: msgspec.Raw = _EMPTY
    id: RequestId | msgspec.UnsetType = msgspec.UNSET


class BadRequest(Exception):
    """A line that is no request. `error` is answered to `id`, as far as the line tells one."""

    def __init__(self, error: ThrumError, request_id: RequestId | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.id = request_id


class _Named(msgspec.Struct, gc=False):
    id: RequestId | None = None


class ErrorData(msgspec.Struct, omit_defaults=True):
    kind: str = "refused"
    remedy: str = ""
    details: dict[str, Any] = {}


class ErrorObject(msgspec.Struct):
    code: int
    message: str
    data: ErrorData = msgspec.field(default_factory=ErrorData)


class Reply(msgspec.Struct, gc=False):
    """What a client gets: a result or an error. `id` None: an error about no request of ours in particular."""

    id: RequestId | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorObject | None = None
    warnings: tuple[str, ...] = ()
    """Said beside a result, such as that a claim was not used (identity.md §11, C8a)."""


_request = msgspec.json.Decoder(Request)
_named = msgspec.json.Decoder(_Named)
_any = msgspec.json.Decoder(msgspec.Raw)
"""Tells whether a text is JSON, and makes nothing of it."""
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_reply = msgspec.json.Decoder(Reply)
_encode = msgspec.json.Encoder().encode
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_request(line: bytes) -> Request:
    """One line as a request. Raises BadRequest."""
    try:
        return _request.decode(line)
    except msgspec.ValidationError as error:
        raise _not_a_request(line, error) from None
    except _MALFORMED as error:
        raise BadRequest(ParseError(f"not a JSON object: {error}")) from None


def _not_a_request(line: bytes, error: msgspec.ValidationError) -> BadRequest:
    """Well-formed as far as it was read. `[` begins a batch, which there are none of."""
    try:
        _any.decode(line)
    except _MALFORMED as malformed:
        return BadRequest(ParseError(f"not a JSON object: {malformed}"))
    if line.lstrip()[:1] == b"[":
        return BadRequest(InvalidRequest("batches are not supported", remedy="send one request per line"))
    if len(line) > limits.large_request_bytes:
        # Scanning all of it once more would block others.
        return BadRequest(InvalidRequest(f"not a request: {error}"))
    try:
        request_id = _named.decode(line).id
    except _MALFORMED:
        request_id = None
    return BadRequest(InvalidRequest(f"not a request: {error}"), request_id)


def check_large(params: msgspec.Raw) -> None:
    """Of a large request only texts may be large: millions of small values would be created while all others wait.

    Raises InvalidParams. What is malformed, or no object, is left to the decoder.
    """
    try:
        values = _parts.decode(params)
    except (msgspec.ValidationError, *_MALFORMED):
        return
    for name, value in values.items():
        if len(value) > limits.structure_bytes_max and bytes(memoryview(value)[:1]) in (b"[", b"{"):
            limit = limits.structure_bytes_max
            message = f"{name}: a list or an object takes at most {limit} bytes of a request"
            raise InvalidParams(message, field=name, limit=limit, bytes=len(value))


def encode_request(request_id: RequestId | None, method: str, params: bytes) -> bytes:
    """The line of a request; `params` is JSON text. Without id it asks for no answer."""
    head = b'{"jsonrpc":"2.0",' if request_id is None else b'{"jsonrpc":"2.0","id":' + _encode(request_id) + b","
    return head + b'"method":' + _encode(method) + b',"params":' + params + b"}\n"


def encode_answer(request_id: RequestId, result: bytes, warnings: tuple[str, ...] = ()) -> bytes:
    """The line of an answer; `result` is JSON text. Raises AnswerTooLarge."""
    check_answer_size(result)
    if warnings:
        told = _encode(warnings)
        return b'{"jsonrpc":"2.0","id":%b,"result":%b,"warnings":%b}\n' % (_encode(request_id), result, told)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (_encode(request_id), result)


def check_answer_size(result: bytes) -> None:
    """Raises AnswerTooLarge."""
    limit = limits.answer_line_bytes_max
    if len(result) > limit - _ENVELOPE_BYTES:
        raise AnswerTooLarge(f"the answer has {len(result)} bytes, more than {limit}", limit=limit, bytes=len(result))


def encode_error(request_id: RequestId | None, error: ThrumError) -> bytes:
    """The line of an error answer."""
    data = ErrorData(error.kind, error.remedy, error.details)
    text = _encode(ErrorObject(error.code, error.message, data))
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (_encode(request_id), text)


def decode_reply(line: bytes) -> Reply:
    """One line from the daemon. Raises msgspec.DecodeError or UnicodeDecodeError if it is none."""
    return _reply.decode(line)


def error_of(reply: Reply) -> ThrumError | None:
    """The error that a reply carries, as an exception of its own class; None for a result."""
    error = reply.error
    if error is None:
        return None
    return from_wire(error.data.kind, error.code, error.message, error.data.remedy, error.data.details)
