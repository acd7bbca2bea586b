#!/usr/bin/env python3
# ruff: noqa: E401, E731, PTH123, TID251, UP031, I001
"""Scripted model server for real coding-agent programs. Python stdlib only, loopback only.

Speaks: Anthropic Messages (/v1/messages), OpenAI Responses (/v1/responses), OpenAI Chat
(/v1/chat/completions), Gemini (/v1beta/models/X:[stream]generateContent). No account, any key.

The newest user text scripts the turn (first directive found, anywhere in the text):
  SLOW: <seconds>   wait that long before answering           (state "working")
  RUN: <command>    answer with ONE shell tool call            (then ends the turn)
  SAY: <text>       answer with that text
  BOTH: <command>   answer with TWO such calls at once (Responses)
  "run `CMD`"       the same as RUN (so a typed wake line works unchanged)
Anything else: "ack N". A tool result as the newest item: "tool said: ..." and the turn ends.

  fake_model.py PORT LOG.jsonl        LOG: one line per request: what is NEW to the model
"""

import json, re, sys, threading, time, itertools
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, LOG = int(sys.argv[1]), sys.argv[2]
lock, counter = threading.Lock(), itertools.count(1)


def log(**kw):
    with lock, open(LOG, "a") as f:
        f.write(json.dumps({"t": round(time.time(), 3), **kw}) + "\n")


