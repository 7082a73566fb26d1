"""The web server: the page's own files, and a WebSocket on which every tab sees the same session."""

import asyncio
import ipaddress
import json
import threading
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
BACKLOG = 200  # messages that wait for a tab before it is let go; it connects anew and is told the newest state
POLICY_VIOLATION, TRY_AGAIN = 1008, 1013


class Tab:
    """One open page: what it still has to be sent, None when it is let go."""

    def __init__(self):
        self.loop, self.waiting = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def offer(self, text: str) -> None:
        """Queue `text`, from any thread."""
        self.loop.call_soon_threadsafe(self._put, text)

    def _put(self, text: str) -> None:
        if self.waiting.qsize() <= BACKLOG:
            self.waiting.put_nowait(text if self.waiting.qsize() < BACKLOG else None)


class Hub:
    """Passes on what the session publishes to every tab; who comes late is given the newest message of each type."""

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
        """From now on `tab` is told everything."""
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

    A name that somebody has made point here (DNS rebinding) is refused: addresses, `localhost` and `host` are not. A
    browser says in `Origin` whose page asks; another site's is refused.
    """
    asked, name = request.headers.get("host", ""), ""
    try:
        name = urlsplit(f"//{asked}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        if name not in ("localhost", host.lower()):
            return False
    origin = request.headers.get("origin")
    return origin is None or origin in (f"http://{asked}", f"https://{asked}")


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
                _take(await socket.receive(), session, tab)
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


def _take(event: dict[str, Any], session: Session, tab: Tab) -> None:
    """Pass what a tab asks for on to the session, or tell that tab alone why not."""
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1000))
    try:
        if event.get("text") is None:
            raise ValueError("messages are text, JSON")
        session.ask(messages.read(event["text"]))
    except ValueError as error:
        tab.offer(json.dumps({"type": "refused", "reason": str(error)}))
