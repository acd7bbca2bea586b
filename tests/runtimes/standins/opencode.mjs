// A stand-in for OpenCode 1.18.33: its plugins, its sessions, its queue, its permission dialog, before a scripted model.
// What it does was measured with the real one (docs/runtimes.md). The plugin that it loads is thrum's own.
import { spawn } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const HOME = process.env.HOME
const PROJECT = process.cwd()
const config = JSON.parse(readFileSync(join(HOME, ".config/opencode/opencode.json"), "utf8"))
const { baseURL } = config.provider.local.options

let count = 0
const id = (kind) => `${kind}_${Date.now().toString(36)}${String((count += 1)).padStart(4, "0")}`
const sessions = new Map()
const plugins = []
const shown = []
let current = null
let draft = ""
let dialog = null

const fire = async (hook, input, output) => {
  for (const each of plugins) await each[hook]?.(input, output)
}
const emit = (type, properties) => fire("event", { event: { type, properties } }).catch(() => {})

const create = (parentID) => {
  const session = { id: id("ses"), parentID, messages: [], running: false, abort: null, taken: 0 }
  sessions.set(session.id, session)
  emit("session.created", { sessionID: session.id, info: { id: session.id, parentID } })
  return session
}

const add = async (session, text, choice = {}) => {
  const info = { id: id("msg"), role: "user", sessionID: session.id, agent: choice.agent ?? "build" }
  const parts = [{ type: "text", text }]
  const input = { sessionID: session.id, agent: info.agent, model: { providerID: "local", modelID: "fake" } }
  await fire("chat.message", input, { message: info, parts })
  session.messages.push({ info, parts })
  if (session === current) shown.push(text)
  draw()
}

const ask = async (session) => {
  const output = { messages: session.messages }
  await fire("experimental.chat.messages.transform", {}, output)
  const system = ["You are a stand-in."]
  await fire("experimental.chat.system.transform", { sessionID: session.id }, { system })
  session.taken = session.messages.length
  const messages = output.messages.flatMap(({ info, parts }) =>
    parts.map((part) =>
      part.type === "tool" ? { role: "tool", content: part.output } : { role: info.role, content: part.text },
    ),
  )
  const tools = [{ type: "function", function: { name: "bash" } }]
  const body = JSON.stringify({ model: "fake", messages: [{ role: "system", content: system.join("\n") }, ...messages], tools })
  session.abort = new AbortController()
  const answer = await fetch(`${baseURL}/chat/completions`, { method: "POST", body, signal: session.abort.signal })
  return (await answer.json()).choices[0].message
}

const permitted = async (session, command) => {
  if (!command.startsWith("touch ")) return true
  const request = { id: id("per"), sessionID: session.id, permission: "bash", patterns: [command], metadata: { command } }
  const reply = new Promise((resolve) => (dialog = { command, resolve }))
  draw()
  emit("permission.asked", request)
  const allowed = await reply
  dialog = null
  draw()
  emit("permission.replied", { sessionID: session.id, requestID: request.id, reply: allowed ? "once" : "reject" })
  return allowed
}

const shell = (session, command) =>
  new Promise((resolve) => {
    const env = { ...process.env, OPENCODE: "1" }
    const child = spawn("bash", ["-c", command], { stdio: ["ignore", "pipe", "pipe"], detached: true, env })
    const out = []
    child.stdout.on("data", (data) => out.push(data))
    child.stderr.on("data", (data) => out.push(data))
    session.kill = () => process.kill(-child.pid, "SIGKILL")
    child.on("close", () => resolve(Buffer.concat(out).toString() || "(no output)"))
  })

// A sub-agent: a session of its own below this one, whose answer is the tool's result.
const task = async (session, prompt) => {
  const sub = create(session.id)
  await add(sub, prompt)
  await run(sub)
  return `task said: ${sub.messages.at(-1).parts[0].text}`
}

