// How each kind of scene is drawn. A scene is given two frames and how far (0 to 1) time is from one to the other.

const INK = "#22272d", QUIET = "#666b72", CRASH = "#b3202c";
const mix = (a, b, share) => a + (b - a) * share;

export function sceneOf(still) {
  return { intersection, cartpole }[still.kind](still);
}

// A junction from above: metres about its centre, x to the east, y to the north, angles clockwise from north.
function intersection(still) {
  const [length, width] = still.vehicle_m;
  const GROUND = "#e9ebe2", VERGE = "#b9bab4", ROAD = "#cbccc7", DRIVER = "#6d7278";
  const BRAKES_MPS2 = 1; // brake lights, from this on

  function ground(ctx) {
    const strokes = [[still.lane_m + 0.7, VERGE], [still.lane_m + 0.06, ROAD]];
    ctx.lineCap = "butt";
    ctx.lineJoin = "round";
    for (const [wide, colour] of strokes) {
      ctx.lineWidth = wide;
      ctx.strokeStyle = colour;
      for (const road of still.roads) line(ctx, road);
    }
    ctx.lineWidth = 0.4;
    ctx.strokeStyle = "#fff";
    for (const stop of still.stops) line(ctx, stop);
  }

  function vehicle(ctx, car, braking, shown) {
    ctx.save();
    ctx.globalAlpha = shown * (car.through ? 0.55 : 1);
    ctx.translate(car.x_m, car.y_m);
    ctx.rotate((-car.angle_deg * Math.PI) / 180);
    ctx.fillStyle = car.agent === null ? DRIVER : still.colours[car.agent];
    ctx.strokeStyle = car.lawless ? INK : "#fff";
    ctx.lineWidth = car.lawless ? 0.35 : 0.22;
    box(ctx, -width / 2, -length, width, length, 0.55);
    ctx.fillStyle = "#ffffffb8";
    box(ctx, -width * 0.38, -2.1, width * 0.76, 0.85, 0.2, false);
    if (car.agent !== null) {
      ctx.translate(0, -3.25);
      ctx.rotate((car.angle_deg * Math.PI) / 180);
      ctx.scale(1, -1);
      ctx.fillStyle = "#fff";
      ctx.fillText(car.agent, 0, 0);
      ctx.scale(1, -1);
      ctx.rotate((-car.angle_deg * Math.PI) / 180);
      ctx.translate(0, 3.25);
    }
    if (braking) {
      ctx.fillStyle = "#ff2a1f";
      for (const x of [-width * 0.42, width * 0.42 - 0.5]) ctx.fillRect(x, -length - 0.05, 0.5, 0.4);
    }
    ctx.restore();
  }

  function wreck(ctx, car) {
    vehicle(ctx, car, false, 0.6);
    ctx.beginPath();
    for (let i = 0; i < 16; i++) {
      const radius = i % 2 ? 1.2 : 2.9, angle = (i * Math.PI) / 8;
      ctx.lineTo(car.x_m + radius * Math.cos(angle), car.y_m + radius * Math.sin(angle));
    }
    ctx.closePath();
    ctx.fillStyle = CRASH;
    ctx.strokeStyle = "#fff";
    ctx.lineWidth = 0.25;
    ctx.fill();
    ctx.stroke();
  }

  function between(a, b, share) {
    const turn = ((b.angle_deg - a.angle_deg + 540) % 360) - 180;
    return { ...b, x_m: mix(a.x_m, b.x_m, share), y_m: mix(a.y_m, b.y_m, share), angle_deg: a.angle_deg + turn * share };
  }

  return {
    draw(ctx, w, h, from, to, share) {
      const scale = Math.max(h / (0.84 * still.view_m), w / (1.2 * still.view_m));
      ctx.fillStyle = GROUND;
      ctx.fillRect(0, 0, w, h);
      ctx.save();
      ctx.translate(w / 2, h / 2);
      ctx.scale(scale, -scale);
      ground(ctx);
      const font = ctx.font;
      ctx.font = font.replace(/^[\d.]+px/, "bold 1.6px");
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      const before = new Map(from.vehicles.map((car) => [car.slot, car]));
      const after = new Set(to.vehicles.map((car) => car.slot));
      for (const car of to.vehicles.filter((car) => !car.collided)) {
        const old = before.get(car.slot);
        const slows = old && (old.speed_mps - car.speed_mps) / still.frame_s > BRAKES_MPS2;
        vehicle(ctx, old ? between(old, car, share) : car, slows, old ? 1 : share);
      }
      for (const car of from.vehicles) if (!after.has(car.slot)) vehicle(ctx, car, false, 1 - share);
      for (const car of to.vehicles) if (car.collided) wreck(ctx, car);
      ctx.restore();
      ctx.font = font;
      ruler(ctx, 14, h - 16, 10 * scale, "10 m");
      key(ctx, w - 14, h - 16);
    },
    speedOf(frame, agent) {
      const car = frame.vehicles.find((car) => car.agent === agent);
      if (!car) return "";
      if (car.collided) return "collided";
      return car.through ? "through" : `${car.speed_mps.toFixed(1)} m/s`;
    },
  };

  function key(ctx, right, base) {
    const lawless = "ignores the right of way", lawful = "driven by SUMO";
    ctx.textAlign = "right";
    ctx.fillStyle = "#4a4f55";
    let x = right;
    for (const [text, edge] of [[lawless, INK], [lawful, "#fff"]]) {
      ctx.fillStyle = "#4a4f55";
      ctx.fillText(text, x, base + 4);
      x -= ctx.measureText(text).width + 18;
      ctx.fillStyle = DRIVER;
      ctx.strokeStyle = edge;
      ctx.lineWidth = 2;
      box(ctx, x, base - 4, 12, 8, 2);
      x -= 16;
    }
  }
}

