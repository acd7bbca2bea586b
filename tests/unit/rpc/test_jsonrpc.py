"""Requests, answers and errors as lines."""

from __future__ import annotations

import msgspec
import pytest

from thrum.model import limits
from thrum.model.errors import KINDS, AnswerTooLarge, ForeignKind, ThrumError, UnknownRecipient
from thrum.rpc.jsonrpc import (
    BadRequest,
    decode_reply,
    decode_request,
    encode_answer,
    encode_error,
    encode_request,
    error_of,
)


@pytest.mark.parametrize(
    ("line", "kind", "request_id"),
    [
        (b"nonsense", "parse_error", None),
        (b"{", "parse_error", None),
        (b'{"jsonrpc":"2.0","id":1,"method":"x"', "parse_error", None),
        (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', "parse_error", None),
        (b"\xef\xbb\xbf{}", "parse_error", None),
        (b"[" * 100_000, "parse_error", None),
        (b"[]", "invalid_request", None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"health"}]', "invalid_request", None),
        (b"3", "invalid_request", None),
        (b"{}", "invalid_request", None),
        (b'{"id":5,"method":"health"}', "invalid_request", 5),
        (b'{"jsonrpc":"1.0","id":"a","method":"health"}', "invalid_request", "a"),
        (b'{"jsonrpc":"2.0","id":null,"method":"health"}', "invalid_request", None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"health"}', "invalid_request", None),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', "invalid_request", 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"health","param":{}}', "invalid_request", 1),
    ],
)
def test_a_line_that_is_no_request_says_why_and_whose_it_was(line: bytes, kind: str, request_id: object) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_request(line)
    assert caught.value.error.kind == kind
    assert caught.value.id == request_id


def test_a_request_survives_the_trip() -> None:
    request = decode_request(encode_request("a\n\u2028", "message.send", b'{"content":"h\xc3\xbc"}').rstrip(b"\n"))
    assert (request.id, request.method, bytes(request.params)) == (
        "a\n\u2028",
        "message.send",
        b'{"content":"h\xc3\xbc"}',
    )
    quiet = decode_request(encode_request(None, "health", b"{}"))
    assert quiet.id is msgspec.UNSET
    bare = decode_request(b'{"jsonrpc":"2.0","method":"health","id":0}\r')
    assert bytes(bare.params) == b"{}"


def test_every_kind_of_error_arrives_as_its_own_class() -> None:
    for kind, cls in KINDS.items():
        raised = cls("no such thing: Ä", remedy="do this", suggestions=["a"], limit=3)
        error = error_of(decode_reply(encode_error(4, raised)))
        assert type(error) is cls
        assert (error.kind, error.message, error.remedy, error.details) == (
            kind,
            "no such thing: Ä",
            "do this",
            {"suggestions": ["a"], "limit": 3},
        )


def test_an_error_of_an_unknown_kind_keeps_its_kind() -> None:
    error = error_of(decode_reply(encode_error(None, ForeignKind("brand_new", -32055, "later", remedy="wait"))))
    assert isinstance(error, ThrumError)
    assert (error.kind, error.code, error.remedy) == ("brand_new", -32055, "wait")


def test_an_error_without_details_leaves_them_out() -> None:
    line = encode_error(1, UnknownRecipient("unknown recipient: @x", remedy=""))
    data = msgspec.json.decode(line)["error"]["data"]
    assert data == {"kind": "unknown_recipient"}


def test_an_answer_that_fits_no_line_is_refused() -> None:
    assert encode_answer("a", b"{}") == b'{"jsonrpc":"2.0","id":"a","result":{}}\n'
    with pytest.raises(AnswerTooLarge):
        encode_answer(1, b" " * limits.answer_line_bytes_max)
