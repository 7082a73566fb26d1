"""The junction from above, drawn with Pillow: no display needed."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rqe_mappo.envs.sumo_intersection.batched_intersection import BatchedIntersection
from rqe_mappo.envs.sumo_intersection.scene import AGENTS, LANE_M, LENGTH_M, VIEW_M, WIDTH_M, Watcher, stop_lines

FINER = 2  # drawn larger by this factor, then reduced, for smooth edges
HALO_M = 4.5
GROUND, ROAD, LINE, INK, QUIET, CRASH = "#eef0e8", "#9a9a9a", "#ffffff", "#222222", "#666666", "#d00000"
BACKGROUND = "#5c5c5c"
CALM, DANGER = np.array([120, 190, 120]), np.array([210, 30, 30])  # the halo at a value of 0 and of a collision's cost


class Camera(Watcher):
    """Draws copy 0 of an environment with one copy; `size` in pixels, the strip of distributions is half as wide."""

    def __init__(self, env: BatchedIntersection, size: int = 480):
        super().__init__(env)
        self.size, self.scale = size, size * FINER / VIEW_M
        self.ground = self._ground()
        self.strip: tuple[np.ndarray, Image.Image] | None = None

    def frame(
        self,
        caption: str = "",
        value: np.ndarray | None = None,
        atoms: np.ndarray | None = None,
        probs: np.ndarray | None = None,
    ) -> Image.Image:
        """The scene as it was last looked at, RGB.

        value: V_tau of each agent `[A]`, in seconds, nan for those that have left: the colour of a halo.
        atoms, probs: the distribution of each agent's return `[A, N]` on atoms `[N]`, for a strip on the right.
        """
        image = self.ground.copy()
        glow = Image.new("RGBA", image.size)
        n = self.env.config.n_agents
        if value is not None:
            brush = ImageDraw.Draw(glow)
            for j, (place, angle) in self.scene.vehicles.items():
                if j < n and np.isfinite(value[j]):
                    x, y = self._pixel(place - LENGTH_M / 2 * heading(angle))
                    radius = HALO_M * self.scale
                    colour = (*self._halo_colour(value[j]), 110)
                    brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
            image.paste(glow, mask=glow)
        brush = ImageDraw.Draw(image)
        for j, (place, angle) in sorted(self.scene.vehicles.items(), reverse=True):
            driven = j < n and not self.env.world.human[0, j]
            self._vehicle(brush, place, angle, AGENTS[j % len(AGENTS)] if driven else BACKGROUND)
        for (place, _), _ in self.scene.wrecks.values():
            self._star(brush, place)
        image = image.resize((self.size, self.size), Image.Resampling.LANCZOS)
        write = ImageDraw.Draw(image)
        write.text((8, 6), caption, fill=INK, font=ImageFont.load_default(15))
        if probs is None or atoms is None or value is None:
            return image
        both = Image.new("RGB", (self.size + self.size // 2, self.size), "white")
        both.paste(image)
        if self.strip is None or self.strip[0] is not probs:  # it changes with decisions only
            self.strip = probs, self._strip(value, atoms, probs)
        both.paste(self.strip[1], (self.size, 0))
        return both

    def _pixel(self, place: np.ndarray) -> tuple[float, float]:
        return (place[0] + VIEW_M / 2) * self.scale, (VIEW_M / 2 - place[1]) * self.scale

    def _ground(self) -> Image.Image:
        image = Image.new("RGB", (self.size * FINER, self.size * FINER), GROUND)
        brush = ImageDraw.Draw(image)
        for path in self.env.world.geometry.paths:
            points = [self._pixel(point) for point in path]
            wide = round(LANE_M * self.scale)
            brush.line(points, fill=ROAD, width=wide, joint="curve")
            for x, y in points:
                brush.ellipse((x - wide / 2, y - wide / 2, x + wide / 2, y + wide / 2), fill=ROAD)
        for ends in stop_lines(self.env.world.geometry):
            brush.line([self._pixel(end) for end in ends], fill=LINE, width=max(1, round(0.4 * self.scale)))
        return image

    def _vehicle(self, brush: ImageDraw.ImageDraw, front: np.ndarray, angle: float, colour: str) -> None:
        ahead = heading(angle)
        side = np.array([ahead[1], -ahead[0]]) * WIDTH_M / 2

        def box(begin_m: float, end_m: float, share: float = 1.0) -> list[tuple[float, float]]:
            ends = (front - begin_m * ahead, front - end_m * ahead)
            corners = (ends[0] - share * side, ends[0] + share * side, ends[1] + share * side, ends[1] - share * side)
            return [self._pixel(corner) for corner in corners]

        brush.polygon(box(0, LENGTH_M), fill=colour, outline="white", width=FINER)
        brush.polygon(box(1.2, 2.0, 0.8), fill="#ffffffb0")  # the windscreen: which way it faces

    def _star(self, brush: ImageDraw.ImageDraw, place: np.ndarray) -> None:
        x, y = self._pixel(place)
        angles = np.arange(16) * np.pi / 8
        radius = np.where(np.arange(16) % 2, 1.3, 3.2) * self.scale
        points = [(x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(radius, angles, strict=True)]
        brush.polygon(points, fill=CRASH, outline="white", width=FINER)

    def _halo_colour(self, value: float) -> tuple[int, ...]:
        share = np.clip(-value / self.env.config.collision_cost, 0, 1)
        return tuple(int(x) for x in CALM + share * (DANGER - CALM))

    def _strip(self, value: np.ndarray, atoms: np.ndarray, probs: np.ndarray) -> Image.Image:
        """The distribution of each agent's return as bars, V_tau as a line."""
        wide, agents = self.size // 2, len(value)
        high = self.size // agents
        image = Image.new("RGB", (wide, self.size), "white")
        brush = ImageDraw.Draw(image)
        left, right, font = 12, wide - 12, ImageFont.load_default(12)
        low, top = atoms[0], atoms[-1]

        def across(x: float) -> float:
            return left + (right - left) * (x - low) / (top - low)

        for i in range(agents):
            base = (i + 1) * high - 16
            brush.line(((left, base), (right, base)), fill=QUIET)
            for mark in (low, -self.env.config.collision_cost, 0.0):
                brush.text((across(mark), base + 2), f"{mark:.0f}", fill=QUIET, font=font, anchor="ma")
            name = f"veh_{i}"
            if np.isfinite(value[i]):
                name += f"   V = {value[i]:.1f} s"
                tall = (high - 40) / max(probs[i].max(), 0.05)
                step = (right - left) / len(atoms)
                for atom, prob in zip(atoms, probs[i], strict=True):
                    x = across(atom)
                    box = (x - step / 2, base - prob * tall, x + step / 2, base)
                    brush.rectangle(box, fill=AGENTS[i % len(AGENTS)])
                x = across(value[i])
                brush.line(((x, base - high + 40), (x, base)), fill=CRASH, width=2)
            brush.text((left, i * high + 6), name, fill=INK, font=font)
        return image


def heading(angle: float) -> np.ndarray:
    """The direction `[2]` of SUMO's angle: 0 is north, clockwise."""
    radians = np.radians(angle)
    return np.array([np.sin(radians), np.cos(radians)])
