"""OpenCode's hooks: a plugin, one JavaScript file that is thrum's alone. Pure.

OpenCode loads it into its own process, where it calls `thrum hook opencode EVENT`, as the other runtimes' hooks do, and
keeps one `thrum hook opencode wait` asleep: what that prints goes to the model by `promptAsync`. Whatever is wrong, it
is silent. Measured with 1.18.33 (docs/runtimes.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from thrum.runtimes._json_edit import NotJson
from thrum.runtimes.hooks import WAIT

HEAD: Final = "// Written by `thrum hook install opencode`. To take it out: thrum hook uninstall opencode"
"""Its first line: what thrum's own file is told by."""
EVENTS: Final = (
    *("session.start", "model.request", "tool.done", "session.idle", "permission.asked", "permission.replied"),
    *("session.end", WAIT),
)
"""What it tells, and the waiter."""
_PROGRAM: Final = re.compile(r'^const PROGRAM = ("(?:[^"\\\n]|\\.)*")$', re.MULTILINE)


def installed(text: str, program: str) -> str:
    """The file. `text`: what is there; empty for none. `program`: the absolute path of `thrum`.

    Raises NotJson for a file that is not thrum's.
    """
    if text.strip() and not is_ours(text):
        raise NotJson("line 1: another plugin, not thrum's")
    return _SOURCE.replace("@PROGRAM@", json.dumps(program), 1)


def is_ours(text: str) -> bool:
    """Whether thrum wrote it."""
    return text.startswith(HEAD)


def program_in(text: str) -> str:
    """The path that it calls; empty where it is not thrum's."""
    found = _PROGRAM.search(text) if is_ours(text) else None
    try:
        return str(json.loads(found[1])) if found is not None else ""
    except ValueError:
        return ""


def events_in(text: str) -> Sequence[str]:
    """The events that it tells; none where it is not thrum's."""
    return EVENTS if is_ours(text) else ()