const run = async (session) => {
  if (session.running) return
  session.running = true
  draw()
  emit("session.status", { sessionID: session.id, status: { type: "busy" } })
  try {
    while (session.taken < session.messages.length) {
      const said = await ask(session)
      const text = said.content || ""
      const waiting = session.messages.splice(session.taken) // QUEUED: after what is said now
      session.messages.push({ info: { id: id("msg"), role: "assistant", sessionID: session.id }, parts: [{ type: "text", text }] })
      session.taken = session.messages.length
      if (text && session === current) shown.push(text)
      for (const call of said.tool_calls ?? []) {
        const { command } = JSON.parse(call.function.arguments)
        if (!(await permitted(session, command))) throw new Error("rejected")
        const sub = command.match(/^task (.*)$/)
        const output = sub ? await task(session, sub[1]) : await shell(session, command)
        if (session.aborted) throw new Error("aborted")
        await fire("tool.execute.after", { tool: "bash", sessionID: session.id, callID: call.id, args: { command } }, { title: "", output, metadata: {} })
        session.messages.push({ info: { id: id("msg"), role: "tool", sessionID: session.id }, parts: [{ type: "tool", output }] })
      }
      session.messages.push(...waiting)
    }
  } catch (error) {
    session.messages.push({ info: { id: id("msg"), role: "assistant", sessionID: session.id }, parts: [{ type: "text", text: String(error.message) }] })
    session.taken = session.messages.length
  }
  session.running = session.aborted = false
  draw()
  emit("session.status", { sessionID: session.id, status: { type: "idle" } })
  emit("session.idle", { sessionID: session.id })
}

const client = {
  session: {
    get: async ({ path }) => ({ data: sessions.get(path.id) && { id: path.id, parentID: sessions.get(path.id).parentID } }),
    promptAsync: async ({ path, body }) => {
      const session = sessions.get(path.id)
      if (!session) return { error: "not found" }
      await add(session, body.parts.map((part) => part.text).join("\n"), body)
      run(session)
      return { data: null }
    },
  },
}

const draw = () => {
  const { columns = 100, rows = 30 } = process.stdout
  const foot = dialog
    ? ["△ Permission required", `  # ${dialog.command}`, "  Allow once   Allow always   Reject"]
    : [`┃ ${draft || "Ask anything…"}`, current?.running ? "esc interrupt" : "ctrl+p commands"]
  const body = shown.flatMap((text) => text.split("\n")).slice(-(rows - foot.length)).map((row) => row.slice(0, columns))
  const all = [...body, ...Array(Math.max(0, rows - foot.length - body.length)).fill(""), ...foot]
  process.stdout.write("\x1b[H" + all.map((row) => row + "\x1b[K").join("\r\n"))
}

const leave = async () => {
  for (const each of plugins) await each.dispose?.()
  process.stdout.write("\x1b[?1049l")
  process.exit(0)
}

const submit = async () => {
  const text = draft.trim()
  draft = ""
  if (text === "/exit") return leave()
  if (text === "/new") {
    current = null
    shown.length = 0
  } else if (text) {
    current ??= create()
    await add(current, text)
    run(current)
  }
  draw()
}

const keys = (data) => {
  for (const key of data.toString("utf8").replace(/\x1b\[20[01]~/g, "")) {
    if (dialog) {
      if (key === "\r") dialog.resolve(true)
      else if (key === "\x1b") dialog.resolve(false)
    } else if (key === "\x1b") {
      if (current?.running) {
        current.aborted = true
        current.abort?.abort()
        current.kill?.()
      }
    } else if (key === "\x03") leave()
    else if (key === "\r") submit()
    else if (key === "\x7f") draft = draft.slice(0, -1)
    else if (key >= " ") draft += key
  }
  draw()
}

process.on("SIGHUP", () => process.exit(129))
process.stdin.setRawMode(true)
process.stdout.write("\x1b[?1049h\x1b]0;OpenCode\x07")
for (const folder of [join(HOME, ".config/opencode/plugins"), join(PROJECT, ".opencode/plugins")]) {
  if (!existsSync(folder)) continue
  for (const name of readdirSync(folder).filter((each) => each.endsWith(".js"))) {
    const found = await import(pathToFileURL(join(folder, name)))
    for (const make of Object.values(found)) plugins.push(await make({ client, directory: PROJECT, worktree: PROJECT }))
  }
}
process.stdin.on("data", keys)
draw()
