// A card for each agent: the probabilities of its actions, and the return distributions that the critics predict.

import { signed } from "./scenes.js";

const INK = "#22272d", QUIET = "#666b72";
const TAIL = 0.002; // probability beyond the plot on either side, at most
const SYMBOLS = ["filled", "hollow"]; // of the first policy and the second

export class AgentCards {
  constructor(root, hello) {
    this.hello = hello;
    this.range = [Infinity, -Infinity]; // of returns in the plots; it only grows
    this.cards = hello.agents.map((name, index) => this.card(name, hello.scene.colours[index]));
    root.replaceChildren(...this.cards.map((card) => card.root));
  }

  card(name, colour) {
    const root = element("article", "agent");
    const head = element("header");
    const chip = element("span", "chip");
    chip.style.background = colour;
    const [title, doing, speed, values] = ["name", "doing", "speed", "values"].map((part) => element("span", part));
    title.textContent = name;
    head.append(chip, title, speed, doing, values);
    const actions = element("div", "actions");
    const rows = this.hello.scene.actions.map((action) => this.row(action, colour));
    for (const row of rows) actions.append(row.label, row.track, row.share);
    const distribution = element("canvas", "distribution");
    root.append(head, actions, distribution);
    return { root, doing, speed, values, rows, distribution, colour };
  }

  row(action, colour) {
    const [label, track, bar, share] = ["label", "track", "bar", "share"].map((part) => element("div", part));
    label.textContent = action;
    bar.style.background = colour;
    const marks = this.hello.policies.length > 1 ? SYMBOLS.map((symbol) => element("span", `mark ${symbol}`)) : [];
    track.append(bar, ...marks);
    return { label, track, bar, marks, share };
  }

  show(agents) {
    agents.forEach((agent) => agent.policies.forEach((policy, p) => this.widen(policy.distribution, this.hello.policies[p].atoms)));
    agents.forEach((agent, index) => this.fill(this.cards[index], agent));
  }

  speeds(of) {
    this.cards.forEach((card, index) => {
      const text = of(index), left = card.root.classList.contains("left");
      if (!text && left) return; // how an agent ended stays until the episode ends
      card.speed.textContent = text;
      card.speed.classList.toggle("bad", text === "collided");
    });
  }

  fill(card, agent) {
    const { actions, action_values, unit } = this.hello.scene;
    card.root.classList.toggle("left", !agent.active);
    card.doing.textContent = agent.active ? `${actions[agent.action]}, ${action_values[agent.action].replace("-", "−")}` : "";
    const known = agent.active ? agent.policies.filter((policy) => policy.value !== null) : [];
    card.values.textContent = known
      .map((policy, p) => `${known.length > 1 ? "●○"[p] : ""} V = ${signed(policy.value, 1)} ${unit}`)
      .join("     ");
    card.rows.forEach((row, a) => {
      row.bar.style.width = `${100 * agent.mixture[a]}%`;
      row.share.textContent = `${Math.round(100 * agent.mixture[a])} %`;
      row.label.classList.toggle("chosen", agent.active && a === agent.action);
      row.marks.forEach((mark, p) => (mark.style.left = `${100 * agent.policies[p].probs[a]}%`));
    });
    this.plot(card, agent);
  }

  widen(distribution, atoms) {
    if (!distribution) return;
    let sum = 0;
    distribution.forEach((probability, i) => {
      const before = sum;
      sum += probability;
      if (before <= TAIL && sum > TAIL) this.range[0] = Math.min(this.range[0], atoms[i]);
      if (before <= 1 - TAIL && sum > 1 - TAIL) this.range[1] = Math.max(this.range[1], atoms[i]);
    });
  }

  plot(card, agent) {
    const { ctx, w, h } = prepared(card.distribution, 12);
    const distributions = agent.policies.map((policy) => policy.distribution);
    if (!agent.active || distributions.some((probs) => probs === null)) return;
    const [low, high] = padded(this.range), base = h - 16, top = 12;
    const x = (value) => 4 + ((w - 8) * (value - low)) / (high - low);
    const most = Math.max(...distributions.flat());
    const y = (probability) => base - (base - top) * Math.sqrt(probability / most); // the root shows rare outcomes
    axis(ctx, x, low, high, base, w);
    distributions.forEach((probs, p) => {
      const atoms = this.hello.policies[p].atoms, half = (atoms[1] - atoms[0]) / 2;
      ctx.beginPath();
      ctx.moveTo(x(atoms[0] - half), base);
      probs.forEach((probability, i) => {
        ctx.lineTo(x(atoms[i] - half), y(probability));
        ctx.lineTo(x(atoms[i] + half), y(probability));
      });
      ctx.lineTo(x(atoms.at(-1) + half), base);
      ctx.fillStyle = card.colour;
      ctx.globalAlpha = 0.4;
      if (p === 0) ctx.fill();
      ctx.globalAlpha = 1;
      ctx.strokeStyle = p === 0 ? card.colour : INK;
      ctx.lineWidth = 1;
      ctx.stroke();
    });
    agent.policies.forEach((policy, p) => mark(ctx, x(policy.value), top - 5, base, p === 0));
  }
}

function axis(ctx, x, low, high, base, w) {
  ctx.fillStyle = ctx.strokeStyle = QUIET;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(x(low), base + 0.5);
  ctx.lineTo(x(high), base + 0.5);
  ctx.stroke();
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((step) => (high - low) / step <= w / 55) ?? 1000;
  ctx.textAlign = "center";
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) {
    ctx.fillRect(x(tick), base, 1, 4);
    if (x(tick) > 10 && x(tick) < w - 10) ctx.fillText(signed(tick, 0), x(tick), base + 15);
  }
}

function mark(ctx, x, top, base, filled) {
  ctx.strokeStyle = INK;
  ctx.lineWidth = 1.5;
  ctx.setLineDash(filled ? [] : [4, 3]);
  ctx.beginPath();
  ctx.moveTo(x, top);
  ctx.lineTo(x, base);
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.beginPath();
  ctx.arc(x, top, 4, 0, 2 * Math.PI);
  ctx.fillStyle = filled ? INK : "#fff";
  ctx.fill();
  ctx.stroke();
}

function padded([low, high]) {
  const margin = Math.max(0.5, 0.04 * (high - low));
  return [low - margin, high + margin];
}

const FONT = getComputedStyle(document.documentElement).fontFamily;

// A canvas as large as it is shown, empty, with a pixel of the page as its unit.
export function prepared(canvas, fontSize) {
  const dense = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  if (canvas.width !== Math.round(w * dense) || canvas.height !== Math.round(h * dense)) {
    canvas.width = Math.round(w * dense);
    canvas.height = Math.round(h * dense);
  }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(dense, 0, 0, dense, 0, 0);
  ctx.clearRect(0, 0, w, h);
  ctx.font = `${fontSize}px ${FONT}`;
  return { ctx, w, h };
}

export function element(tag, name = "") {
  const made = document.createElement(tag);
  made.className = name;
  return made;
}