_SOURCE: Final = (
    HEAD
    + r"""
// It tells thrum what happens in this process, and gives its agent the mail that thrum has for it. It runs no other
// program than this one, and is silent when that is gone.
import { spawn } from "node:child_process"
import { accessSync, constants } from "node:fs"

const PROGRAM = @PROGRAM@
const ANSWER_MS = 20000
const BRIEFING_MS = 3000
const RETRY_MS = [1000, 5000, 30000, 120000]
const PROMPT_CHARS = 500000
const NEWEST = Symbol.for("thrum.opencode")

const isThere = () => {
  try {
    accessSync(PROGRAM, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const after = (ms) => new Promise((done) => setTimeout(done, ms).unref?.())

export const Thrum = async ({ client, directory }) => {
  const me = (globalThis[NEWEST] = {}) // of a plugin that is loaded twice only the last one speaks
  const isNewest = () => globalThis[NEWEST] === me
  const children = new Set()
  const parents = new Map() // by session: whether it is a sub-agent's
  const briefings = new Map() // by session; "" before the first one
  const styles = new Map() // by session: the agent and the model that its person chose last
  const given = new Set() // the user's messages that a model was given
  const busy = new Set()
  let current = ""
  let waiter = null
  let failures = 0
  let line = Promise.resolve()

  // One call of thrum: what it printed; empty whatever is wrong.
  const call = (event, payload, ms, started = () => {}) =>
    new Promise((resolve) => {
      try {
        if (!isThere()) return resolve("")
        const child = spawn(PROGRAM, ["hook", "opencode", event], { cwd: directory, stdio: ["pipe", "pipe", "ignore"] })
        children.add(child)
        started(child)
        const out = []
        const timer = ms ? setTimeout(() => child.kill(), ms) : null
        const end = (text) => {
          if (timer) clearTimeout(timer)
          children.delete(child)
          resolve(text)
        }
        child.stdout.on("data", (data) => out.push(data))
        child.stdout.on("error", () => {})
        child.stdin.on("error", () => {})
        child.on("error", () => end(""))
        child.on("close", (status) => end(status === 0 ? Buffer.concat(out).toString("utf8") : ""))
        child.stdin.end(JSON.stringify({ cwd: directory, ...payload }))
      } catch {
        resolve("")
      }
    })

  const isSub = async (session) => {
    if (!parents.has(session)) {
      const found = await client.session.get({ path: { id: session } }).catch(() => null)
      if (!found?.data) return false
      parents.set(session, Boolean(found.data.parentID))
    }
    return parents.get(session)
  }

  // Events are told one after the other, and nothing waits for them.
  const tell = (event, session, payload = {}) => {
    line = line
      .then(async () => {
        if (!isNewest() || (session && (await isSub(session)))) return
        if (session && event !== "session.end") current = session
        const said = await call(event, { session_id: session, ...payload }, ANSWER_MS)
        if (event === "session.start" && said) {
          const context = JSON.parse(said).context
          if (typeof context === "string") briefings.set(session, context)
        }
      })
      .catch(() => {})
      .then(() => {
        listen().catch(() => {})
      })
    return line
  }

  // One waiter sleeps as long as there is a session that can be spoken to.
  const listen = async () => {
    if (waiter || !current || !isNewest() || !isThere()) return
    const sleeping = (waiter = {})
    const began = Date.now()
    const text = await call("wait", { session_id: current }, 0, (child) => (sleeping.child = child))
    waiter = null
    if (!isNewest()) return
    if (text) await hand(text)
    failures = text || Date.now() - began > 60000 ? 0 : failures + 1
    if (failures) await after(RETRY_MS[Math.min(failures, RETRY_MS.length) - 1])
    listen().catch(() => {})
  }

  const hand = async (text) => {
    const body = { ...styles.get(current), parts: [{ type: "text", text: text.trimEnd() }] }
    await client.session.promptAsync({ path: { id: current }, body }).catch(() => {})
  }

  const asked = (about) => ({
    tool_name: String(about.permission ?? about.type ?? about.title ?? "question"),
    tool_input: { command: String(about.metadata?.command ?? [about.patterns ?? []].flat().join(" ")) },
  })

  const happened = (type, about) => {
    const session = about.sessionID ?? about.info?.id ?? ""
    if (type === "session.created" || type === "session.updated") {
      const isNew = type === "session.created" && !parents.has(session)
      parents.set(session, Boolean(about.info?.parentID))
      if (isNew) tell("session.start", session, { source: "startup" })
    } else if (type === "session.deleted") {
      tell("session.end", session)
      if (session === current) {
        current = ""
        waiter?.child?.kill()
      }
    } else if (type === "session.idle" || (type === "session.status" && about.status?.type === "idle")) {
      if (busy.delete(session)) tell("session.idle", session)
    } else if (type === "permission.asked" || type === "permission.updated" || type === "question.asked") {
      tell("permission.asked", session, asked(about))
    } else if (/^(permission|question)\.(replied|rejected)$/.test(type)) {
      tell("permission.replied", session)
    }
  }

  process.once("exit", () => children.forEach((child) => child.kill()))
  const begun = tell("session.start", "", { source: "startup" })

  return {
    dispose: async () => {
      if (isNewest()) globalThis[NEWEST] = null
      children.forEach((child) => child.kill())
    },
    event: async ({ event }) => {
      try {
        happened(event.type, event.properties ?? {})
      } catch {}
    },
    "chat.message": async (input) => {
      const { agent, model, variant } = input
      styles.set(input.sessionID, { ...(agent && { agent }), ...(model && { model }), ...(variant && { variant }) })
      busy.add(input.sessionID)
    },
    "tool.execute.after": async (input) => {
      tell("tool.done", input.sessionID, { tool_name: input.tool })
    },
    "experimental.chat.system.transform": async (input, output) => {
      try {
        if (!input.sessionID || (await isSub(input.sessionID))) return
        await Promise.race([begun, after(BRIEFING_MS)])
        const briefing = briefings.get(input.sessionID) ?? briefings.get("")
        if (briefing) output.system.push(briefing)
      } catch {}
    },
    "experimental.chat.messages.transform": async (_, output) => {
      try {
        const news = output.messages.filter(({ info }) => info.role === "user" && !given.has(info.id))
        if (!news.length) return
        news.forEach(({ info }) => given.add(info.id))
        const texts = news.flatMap(({ parts }) => parts.map((part) => (part.type === "text" ? part.text : "")))
        const session = news[news.length - 1].info.sessionID
        busy.add(session)
        tell("model.request", session, { prompt: texts.join("\n").slice(-PROMPT_CHARS) })
      } catch {}
    },
  }
}
"""
)
