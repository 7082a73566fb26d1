"""The console script `rqe-play`."""

import socket
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from rqe_mappo.command_line import main, parse
from rqe_mappo.config import ConfigError
from rqe_mappo.deploy.interpolation import Kind

PROG = "rqe-play"
LOCAL = ("127.0.0.1", "localhost", "::1")
LARGEST = 4096  # bytes of a message; whoever sends more is cut off
GRACE_S = 2  # for tabs to be told that the server ends


@dataclass(frozen=True)
class PlayConfig:
    """Watch policies drive, on a web page of this machine; needs pip install 'rqe-mappo[play]'."""

    safe: Annotated[str, tyro.conf.Positional]
    """Run folder, or a step_N.policy.pt file, of --env sumo or cartpole."""
    neutral: Annotated[str, tyro.conf.Positional] = ""
    """A second one; a slider then mixes the two."""
    port: int = 8000
    """Port of the page; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own lets others watch and steer."""
    alpha: float | None = None
    """Weight of SAFE at the start, from 0 to 1; 0.5 if not told."""
    kind: Kind | None = None
    """What a mixture is: of probabilities (the default), of logits, or one policy drawn for each episode."""
    seed: int = 1
    """Seed of the first episodes and of the policies' draws."""
    open: bool = False
    """Open the page in a browser."""

    def __post_init__(self):
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must lie in 0 to 65535 (got {self.port})")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed must lie in 0 to {2**31 - 1} (got {self.seed})")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ConfigError(f"--alpha must lie in [0, 1] (got {self.alpha:g})")
        for name in ("alpha", "kind"):
            if not self.neutral and getattr(self, name) is not None:
                raise ConfigError(f"--{name} mixes two policies: give a second one, or leave it out")


def play(args: Sequence[str] | None = None) -> None:
    """rqe-play: a live page."""
    main(lambda args: serve(parse(PlayConfig, PROG, args)), PROG, args)


def serve(asked: PlayConfig) -> None:
    """Serve the page until interrupted."""
    try:
        import uvicorn

        from rqe_mappo.live.server import Hub, application
        from rqe_mappo.live.session import Session
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'rqe-mappo[play]'") from None
    import torch

    from rqe_mappo.deploy.policy import Policy

    torch.set_num_threads(1)  # networks are small; other programs may want the machine
    policies = tuple(Policy.load(path) for path in (asked.safe, asked.neutral) if path)
    hub = Hub()
    alpha = 0.5 if asked.alpha is None else asked.alpha
    session = Session(policies, hub.publish, alpha, asked.kind or "probability", asked.seed)
    with listen(asked.host, asked.port) as ear:
        server = uvicorn.Server(web_config(application(session, hub, asked.host)))
        session.on_end = lambda: setattr(server, "should_exit", True)
        session.start()
        try:
            session.ready.wait()
            if session.error is None:
                announce(asked, ear.getsockname()[1])
                server.run(sockets=[ear])
        finally:
            session.stop()
    if session.error is not None:
        raise session.error


def web_config(app: Any) -> Any:
    """uvicorn's settings for the page: quiet, and no more of a message than makes sense is read."""
    import uvicorn

    return uvicorn.Config(app, log_level="warning", ws_max_size=LARGEST, timeout_graceful_shutdown=GRACE_S)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; OSError with the mend where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ear = socket.socket(family, socket.SOCK_STREAM)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        ear.bind((host, port))
        ear.listen()
    except OSError as error:
        ear.close()
        mend = "give another --port, or 0 for any that is free"
        raise OSError(f"--host {host} --port {port} cannot be used ({error.strerror}): {mend}") from None
    return ear


def announce(asked: PlayConfig, port: int) -> None:
    """Say where the page is, and what is unsafe about it."""
    name = f"[{asked.host}]" if ":" in asked.host else asked.host
    url = f"http://{name}:{port}/"
    if asked.host not in LOCAL:
        print(f"{PROG}: warning: whoever can reach {name}:{port} can watch and steer this session", file=sys.stderr)
    print(f"watch at {url} (Ctrl-C ends)", flush=True)
    if asked.open:
        webbrowser.open(url)


if __name__ == "__main__":
    play()
