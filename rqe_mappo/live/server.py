"""The web server: the page's own files, and a WebSocket on which every tab sees the same session."""

import asyncio
import ipaddress
import json
import threading
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect

from rqe_mappo.live import messages
from rqe_mappo.live.session import Session

PAGE = {
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/play.js": ("play.js", "text/javascript"),
    "/scenes.js": ("scenes.js", "text/javascript"),
    "/agents.js": ("agents.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
BACKLOG = 200  # messages that wait for a tab before it is disconnected; it connects again and gets the newest state
POLICY_VIOLATION, TRY_AGAIN = 1008, 1013


class Tab:
    """One open page: the messages that it still has to get, None to disconnect it."""

    def __init__(self):
        self.loop, self.waiting = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def offer(self, text: str) -> None:
        """Queue `text`, from any thread."""
        self.loop.call_soon_threadsafe(self._put, text)

    def _put(self, text: str) -> None:
        if self.waiting.qsize() <= BACKLOG:
            self.waiting.put_nowait(text if self.waiting.qsize() < BACKLOG else None)


class Hub:
    """Sends what the session publishes to every tab; a new tab first gets the newest message of each type."""

    def __init__(self):
        self.lock, self.newest, self.tabs = threading.Lock(), dict[str, str](), set[Tab]()

    def publish(self, kind: str, content: dict[str, Any]) -> None:
        """Called by the session's thread."""
        text = json.dumps({"type": kind} | content, allow_nan=False, ensure_ascii=False)
        with self.lock:
            self.newest[kind] = text
            for tab in self.tabs:
                tab.offer(text)

    def join(self, tab: Tab) -> None:
        """From now on `tab` gets every message."""
        with self.lock:
            for text in self.newest.values():
                tab.offer(text)
            self.tabs.add(tab)

    def leave(self, tab: Tab) -> None:
        """The tab was closed."""
        with self.lock:
            self.tabs.discard(tab)


def trusted(request: Request | WebSocket, host: str) -> bool:
    """Whether a request was meant for this server and comes from its own page, if from any.

    Accepted host names are addresses, `localhost` and `host`; any other may be DNS rebinding. A browser names the site
    of the page in `Origin`; other sites are refused.
    """
    host_header, name = request.headers.get("host", ""), ""
    try:
        name = urlsplit(f"//{host_header}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        if name not in ("localhost", host.lower()):
            return False
    origin = request.headers.get("origin")
    return origin is None or origin in (f"http://{host_header}", f"https://{host_header}")


def application(session: Session, hub: Hub, host: str) -> FastAPI:
    """The page at `/`, its files, and the session at `/live`; nothing else is served."""
    app = FastAPI(openapi_url=None)
    folder = files("rqe_mappo.live") / "static"

    def serve(path: str, name: str, kind: str) -> None:
        content = (folder / name).read_bytes()

        @app.get(path)
        def _(request: Request) -> Response:
            if not trusted(request, host):
                return Response("this server answers to its address, or localhost, only\n", 421, HEADERS)
            return Response(content, headers=HEADERS, media_type=f"{kind}; charset=utf-8")

    for path, (name, kind) in PAGE.items():
        serve(path, name, kind)

    @app.websocket("/live")
    async def live(socket: WebSocket) -> None:
        if not trusted(socket, host):
            await socket.close(POLICY_VIOLATION)
            return
        await socket.accept()
        tab = Tab()
        hub.join(tab)
        sending = asyncio.create_task(_send(socket, tab))
        try:
            while True:
                _handle(await socket.receive(), session, tab)
        except WebSocketDisconnect:
            pass
        finally:
            hub.leave(tab)
            sending.cancel()

    return app


async def _send(socket: WebSocket, tab: Tab) -> None:
    while (text := await tab.waiting.get()) is not None:
        await socket.send_text(text)
    await socket.close(TRY_AGAIN)


def _handle(event: Mapping[str, Any], session: Session, tab: Tab) -> None:
    """Pass the command on to the session, or send that tab alone the reason why not."""
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1000))
    try:
        if event.get("text") is None:
            raise ValueError("messages are text, JSON")
        session.ask(messages.read(event["text"]))
    except ValueError as error:
        tab.offer(json.dumps({"type": "refused", "reason": str(error)}))