// A cart on its track: metres about the middle, radians from upright, positive to the right.
function cartpole(still) {
  const limit = still.x_limit_m, room = limit + 0.5;
  const [calm, windy] = still.gusts_hz;

  function track(ctx, x, base, scale) {
    const wind = ctx.createLinearGradient(x(-limit), 0, x(limit), 0);
    const shade = (hz) => `rgba(86, 130, 165, ${Math.min(0.38, 0.38 * hz)})`;
    wind.addColorStop(0, shade(calm));
    wind.addColorStop(0.5, shade(calm));
    wind.addColorStop(1, shade(windy));
    ctx.fillStyle = wind;
    ctx.fillRect(x(-limit), base - 2.1 * scale, 2 * limit * scale, 2.1 * scale);
    ctx.strokeStyle = ctx.fillStyle = QUIET;
    ctx.lineWidth = 1.5;
    line(ctx, [[x(-limit), base], [x(limit), base]]);
    ctx.textAlign = "center";
    for (const tick of [-2.4, -1.2, 0, 1.2, 2.4]) {
      line(ctx, [[x(tick), base], [x(tick), base + 6]]);
      ctx.fillText(`${signed(tick, 1)} m`, x(tick), base + 22);
    }
    if (windy > 0) {
      ctx.textAlign = "right";
      ctx.fillText(`shaded: gusts, up to ${windy.toFixed(2)} a second`, x(limit), base + 44);
    }
  }

  function gust(ctx, x, y, force, scale) {
    const reach = Math.sign(force) * Math.min(1.2, 0.04 * Math.abs(force)) * scale, tip = x - Math.sign(force) * 0.3 * scale;
    ctx.strokeStyle = ctx.fillStyle = CRASH;
    ctx.lineWidth = 4;
    line(ctx, [[tip - reach, y], [tip, y]]);
    ctx.beginPath();
    ctx.moveTo(tip + Math.sign(force) * 12, y);
    ctx.lineTo(tip, y - 8);
    ctx.lineTo(tip, y + 8);
    ctx.fill();
    ctx.textAlign = "center";
    ctx.fillText(`gust ${Math.abs(force).toFixed(0)} N`, tip - reach / 2, y - 14);
  }

  return {
    draw(ctx, w, h, from, to, share) {
      const scale = Math.min(w / (2 * room), h / 3.0), base = h / 2 + 0.85 * scale;
      const position = mix(from.x_m, to.x_m, share), angle = mix(from.theta_rad, to.theta_rad, share);
      const x = (metres) => w / 2 + metres * scale, axle = base - 0.32 * scale;
      ctx.fillStyle = "#fbfaf6";
      ctx.fillRect(0, 0, w, h);
      track(ctx, x, base, scale);
      ctx.fillStyle = still.colours[0];
      ctx.strokeStyle = "#fff";
      box(ctx, x(position) - 0.26 * scale, axle, 0.52 * scale, 0.25 * scale, 6);
      ctx.fillStyle = INK;
      for (const side of [-0.15, 0.15]) disc(ctx, x(position + side), base - 0.05 * scale, 0.055 * scale);
      ctx.strokeStyle = "#c07a2c";
      ctx.lineWidth = 0.06 * scale;
      ctx.lineCap = "round";
      const top = [x(position) + Math.sin(angle) * still.pole_m * scale, axle - Math.cos(angle) * still.pole_m * scale];
      line(ctx, [[x(position), axle], top]);
      ctx.fillStyle = INK;
      disc(ctx, x(position), axle, 0.035 * scale);
      if (Math.abs(to.gust_n) > 0.5) gust(ctx, x(position), axle + 0.12 * scale, to.gust_n, scale);
      ctx.fillStyle = INK;
      ctx.textAlign = "left";
      const degrees = (radians) => `${signed((radians * 180) / Math.PI, 1)}°`;
      ctx.fillText(`x = ${signed(position, 2)} m    angle = ${degrees(angle)} (falls at ±${(still.theta_limit_rad * 180 / Math.PI).toFixed(0)}°)`, 14, h - 14);
    },
    speedOf: () => "",
  };
}

export function signed(value, digits) {
  return value.toFixed(digits).replace("-", "−").replace(/^−(0(\.0+)?)$/, "$1");
}

function line(ctx, points) {
  ctx.beginPath();
  for (const [x, y] of points) ctx.lineTo(x, y);
  ctx.stroke();
}

function box(ctx, x, y, w, h, radius, edge = true) {
  ctx.beginPath();
  ctx.roundRect(x, y, w, h, radius);
  ctx.fill();
  if (edge) ctx.stroke();
}

function disc(ctx, x, y, radius) {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fill();
}

function ruler(ctx, x, y, wide, text) {
  ctx.strokeStyle = ctx.fillStyle = "#4a4f55";
  ctx.lineWidth = 2;
  line(ctx, [[x, y - 5], [x, y], [x + wide, y], [x + wide, y - 5]]);
  ctx.textAlign = "center";
  ctx.fillText(text, x + wide / 2, y - 8);
}
