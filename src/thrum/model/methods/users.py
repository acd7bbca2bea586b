"""People: the user that git names here, and users that register over a WebSocket."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from thrum.model.methods.method import Access, Empty, Method, Mutating


class UserIdentifyResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    username: str
    email: str = ""
    display: str


USER_IDENTIFY: Final = Method(name="user.identify", params=Empty, result=UserIdentifyResult, access=Access.ANONYMOUS)


class UserRegisterParams(Mutating, kw_only=True):
    """`username`, or a `token` that an earlier answer gave."""

    username: str = ""
    display: str = ""
    token: str = ""


class UserRegisterResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    user_id: str
    username: str
    display_name: str = ""
    token: str
    status: Literal["registered", "existing"]


USER_REGISTER: Final = Method(
    name="user.register", params=UserRegisterParams, result=UserRegisterResult, access=Access.BOOTSTRAP, transports="W"
)
