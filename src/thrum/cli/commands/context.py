"""context save|show|clear|preamble: an agent's notes between sessions. Source: cli.md §3.12.

Reading looks at the files and needs no daemon; writing goes through it, which proves who writes.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import trio

from thrum.cli.body import read_text_file, text_from_stdin, whole_stdin
from thrum.cli.parser import RUN, did_you_mean, near, option, switch, word
from thrum.cli.run import Answer, Run
from thrum.cli.text import framed, indent, line, plural
from thrum.cli.values import absolute, parse_agent
from thrum.identity.files import identity_path, read_identity
from thrum.model import limits, notes
from thrum.model.errors import AgentNotFound, AmbiguousBody, BodyTooLarge, FileTooLarge, NoIdentity, SeveralIdentities
from thrum.model.methods.agents import AGENT_LIST, AgentListParams
from thrum.model.methods.notes import (
    CONTEXT_CLEAR,
    CONTEXT_PREAMBLE_SAVE,
    CONTEXT_SAVE,
    CONTEXT_SHOW,
    ContextClearParams,
    ContextSaveParams,
    ContextShowParams,
)
from thrum.model.notes import Note

HOW_TO_SAVE = "thrum context save \"NOTES\", --file P, or on stdin: thrum context save <<'EOF' … EOF"

Agent = Annotated[str, option("N", "another agent's")]


# -- whose


def claim(run: Run, agent: str) -> str:
    """The agent that a command writes for; the caller is claimed if files name it. Raises NoIdentity …"""
    if not agent:
        return run.identity().agent_id
    # Without a claim the daemon knows the caller by its processes, or says what is missing.
    with suppress(NoIdentity, SeveralIdentities):
        run.identity()
    return parse_agent(agent)


async def _home(run: Run, agent: str) -> tuple[str, Path]:
    """The agent meant by a command that reads, and where its files are. Raises AgentNotFound, NoIdentity …"""
    layout = run.layout()
    if not agent:
        return run.identity().agent_id, layout.root
    name = parse_agent(agent)
    root = notes.root_of(layout, name)
    if root is None:
        await _check_known(run, name)
    return name, root or layout.root


async def _check_known(run: Run, name: str) -> None:
    """An agent of another machine has no files here; an unknown name is a mistake. Raises AgentNotFound."""
    known: list[str] = []
    if await run.client_if_running() is not None:
        listed = await run.call(AGENT_LIST, AgentListParams())
        known = [each.agent_id for each in listed.agents]
    if name not in known:
        close = near(name, known)
        advice = "; ".join(part for part in (did_you_mean(close), "thrum agent list") if part)
        raise AgentNotFound(f"agent not found: {name}", remedy=advice, suggestions=close or None)


# -- reading


async def show(
    *,
    agent: Agent = "",
    project: Annotated[bool, switch("only the project state")] = False,
    session: Annotated[bool, switch("only what the agent saved")] = False,
    raw: Annotated[bool, switch("the raw files, each between markers")] = False,
    no_preamble: Annotated[bool, switch("leave out the preamble")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    if project and session:
        raise run.command.error("--project and --session exclude each other")
    layout = run.layout()
    name, root = await _home(run, agent)
    if agent and notes.root_of(layout, name) is None:
        return await _show_elsewhere(run, name)
    saved = await trio.to_thread.run_sync(notes.read_notes, root, name)
    preamble = await trio.to_thread.run_sync(notes.read_preamble, root, name)
    state = None if session else await trio.to_thread.run_sync(notes.read_project_state, layout)
    with_preamble = not (no_preamble or session)
    document = _document(name, saved, preamble, state, own=not project, with_preamble=with_preamble)
    parts = [] if state is None else [_part("project state", state, root, raw)]
    if saved is not None and not project and not raw:
        parts.append(f"# Context for {line(name)} ({plural(saved.size, 'byte')}, updated {absolute(saved.updated_at)})")
    if preamble is not None and not project and with_preamble:
        parts.append(_part("preamble", preamble, root, raw))
    if saved is not None and not project:
        parts.append(_part("context" if raw else "notes", saved, root, raw))
    nothing = "" if saved is not None or project else f"No context saved for {name}"
    if project and state is None:
        nothing = "No project state saved"
    text = ("\n" if raw else "\n\n").join(parts)
    return Answer(document, said="" if raw else nothing, notice=nothing if raw else "", data=text)


async def _show_elsewhere(run: Run, name: str) -> Answer:
    """What an agent of another machine put on the branch with `context sync`."""
    found = await run.call(CONTEXT_SHOW, ContextShowParams(agent_name=name))
    document: dict[str, Any] = {"agent_name": name, "has_context": found.has_context, "has_preamble": False}
    if not found.has_context:
        return Answer(document, said=f"No context synced by {name}")
    document |= {"content": found.content, "size": found.size, "updated_at": found.updated_at}
    head = f"# Context for {line(name)} ({plural(found.size, 'byte')}, synced {absolute(found.updated_at)})"
    return Answer(document, data="\n\n".join((head, indent(found.content.removesuffix("\n")))))


def _part(what: str, note: Note, root: Path, raw: bool) -> str:
    path = note.path.relative_to(root) if note.path.is_relative_to(root) else note.path
    if not raw:
        return framed(f"# {what.capitalize()}", path, note.text)
    text = note.text.removesuffix("\n")
    return f"<!-- {what}: {line(str(path))} -->\n{text}\n<!-- end {what} -->"


def _document(
    name: str, saved: Note | None, preamble: Note | None, state: Note | None, *, own: bool, with_preamble: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "agent_name": name,
        "has_context": saved is not None,
        "has_preamble": preamble is not None,
    }
    if own and saved is not None:
        document |= {"content": saved.text, "size": saved.size, "updated_at": saved.updated_at}
    if own and with_preamble and preamble is not None:
        document |= {"preamble": preamble.text, "preamble_size": preamble.size}
    if state is not None:
        document["project_state"] = state.text
    return document


# -- writing


async def save(
    text: Annotated[str | None, word("TEXT", "the notes; - reads stdin, as does a pipe or < FILE")] = None,
    /,
    *,
    file: Annotated[str, option("P", "read them from a file")] = "",
    agent: Agent = "",
    run: Annotated[Run, RUN],
) -> Answer:
    if text is not None and file:
        raise AmbiguousBody("more than one text: TEXT, --file", remedy="give one of TEXT, --file P, stdin")
    if file:
        text = await read_text_file(run, file)
    elif text is None:
        text = await text_from_stdin(run, HOW_TO_SAVE)
    elif text == "-":
        text = await whole_stdin(run)
    params = ContextSaveParams(agent_name=claim(run, agent), content=_whole(text, file))
    result = await run.call(CONTEXT_SAVE, params)
    return Answer(result, said=f"✓ {line(result.message)}")


async def clear(*, agent: Agent = "", run: Annotated[Run, RUN]) -> Answer:
    params = ContextClearParams(agent_name=claim(run, agent))
    result = await run.call(CONTEXT_CLEAR, params)
    said = f"✓ {line(result.message)}" if result.cleared else f"No context saved for {line(result.agent_name)}"
    return Answer(result, said=said)


async def preamble(
    *,
    agent: Agent = "",
    init: Annotated[bool, switch("reset it to its initial text: the role's template, if there is one")] = False,
    file: Annotated[str, option("P", "replace it with a file")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    if init and file:
        raise run.command.error("--init and --file exclude each other")
    if not (init or file):
        return await _show_preamble(run, agent)
    text = await read_text_file(run, file) if file else ""
    name = claim(run, agent)
    content = _whole(text, file) if file else await _first_preamble(run, name)
    params = ContextSaveParams(agent_name=name, content=content)
    result = await run.call(CONTEXT_PREAMBLE_SAVE, params)
    document = {"agent_name": result.agent_name, "has_preamble": True, "message": result.message}
    return Answer(document, said=f"✓ {line(result.message)}")


async def _show_preamble(run: Run, agent: str) -> Answer:
    name, root = await _home(run, agent)
    found = await trio.to_thread.run_sync(notes.read_preamble, root, name)
    if found is None:
        return Answer({"agent_name": name, "has_preamble": False}, said=f"No preamble saved for {name}")
    document = {"agent_name": name, "has_preamble": True, "content": found.text}
    path = found.path.relative_to(root) if found.path.is_relative_to(root) else found.path
    return Answer(document, data=framed(f"# Preamble of {line(name)}", path, found.text))


async def _first_preamble(run: Run, name: str) -> str:
    """What the agent's preamble begins as, by its role. Raises AgentNotFound, IdentityInvalid."""
    layout = run.layout()
    root = notes.root_of(layout, name)
    if root is None:
        await _check_known(run, name)
        root = layout.root
    path = identity_path(root / ".thrum" / "identities", name)
    identity = await trio.to_thread.run_sync(read_identity, path) if path.is_file() else None
    role, module = (identity.role, identity.module) if identity else ("", "")
    return await trio.to_thread.run_sync(notes.first_preamble, layout, name, role, module)


def _whole(text: str, file: str) -> str:
    """The text as it is kept, with its final newline. Raises BodyTooLarge, FileTooLarge."""
    content = f"{text}\n" if text else ""
    size, limit = len(content.encode()), limits.context_bytes_max
    if size > limit and file:
        raise FileTooLarge(
            f"{file} is {size} bytes, the limit is {limit}", remedy="shorten the file", bytes=size, limit=limit
        )
    if size > limit:
        message = f"the text is too large: {size} bytes, the limit is {limit}"
        raise BodyTooLarge(message, remedy="shorten the text", field="content", bytes=size, limit=limit)
    return content
