// The page shows the server's messages and sends the user's commands. All tabs show the same session.

import { AgentCards, element, prepared } from "./agents.js";
import { sceneOf, signed } from "./scenes.js";

const SPEEDS = [[0.25, "¼×"], [0.5, "½×"], [1, "1×"], [2, "2×"], [4, "4×"], ["max", "max"]];
const KINDS = {
  probability: "each action is drawn from the mixed probabilities",
  episode: "one policy is drawn for each episode",
  logit: "each action is drawn from mixed logits",
};
const PANEL_MS = 120, SEND_MS = 60, SILENT_MS = 4000, AGAIN_MS = 1000, MOST_FRAMES = 500;
const [LEAST_TAU, MOST_TAU] = [0.1, 10]; // of the slider, whose right end is infinity
const find = (id) => document.getElementById(id);

let socket, hello, settings, scene, cards, receivedAt = performance.now(), cardsAt = 0;
const playback = { frames: [], at: 0, end: 0, episode: 1 };

const handlers = {
  hello(message) {
    hello = message;
    scene = sceneOf(hello.scene);
    cards = new AgentCards(find("agents"), hello);
    Object.assign(playback, { frames: [], at: 0, end: 0 });
    document.title = `rqe-play: ${hello.scene.title}`;
    find("title").textContent = hello.scene.title;
    find("where").textContent = `${hello.env}, scenario ${hello.scenario}`;
    describe();
  },
  settings(message) {
    settings = message;
    find("pause").textContent = settings.paused ? "Play" : "Pause";
    for (const button of find("speeds").children) button.setAttribute("aria-pressed", button.value === String(settings.speed));
    if (document.activeElement !== find("seed")) find("seed").value = settings.seed;
    place("alpha", settings.alpha, settings.alpha);
    place("tau", settings.tau, settings.tau === "inf" ? 100 : toPosition(settings.tau));
  },
  decision(message) {
    playback.episode = message.episode;
    for (const frame of message.frames) {
      const last = playback.frames.at(-1);
      frame.cut = !last || frame.time_s < last.time_s; // another episode: nothing to interpolate
      frame.t = playback.end += hello.scene.frame_s;
      playback.frames.push(frame);
    }
    playback.frames.splice(0, playback.frames.length - MOST_FRAMES); // a hidden tab does not play them
    if (message.outcome && message.frames.length) playback.frames.at(-1).outcome = message.outcome;
    if (settings.speed === "max") playback.at = playback.end;
    if (message.agents && (settings.paused || performance.now() - cardsAt > PANEL_MS)) {
      cardsAt = performance.now();
      cards.show(message.agents);
    }
  },
  statistics({ episodes, rows }) {
    const since = hello.policies.length > 1 ? "begun since α last moved, or the reset" : "since the reset";
    find("since").replaceChildren(bold(`${episodes} episode${episodes === 1 ? "" : "s"}`), since);
    find("tiles").replaceChildren(...rows.map(tile), ...(rows.length ? [] : ["Statistics appear after the first whole episode."]));
  },
  notice({ text }) {
    find("notice").hidden = !text;
    find("notice").textContent = text;
  },
  refused({ reason }) {
    find("status").textContent = `refused: ${reason}`;
  },
};

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.onopen = () => (find("status").textContent = "");
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    receivedAt = performance.now();
    handlers[message.type](message);
  };
  socket.onclose = () => {
    find("status").textContent = "no connection to rqe-play; trying again";
    setTimeout(connect, AGAIN_MS);
  };
}