def flat(content):
    """text of a message's content, whatever the dialect; tool results marked."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    out = []
    for b in content:
        if isinstance(b, str):
            out.append(b)
            continue
        t = b.get("type")
        if "text" in b and t in (None, "text", "input_text", "output_text"):
            out.append(b["text"])
        elif t == "tool_result":
            out.append("[tool_result] " + flat(b.get("content")))
        elif "functionResponse" in b:
            out.append("[tool_result] " + json.dumps(b["functionResponse"].get("response")))
        elif t == "tool_use" or "functionCall" in b:
            out.append("[tool_use]")
    return "\n".join(out)


def decide(items):
    """items: [(role, text)], newest last -> (kind, payload, delay). Looks back to the last model turn."""
    new = []
    for role, text in reversed(items):
        if role in ("assistant", "model"):
            break
        _, interrupted, after = text.rpartition("[Request interrupted by user]")
        if not interrupted:
            _, interrupted, after = text.rpartition("</turn_aborted>")
        new.insert(0, (role, after))
        if interrupted:  # what was interrupted is no news
            break
    joined = "\n".join(t for _, t in new)
    is_tool = any(r == "tool" or t.startswith("[tool_result]") for r, t in new)
    delay = float(m.group(1)) if (m := re.search(r"SLOW:\s*([\d.]+)", joined)) else 0.0
    user = "\n".join(t for r, t in new if r != "tool" and not t.startswith("[tool_result]"))
    if not re.search("RUN:|is restarted in", user):
        user = re.sub(r"(?s)<system-reminder>.*?</system-reminder>", "", user)
    if m := re.search(r"RUN:\s*(.+)", user):
        return "tool", m.group(1).strip().strip("`"), delay, joined
    if m := re.search(r"BOTH:\s*(.+)", user):
        return "both", m.group(1).strip(), delay, joined
    if m := re.search(r"run `([^`]+)`", user):
        return "tool", m.group(1), delay, joined
    if m := re.search(r"SAY:\s*(.+)", user):
        return "text", m.group(1).strip(), delay, joined
    if is_tool:
        return "text", "tool said: " + joined[-160:].replace("\n", " | "), delay, joined
    return "text", f"ack {next(counter)}", delay, joined


class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def js(self, obj, code=200):
        b = json.dumps(obj).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(b)))
        self.end_headers()
        self.wfile.write(b)

    def sse_open(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def sse(self, obj, event=None):
        s = (
            (f"event: {event}\n" if event else "")
            + "data: "
            + (obj if isinstance(obj, str) else json.dumps(obj))
            + "\n\n"
        )
        self.wfile.write(s.encode())
        self.wfile.flush()

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self):
        log(get=self.path)
        if "models" in self.path:
            return self.js({"object": "list", "data": [{"id": "fake", "object": "model"}], "models": []})
        self.js({"error": "not found"}, 404)

    def do_POST(self):
        n = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(n)
        if self.headers.get("transfer-encoding") == "chunked":
            raw = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                raw += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        enc = self.headers.get("content-encoding")
        try:
            if enc == "gzip":
                import gzip

                raw = gzip.decompress(raw)
            req = json.loads(raw or b"{}")
        except Exception as e:
            log(post=self.path, bad=str(e), enc=enc, head=raw[:80].hex())
            return self.js({}, 400)
        p = self.path.split("?")[0]
        try:
            if p.endswith("/messages/count_tokens"):
                return self.js({"input_tokens": 1000})
            if p.endswith("/messages"):
                return self.anthropic(req)
            if p.endswith("/responses"):
                return self.openai_responses(req)
            if p.endswith("/chat/completions"):
                return self.chat(req)
            if "countTokens" in p:
                return self.js({"totalTokens": 1000})
            if "generateContent" in p or "GenerateContent" in p:
                return self.gemini(req, "stream" in p)
        except (BrokenPipeError, ConnectionResetError):
            log(post=p, aborted=True)
            return
        log(post=p, body=raw[:300].decode("utf-8", "replace"))
        self.js({}, 404)

    # --- Anthropic -----------------------------------------------------------------------
    def anthropic(self, r):
        items = [(m["role"], flat(m["content"])) for m in r["messages"]]
        tools = [t.get("name") for t in r.get("tools", [])]
        kind, val, delay, new = decide(items)
        if kind == "tool" and "Bash" not in tools:
            kind, val = "text", "ok"
        log(
            api="anthropic",
            model=r.get("model"),
            n=len(items),
            tools=len(tools),
            names=tools[:60],
            new=new[-60000:],
            answer=[kind, val],
            system_tail=flat(r.get("system"))[-200:],
        )
        time.sleep(delay)
        mid = f"msg_{time.time_ns()}"
        block = (
            {"type": "text", "text": val}
            if kind == "text"
            else {
                "type": "tool_use",
                "id": f"toolu_{time.time_ns()}",
                "name": "Bash",
                "input": {"command": val, "description": "scripted"},
            }
        )
        stop = "end_turn" if kind == "text" else "tool_use"
        usage = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
        if not r.get("stream"):
            return self.js(
                {
                    "id": mid,
                    "type": "message",
                    "role": "assistant",
                    "model": r.get("model"),
                    "content": [block],
                    "stop_reason": stop,
                    "stop_sequence": None,
                    "usage": usage,
                }
            )
        self.sse_open()
        S = lambda o: self.sse(o, o["type"])
        S(
            {
                "type": "message_start",
                "message": {
                    "id": mid,
                    "type": "message",
                    "role": "assistant",
                    "model": r.get("model"),
                    "content": [],
                    "stop_reason": None,
                    "stop_sequence": None,
                    "usage": usage,
                },
            }
        )
        if kind == "text":
            S({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
            S({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": val}})
        else:
            S({"type": "content_block_start", "index": 0, "content_block": {**block, "input": {}}})
            S(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
                }
            )
        S({"type": "content_block_stop", "index": 0})
        S(
            {
                "type": "message_delta",
                "delta": {"stop_reason": stop, "stop_sequence": None},
                "usage": {"output_tokens": 5},
            }
        )
        S({"type": "message_stop"})

    # --- OpenAI Responses (codex) -----------------------------------------------------------
    def openai_responses(self, r):
        items = []
        for i in r.get("input", []):
            if i.get("type") in ("function_call_output", "custom_tool_call_output", "local_shell_call_output"):
                o = i.get("output")
                items.append(
                    (
                        "tool",
                        "[tool_result] "
                        + (o if isinstance(o, str) else flat(o) if isinstance(o, list) else json.dumps(o)),
                    )
                )
            elif i.get("type") in ("function_call", "custom_tool_call", "reasoning", "local_shell_call"):
                items.append(("assistant", ""))
            else:
                items.append((i.get("role", "?"), flat(i.get("content"))))
        tools = [t.get("name") or t.get("type") for t in r.get("tools", [])]
        kind, val, delay, new = decide(items)
        log(
            api="responses",
            model=r.get("model"),
            n=len(items),
            tools=tools,
            new=new[-60000:],
            answer=[kind, val],
            # A request may be given up and made again: what counts is what stands in a conversation in the end.
            conversation=r.get("prompt_cache_key"),
            told="\n".join(text for role, text in items if role in ("user", "developer"))[-200000:],
        )
        time.sleep(delay)
        rid, call = f"resp_{time.time_ns()}", f"call_{time.time_ns()}"
        two, kind = kind == "both", "tool" if kind == "both" else kind
        if kind == "tool":
            esc = (
                {"sandbox_permissions": "require_escalated", "justification": "scripted"}
                if val.startswith("ASK ")
                else {}
            )
            val = val.removeprefix("ASK ")  # codex: "RUN: ASK cmd" opens its approval dialog
            if "exec_command" in tools:
                name, args = "exec_command", {"cmd": val, **esc}
            elif "shell_command" in tools:
                name, args = "shell_command", {"command": val}
            elif "shell" in tools:
                name, args = "shell", {"command": ["bash", "-lc", val]}
            elif "exec" in tools:
                name, args = "exec", None
            else:
                kind, val = "text", "no shell tool in " + repr(tools)
        if kind == "tool" and args is None:
            js = "const r = await tools.exec_command({cmd: %s}); text(r.output);" % json.dumps(val)
            item = {
                "type": "custom_tool_call",
                "id": "ct_1",
                "call_id": call,
                "name": name,
                "input": js,
                "status": "completed",
            }
        elif kind == "tool":
            item = {
                "type": "function_call",
                "id": "fc_1",
                "call_id": call,
                "name": name,
                "arguments": json.dumps(args),
                "status": "completed",
            }
        else:
            item = {
                "type": "message",
                "id": "m_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": val, "annotations": []}],
            }
        self.sse_open()
        S = lambda o: self.sse(o, o["type"])
        S({"type": "response.created", "response": {"id": rid, "status": "in_progress", "output": []}})
        items = [item, {**item, "id": "fc_2", "call_id": call + "b"}] if two else [item]
        for at, item in enumerate(items):
            S(
                {
                    "type": "response.output_item.added",
                    "output_index": at,
                    "item": {**item, **({"content": []} if kind == "text" else {})},
                }
            )
            if kind == "text":
                S(
                    {
                        "type": "response.output_text.delta",
                        "item_id": "m_1",
                        "output_index": at,
                        "content_index": 0,
                        "delta": val,
                    }
                )
            S({"type": "response.output_item.done", "output_index": at, "item": item})
        S(
            {
                "type": "response.completed",
                "response": {
                    "id": rid,
                    "status": "completed",
                    "output": items,
                    "usage": {
                        "input_tokens": 10,
                        "input_tokens_details": {"cached_tokens": 0},
                        "output_tokens": 5,
                        "output_tokens_details": {"reasoning_tokens": 0},
                        "total_tokens": 15,
                    },
                },
            }
        )

    # --- OpenAI Chat (opencode & co) ----------------------------------------------------------
    def chat(self, r):
        items = [(m["role"], flat(m.get("content"))) for m in r["messages"] if m["role"] not in ("system", "developer")]
        tools = [t.get("function", {}).get("name") for t in r.get("tools", []) or []]
        kind, val, delay, new = decide(items)
        shell = next((t for t in ("bash", "Bash", "shell", "run_shell_command", "Shell") if t in tools), None)
        if kind == "tool" and not shell:
            kind, val = "text", "scripted title"
        system = "\n".join(flat(m.get("content")) for m in r["messages"] if m["role"] in ("system", "developer"))
        log(
            api="chat",
            model=r.get("model"),
            n=len(items),
            tools=tools,
            new=new[-60000:],
            answer=[kind, val],
            system=system[-6000:],
        )
        time.sleep(delay)
        base = {
            "id": f"chatcmpl-{time.time_ns()}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": r.get("model"),
        }
        tc = [
            {
                "index": 0,
                "id": f"call_{time.time_ns()}",
                "type": "function",
                "function": {"name": shell, "arguments": json.dumps({"command": val, "description": "scripted"})},
            }
        ]
        fin = "tool_calls" if kind == "tool" else "stop"
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        if not r.get("stream"):
            msg = {
                "role": "assistant",
                "content": val if kind == "text" else None,
                **({"tool_calls": tc} if kind == "tool" else {}),
            }
            return self.js(
                {
                    **base,
                    "object": "chat.completion",
                    "choices": [{"index": 0, "message": msg, "finish_reason": fin}],
                    "usage": usage,
                }
            )
        self.sse_open()
        d = (
            {"role": "assistant", "content": val}
            if kind == "text"
            else {"role": "assistant", "content": None, "tool_calls": tc}
        )
        self.sse({**base, "choices": [{"index": 0, "delta": d, "finish_reason": None}]})
        self.sse({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": fin}], "usage": usage})
        self.sse("[DONE]")

    # --- Gemini -----------------------------------------------------------------------------------
    def gemini(self, r, stream):
        items = [(m.get("role", "user"), flat(m.get("parts"))) for m in r.get("contents", [])]
        tools = [f.get("name") for t in r.get("tools", []) or [] for f in t.get("functionDeclarations", [])]
        kind, val, delay, new = decide(items)
        cfg = r.get("generationConfig", {})
        if cfg.get("responseMimeType") == "application/json" or cfg.get("responseJsonSchema"):
            kind, val = (
                "text",
                json.dumps(
                    {
                        "reasoning": "x",
                        "next_speaker": "user",
                        "model_choice": "flash",
                        "complexity_reasoning": "x",
                        "complexity_score": 1,
                    }
                ),
            )
        if kind == "tool" and "run_shell_command" not in tools:
            kind, val = "text", "ok"
        log(api="gemini", path=self.path, n=len(items), tools=tools, new=new[-60000:], answer=[kind, val])
        time.sleep(delay)
        part = (
            {"text": val}
            if kind == "text"
            else {"functionCall": {"name": "run_shell_command", "args": {"command": val, "description": "scripted"}}}
        )
        o = {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
            "modelVersion": "fake",
        }
        if not stream:
            return self.js(o)
        self.sse_open()
        self.sse(o)


if __name__ == "__main__":
    ThreadingHTTPServer.daemon_threads = True
    log(serving=PORT)
    ThreadingHTTPServer(("127.0.0.1", PORT), H).serve_forever()
