"""Film two trained policies in the same traffic, side by side. The film of the README:

rqe-train --env sumo --tau 0.3 --seed 1 --out runs/safe
rqe-train --env sumo --tau inf --seed 1 --out runs/neutral
python examples/film_side_by_side.py runs/safe runs/neutral docs/images/safe_beside_neutral.gif --seed 10
"""

import argparse
import math
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw, ImageFont, ImageSequence

from rqe_mappo import Policy
from rqe_mappo.config import from_json
from rqe_mappo.evaluation import film
from rqe_mappo.evaluation.episodes import chooser

GAP = 8  # pixels
FONT = ImageFont.load_default(18)


def episode(run: str, seed: int, folder: Path) -> list[Image.Image]:
    """The frames of one episode of a run's policy, with its tau in the corner."""
    policy, path = Policy.load(run), folder / f"{Path(run).name}_{seed}.gif"
    film.film(from_json(policy.config_json), chooser(policy), policy, path, film.FilmSettings(1, seed))
    with Image.open(path) as gif:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(gif)]
    tau = getattr(policy.measure, "tau", math.inf)
    for frame in frames:
        corner = (frame.width - 10, 8)
        ImageDraw.Draw(frame).text(corner, f"tau = {tau:g}", "black", FONT, anchor="ra")
    return frames


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures in one."""
    both = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2, help="two run folders of one environment that can be filmed")
    parser.add_argument("file", type=Path, help="a .gif or .mp4")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--episodes", type=int, default=1)
    asked = parser.parse_args()
    film.check(asked.file)
    frames: list[Image.Image] = []
    with TemporaryDirectory() as folder:
        for seed in range(asked.seed, asked.seed + asked.episodes):
            films = [episode(run, seed, Path(folder)) for run in asked.runs]
            longest = max(map(len, films))
            padded = [shots + shots[-1:] * (longest - len(shots)) for shots in films]
            frames += [beside(*pair) for pair in zip(*padded, strict=True)]
    film.write(frames, asked.file)
    print(f"{asked.file}: {len(frames)} frames")


if __name__ == "__main__":
    main()
