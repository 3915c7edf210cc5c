"""A chat of FastAPI websockets and a plain HTML page, without Flet.

Start it, open the address that it prints in two windows, and talk to yourself. PORT in the
environment chooses another port; with PAGEBUS_LINK=redis://127.0.0.1:6379/0, several processes are
one chat: `uvicorn --workers 4 fastapi_chat:app`.
"""

import asyncio
import os
from contextlib import suppress
from uuid import uuid4

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect, responses

from pagebus import PubSub, PubSubHub, Stream

PORT = int(os.environ.get("PORT", "8000"))
hub, app = PubSubHub(link=os.environ.get("PAGEBUS_LINK")), FastAPI()


@app.websocket("/chat")
async def chat(socket: WebSocket) -> None:
    """One visitor: what the browser says goes to all, what they say goes to the browser."""
    await socket.accept()
    ps = PubSub(hub, f"visitor {uuid4()}")
    async with ps.stream() as messages:  # leaving the block ends the task's loop
        showing = asyncio.create_task(show(messages, socket))
        with suppress(KeyError, ValueError):  # bytes, or more than a link takes: that is the end
            async for line in socket.iter_text():
                ps.send_all(line)
    await showing


async def show(messages: Stream, socket: WebSocket) -> None:
    """Passes on what the visitor is to read; a slow browser delays nobody else."""
    with suppress(WebSocketDisconnect):
        async for line in messages:
            await socket.send_text(line)


@app.get("/")
async def page() -> responses.HTMLResponse:
    """The page; it needs nothing from elsewhere."""
    return responses.HTMLResponse(PAGE)


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>pagebus chat</title><style>
  * { box-sizing: border-box; font-family: system-ui, sans-serif; font-size: 16px }
  body { margin: 0; height: 100vh; display: flex; flex-direction: column; background: #f4f5fb }
  header, form { display: flex; gap: 12px; padding: 14px 20px; background: #fff }
  header { justify-content: space-between; align-items: center } h1 { margin: 0; font-size: 20px }
  b { display: block } ul { flex: 1; overflow: auto; margin: 0; padding: 20px }
  li { display: flex; gap: 12px; margin-bottom: 14px; overflow-wrap: anywhere }
  span { flex: 0 0 40px; line-height: 40px; border-radius: 20px; color: #fff; text-align: center }
  input { padding: 9px 12px; border: 1px solid #bbc; border-radius: 8px } #text { flex: 1 }
  button { padding: 9px 22px; border: 0; border-radius: 8px; color: #fff; background: #3f51b5 }
</style><header><h1>Chat</h1><input id="who" placeholder="Your name" autofocus></header>
<ul id="lines"></ul><form id="form" autocomplete="off">
<input id="text" placeholder="Message" required><button>Send</button></form><script>
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/chat");
  const make = (tag, textContent) => Object.assign(document.createElement(tag), {textContent});
  socket.onmessage = ({data}) => {
    const {name, text} = JSON.parse(data), row = make("li", ""), words = make("div", text);
    const hue = [...name].reduce((sum, letter) => sum + letter.codePointAt() * 47, 0) % 360;
    row.append(make("span", [...name][0].toUpperCase()), words); words.prepend(make("b", name));
    row.firstChild.style.background = `hsl(${hue} 45% 42%)`;
    lines.append(row); row.scrollIntoView();
  };
  form.onsubmit = event => {
    event.preventDefault();
    socket.send(JSON.stringify({name: who.value.trim() || "Somebody", text: text.value}));
    text.value = "";
  };
</script></html>"""

if __name__ == "__main__":
    print(f"Chat on http://127.0.0.1:{PORT}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
