"""The console script `rqe-play`."""

import socket
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rqe_mappo.command_line import main, parse
from rqe_mappo.config import ConfigError, trust
from rqe_mappo.deploy.interpolation import Kind

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

PROG = "rqe-play"
LOCAL = ("127.0.0.1", "localhost", "::1")
LARGEST = 4096  # bytes of a message; a tab that sends more is disconnected
GRACE_S = 2  # to close the connections of tabs when the server ends


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
    """Address to listen on; with any other than this machine's own, others can watch and steer."""
    alpha: float | None = None
    """Weight of SAFE at the start, from 0 to 1; 0.5 by default."""
    kind: Kind | None = None
    """What a mixture is: of probabilities (the default), of logits, or one policy drawn for each episode."""
    seed: int = 1
    """Seed of the first episodes and of the policies' draws."""
    open: bool = False
    """Open the page in a browser."""
    trust: bool = False
    """The runs are your own: import the environment or algorithm of a module that their settings name."""

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


def serve(config: PlayConfig) -> None:
    """Serve the page until interrupted."""
    try:
        import uvicorn

        from rqe_mappo.live.server import Hub, application
        from rqe_mappo.live.session import Session
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'rqe-mappo[play]'") from None
    import torch

    from rqe_mappo.deploy.loading import load_run

    torch.set_num_threads(1)  # networks are small, and other programs may need the cores
    if config.trust:
        for path in filter(None, (config.safe, config.neutral)):
            trust(Path(path))
    policies = tuple(load_run(path) for path in (config.safe, config.neutral) if path)
    hub = Hub()
    alpha = 0.5 if config.alpha is None else config.alpha
    session = Session(policies, hub.publish, alpha, config.kind or "probability", config.seed)
    with listen(config.host, config.port) as listener:
        server = uvicorn.Server(web_config(application(session, hub, config.host)))
        session.on_end = lambda: setattr(server, "should_exit", True)
        session.start()
        try:
            session.ready.wait()
            if session.error is None:
                announce(config, listener.getsockname()[1])
                server.run(sockets=[listener])
        finally:
            session.stop()
    if session.error is not None:
        raise session.error


def web_config(app: "FastAPI") -> "uvicorn.Config":
    """uvicorn's settings for the page: few log lines, and a limit on the size of messages."""
    import uvicorn

    return uvicorn.Config(app, log_level="warning", ws_max_size=LARGEST, timeout_graceful_shutdown=GRACE_S)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; OSError that names the fix where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        fix = "give another --port, or 0 for any that is free"
        raise OSError(f"--host {host} --port {port} cannot be used ({error.strerror}): {fix}") from None
    return listener


def announce(config: PlayConfig, port: int) -> None:
    """Print the address of the page, and warn where others can reach it."""
    name = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{name}:{port}/"
    if config.host not in LOCAL:
        print(f"{PROG}: warning: anyone who can reach {name}:{port} can watch and steer this session", file=sys.stderr)
    print(f"watch at {url} (Ctrl-C ends)", flush=True)
    if config.open:
        webbrowser.open(url)


if __name__ == "__main__":
    play()