function send(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function describe() {
  const [first, second] = hello.policies;
  find("mixing").hidden = !second;
  find("valuing").hidden = Boolean(second) || first.atoms === null;
  const discount = first.gamma < 1 ? `, discounted by ${first.gamma} a decision` : "";
  const unit = hello.scene.unit ? `, ${hello.scene.unit}` : "";
  const whose = second ? "each critic predicts it for its own policy" : "the critic predicts it";
  const names = second
    ? `● safe (${first.risk_profile})\u2003○ neutral (${second.risk_profile})\u2003▬ their mixture, which drives`
    : `▬ the policy, trained with ${first.risk_profile}`;
  const distribution = `Right: the return still to come${unit}${discount}, as ${whose}; height √probability; line V, the risk value.`;
  const lines = [bold(names), `Left: probabilities of actions. ${first.atoms ? distribution : ""}`];
  find("legend").replaceChildren(...lines.map((line) => paragraph(line)));
  if (!second) return;
  find("neutral-end").textContent = `neutral, ${second.risk_profile}`;
  find("safe-end").textContent = `safe, ${first.risk_profile}`;
  find("mixing-hint").textContent = `α is the weight of the safe policy, from the next decision on: ${KINDS[hello.kind]}.`;
}

function tile(row) {
  const [box, name, value, range] = [element("div", "tile"), element("h2"), element("p"), element("small")];
  const digits = Math.abs(row.value) >= 100 ? 0 : 1, unit = row.unit ? ` ${row.unit}` : "";
  name.textContent = row.name;
  value.textContent = row.value === null ? "–" : signed(row.value, digits) + unit;
  const ends = row.low === null ? [] : [`95 %: ${signed(row.low, digits)} to ${signed(row.high, digits)}`];
  range.textContent = [...ends, row.note].filter(Boolean).join("; ");
  box.title = `from ${row.n} episodes`;
  box.append(name, value, range);
  return box;
}

function paragraph(content) {
  const made = element("p");
  made.append(content);
  return made;
}

function bold(text) {
  const made = element("b");
  made.textContent = text;
  return made;
}

// Playback: the server sends all frames up to the next decision, and the page plays them in the meantime.
let drawnAt = 0, speedsAt = 0;
function animate(now) {
  requestAnimationFrame(animate);
  const passed = Math.min(0.1, (now - drawnAt) / 1000);
  drawnAt = now;
  if (!settings || !playback.frames.length) return;
  const speed = settings.speed === "max" ? 1 : settings.speed, span_s = hello.scene.decision_s;
  const late = playback.end - playback.at > span_s + 0.25 * speed;
  playback.at = Math.min(playback.end, playback.at + passed * (settings.paused ? Math.max(1, speed) : speed) * (late ? 1.3 : 1));
  if (playback.end - playback.at > 2 * span_s + speed) playback.at = playback.end - span_s; // the tab was hidden
  while (playback.frames.length > 1 && playback.frames[1].t <= playback.at) playback.frames.shift();
  const [from, next] = playback.frames, to = next && !next.cut ? next : from;
  const share = to === from ? 1 : (playback.at - from.t) / (to.t - from.t);
  const { ctx, w, h } = prepared(find("scene"), 14);
  scene.draw(ctx, w, h, from, to, Math.max(0, Math.min(1, share)));
  find("clock").textContent = `episode ${playback.episode}, ${from.time_s.toFixed(1)} s`;
  const outcome = find("outcome");
  outcome.hidden = !from.outcome;
  outcome.textContent = from.outcome ?? "";
  outcome.classList.toggle("bad", /collision|fell|left|out of time/.test(from.outcome ?? ""));
  if (now - speedsAt > 200) {
    speedsAt = now;
    cards.speeds((agent) => scene.speedOf(from, agent));
    watchdog(now);
  }
}

function watchdog(now) {
  const silent = !settings.paused && !document.hidden && socket.readyState === WebSocket.OPEN && now - receivedAt > SILENT_MS;
  const text = "the simulation does not answer; it is started anew if that continues";
  if (silent) find("status").textContent = text;
  else if (find("status").textContent === text) find("status").textContent = "";
}

const toPosition = (tau) => (99 * Math.log(tau / LEAST_TAU)) / Math.log(MOST_TAU / LEAST_TAU);
const toTau = (position) => (position >= 100 ? "inf" : Number((LEAST_TAU * (MOST_TAU / LEAST_TAU) ** (position / 99)).toPrecision(2)));

// Sliders follow the session, except while the user drags them.
function place(name, value, position) {
  if (value === null) return;
  const slider = find(name);
  if (!slider.held) slider.value = position;
  find(`${name}-value`).textContent = name === "alpha" ? `α = ${value.toFixed(2)}` : `τ = ${value === "inf" ? "∞" : value}`;
}

function slide(name, read) {
  const slider = find(name);
  let timer = null;
  slider.addEventListener("pointerdown", () => (slider.held = true));
  slider.addEventListener("change", () => (slider.held = false));
  slider.addEventListener("input", () => {
    timer ??= setTimeout(() => {
      timer = null;
      send({ do: name, value: read(Number(slider.value)) });
    }, SEND_MS);
  });
}

for (const [value, label] of SPEEDS) {
  const button = element("button");
  Object.assign(button, { type: "button", value, textContent: label });
  button.addEventListener("click", () => send({ do: "speed", value }));
  find("speeds").append(button);
}
slide("alpha", Number);
slide("tau", toTau);
find("pause").addEventListener("click", () => send({ do: "pause", value: !settings.paused }));
find("step").addEventListener("click", () => send({ do: "step" }));
find("reset").addEventListener("submit", (event) => {
  event.preventDefault();
  send({ do: "reset", seed: Number(find("seed").value) });
});
connect();
requestAnimationFrame(animate);
