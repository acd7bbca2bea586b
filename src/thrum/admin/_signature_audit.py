"""Do the signatures of all lines hold, and does any daemon contradict itself? (events.md §11 Signatures)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from thrum.identity import signing
from thrum.model import events, signatures
from thrum.model.events import BadLine
from thrum.model.methods.admin import VerifyCheck, VerifyDifference
from thrum.store.journal import JournalFiles
from thrum.store.quarantine import Quarantined
from thrum.store.queries.views import View

_SHOWN_MAX = 20


def check_signatures(
    journals: JournalFiles, ends: Mapping[str, int], quarantined: Iterable[Quarantined]
) -> VerifyCheck:
    """Every line of the journals that travel, up to `ends`; and of those quarantined what another line of one id was.

    Two signed lines of one id: the smaller counts everywhere, and their daemon, or who has its key, is named.
    """
    signed = unsigned = 0
    forged: list[VerifyDifference] = []
    said: dict[str, bytes] = {}
    twice: dict[str, VerifyDifference] = {}
    for file, end in ends.items():
        if file == events.LOCAL_FILE:
            continue
        for number, line in enumerate(journals.iter_lines(file, 0, end), 1):
            try:
                signature_state = signing.check(line.raw)
            except BadLine as bad:
                forged.append(VerifyDifference(file=file, line=number, reason=bad.reason))
                continue
            if signature_state == "unsigned":
                unsigned += 1
                continue
            signed += 1
            _compare(file, number, line.raw, said, twice)
    for each in quarantined:
        if each.reason == "id_conflict" and _is_signed(raw := each.text.encode()):
            _compare(each.file, 0, raw, said, twice)
    parts = [f"{signed} line{'s' * (signed != 1)} signed, {unsigned} not"]
    if forged:
        parts.append(f"{len(forged)} forged")
    parts += sorted({each.reason for each in twice.values()})
    found = (*forged, *twice.values())
    return VerifyCheck(name="signatures", ok=not found, detail="; ".join(parts), differences=found[:_SHOWN_MAX])


def count_foreign(view: View) -> dict[str, int]:
    """What of other daemons' lines counts only so far, or not: `VerifyResult.foreign`."""
    rows = view.trusted_of()
    kinds = ("unsigned", "hidden", "not_yours", "strange")
    return {kind: count for kind in kinds if (count := sum(getattr(row, kind) for row in rows))}


def _is_signed(raw: bytes) -> bool:
    try:
        return signing.check(raw) == "signed"
    except BadLine:
        return False


def _compare(file: str, number: int, raw: bytes, said: dict[str, bytes], twice: dict[str, VerifyDifference]) -> None:
    """Note a signed line, and its daemon if it signed another of that id."""
    try:
        fact = events.decode(raw)
    except BadLine:
        return
    digest = hashlib.sha256(signatures.unsigned(raw)).digest()
    if said.setdefault(fact.event_id, digest) != digest:
        reason = f"{fact.origin_daemon} contradicts itself: it signed two different lines with one id"
        twice[fact.event_id] = VerifyDifference(file=file, line=number, ids=(fact.event_id,), reason=reason)
