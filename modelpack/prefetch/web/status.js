"use strict";
// Draws what /v1/status says, once a second while something moves. Every text reaches the page as
// text, never as markup; elements are kept and changed, so focus, selection and screen readers stay
// where they are.

const STAGES = ["Resolving", "Verifying", "Downloading", "Importing"];
const TROUBLE = new Set(["Refused", "InsufficientSpace", "Failed"]);
const WORDS = { InsufficientSpace: "Insufficient space" };
const GROUPS = [["trouble", "Needs attention"], ["moving", "On the way"], ["ready", "Ready"]];
const FAST = 1000, SLOW = 3000, PATIENCE = 8000, RATE_SECONDS = 10, HUNG_SECONDS = 120, FILTER_FROM = 8;

const byId = (id) => document.getElementById(id);
const rows = new Map(), samples = new Map(), groups = new Map(), banners = new Map();
let latest = null, latestNow = 0, receivedAt = 0, failingSince = 0, problem = "", timer = 0, asking = false, serial = 0;

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}
function say(node, text) { if (node.textContent !== text) node.textContent = text; }
function mark(node, name, value) { if (node.dataset[name] !== value) node.dataset[name] = value; }
function share(node, value) { node.style.setProperty("--share", Math.max(0, Math.min(1, value || 0)).toFixed(4)); }
function list(node, items) {
  // items: [class of the key, text]; rebuilt only when a text changes
  const text = JSON.stringify(items);
  if (node.dataset.items === text) return;
  node.dataset.items = text;
  node.replaceChildren(...items.map(([key, words, tag = "li"]) => {
    const item = make(tag);
    if (key) item.append(make("span", `key ${key}`));
    item.append(words);
    return item;
  }));
}

function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024 || unit === "TiB") return unit === "B" ? `${value} B` : `${value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
}
function duration(seconds) {
  if (seconds > 0 && seconds < 0.05) return "<0.1 s";
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds), d = Math.floor(whole / 86400), h = Math.floor(whole / 3600) % 24;
  const m = Math.floor(whole / 60) % 60, s = whole % 60;
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return m ? `${h} h ${m} min` : `${h} h`;
  return m ? (s && m < 10 ? `${m} min ${s} s` : `${m} min`) : `${s} s`;
}
const since = (seconds) => seconds < 5 ? "just now" : `${duration(Math.round(seconds)).replace(/\.0 s$/, " s").split(" ", 2).join(" ")} ago`;
const percent = (value) => `${Math.floor(value * 100)} %`;
const short = (digest) => digest.replace(/^(\w+:[0-9a-f]{12})[0-9a-f]+$/, "$1…");
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const kindOf = (model) => TROUBLE.has(model.stage) ? "trouble" : model.stage === "Ready" ? "ready" : "moving";
const isMoving = (model) => STAGES.includes(model.stage);

// Bytes a second over the last pictures; of a transfer seen once, its average so far.
function rate(model, now) {
  const seen = samples.get(model.name) || [];
  samples.set(model.name, seen);
  const last = seen.at(-1);
  if (last && (model.fetched_bytes < last[1] || now < last[0])) seen.length = 0;
  if (!seen.length || now > last[0]) seen.push([now, model.fetched_bytes]);
  while (seen.length > 2 && now - seen[0][0] > RATE_SECONDS) seen.shift();
  const [first, end] = [seen[0], seen.at(-1)];
  if (end[0] - first[0] > 0.5) return (end[1] - first[1]) / (end[0] - first[0]);
  const spent = model.timings.Downloading || 0;
  return spent >= 1 ? model.fetched_bytes / spent : 0;
}

class Row {
  constructor(name) {
    this.stage = "";
    this.node = make("article", "model");
    const who = make("div");
    this.name = make("h4", "name", name);
    this.name.id = `model-${serial += 1}`;
    this.ref = make("p", "ref mono");
    this.digest = make("p", "digest");
    this.chips = make("span");
    const title = make("div", "title");
    title.append(this.name, this.chips);
    who.append(title, this.ref, this.digest);
    const what = make("div"), line = make("div", "line");
    this.label = make("span", "stage");
    this.amount = make("span", "figures");
    line.append(this.label, this.amount);
    this.bar = make("div", "track");
    this.bar.setAttribute("role", "progressbar");
    this.bar.setAttribute("aria-labelledby", this.name.id);
    this.bar.setAttribute("aria-valuemin", "0");
    this.bar.setAttribute("aria-valuemax", "100");
    this.reused = make("span", "part reused");
    this.fetched = make("span", "part fetched");
    this.bar.append(this.reused, this.fetched);
    this.sums = make("p", "sums");
    this.times = make("div", "times");
    this.times.setAttribute("aria-hidden", "true");
    this.timesText = make("p", "times-text");
    what.append(line, this.bar, this.sums, this.times, this.timesText);
    this.use = make("div", "use");
    this.useWord = make("b");
    this.useNote = make("span", "muted");
    this.use.append(this.useWord, " ", this.useNote);
    this.reason = make("p", "reason");
    this.why = make("span");
    this.next = make("span", "next");
    this.reason.append(this.why, " ", this.next);
    this.node.append(who, what, this.use, this.reason);
    this.node.setAttribute("aria-labelledby", this.name.id);
  }

  update(model, now) {
    const kind = kindOf(model), word = WORDS[model.stage] || model.stage;
    mark(this.node, "kind", model.stage === "Pending" ? "waiting" : kind);
    mark(this.node, "stage", model.stage);
    this.ref.hidden = model.ref === model.name;
    say(this.ref, model.ref);
    this.updateDigest(model);
    this.updateChips(model);
    say(this.label, word);
    this.updateBytes(model);
    this.updateTimes(model);
    this.updateUse(model, now);
    // most reasons say when themselves
    const said = / in \d/.test(model.reason);
    const due = model.next_attempt === null || said ? 0 : model.next_attempt - now;
    say(this.why, model.reason);
    say(this.next, due > 0 ? `Next try in ${duration(due)}.` : "");
    this.reason.hidden = !model.reason && due <= 0;
    const news = this.stage && this.stage !== model.stage ? `${model.name}: ${word}.` : "";
    this.stage = model.stage;
    return news;
  }

  updateDigest(model) {
    const shown = JSON.stringify([model.digest, model.candidate]);
    this.digest.hidden = !model.digest && !model.candidate;
    if (this.digest.dataset.items === shown) return;
    this.digest.dataset.items = shown;
    const code = (digest) => { const node = make("code", "", short(digest)); node.title = digest; return node; };
    const parts = model.digest ? [code(model.digest)] : [];
    if (model.candidate && model.candidate !== model.digest) {
      const next = make("span", "whole", "next ");
      next.append(code(model.candidate));
      parts.push(" ", next);
    }
    this.digest.replaceChildren(...parts);
  }

  updateChips(model) {
    const chips = [];
    if (model.held) chips.push(["held", "held"]);
    if (model.priority) chips.push(["", `priority ${model.priority}`]);
    this.chips.hidden = !chips.length;
    const shown = JSON.stringify(chips);
    if (this.chips.dataset.items === shown) return;
    this.chips.dataset.items = shown;
    this.chips.replaceChildren(...chips.map(([kind, text]) => make("span", `chip ${kind}`, text)));
  }

  updateBytes(model) {
    const done = Math.min(model.bytes, model.fetched_bytes + model.reused_bytes);
    const part = model.bytes ? done / model.bytes : 0, moving = isMoving(model);
    const speed = rate(model, latest.now), downloading = model.stage === "Downloading";
    const ready = model.stage === "Ready", unknown = moving && !done;
    this.bar.hidden = !moving && !done;
    this.bar.classList.toggle("unknown", unknown);
    share(this.reused, model.bytes ? model.reused_bytes / model.bytes : 0);
    share(this.fetched, model.bytes ? model.fetched_bytes / model.bytes : 0);
    if (unknown) this.bar.removeAttribute("aria-valuenow");
    else this.bar.setAttribute("aria-valuenow", String(Math.floor(part * 100)));
    this.bar.setAttribute("aria-valuetext", `${WORDS[model.stage] || model.stage}, ${size(done)} of ${size(model.bytes)}`);
    say(this.amount, downloading && model.bytes ? percent(part) : model.bytes ? size(model.bytes) : "");
    const sums = [];
    if (downloading && model.bytes) {
      sums.push(["", `${size(done)} of ${size(model.bytes)}`, "span"]);
      if (speed > 0) sums.push(["", `${size(Math.round(speed))}/s, ${duration((model.bytes - done) / speed)} left`, "span"]);
    } else if (done && !ready && !moving) {
      sums.push(["", `${size(done)} of ${size(model.bytes)} are here`, "span"]);
    }
    if (model.fetched_bytes && done) sums.push(["fetched", `${size(model.fetched_bytes)} fetched`, "span"]);
    if (model.reused_bytes && done) sums.push(["reused", `${size(model.reused_bytes)} were here already`, "span"]);
    this.sums.hidden = !sums.length;
    list(this.sums, sums);
  }

  updateTimes(model) {
    const spent = STAGES.map((stage, n) => [stage, model.timings[stage] || 0, `t${n + 1}`]).filter((item) => item[1] > 0);
    this.times.hidden = this.timesText.hidden = !spent.length;
    const total = spent.reduce((sum, item) => sum + item[1], 0);
    if (this.times.childElementCount !== spent.length) this.times.replaceChildren(...spent.map(() => make("i")));
    spent.forEach(([, seconds, color], n) => {
      const segment = this.times.children[n];
      segment.className = color;
      segment.style.setProperty("--share", String(seconds / total));
    });
    list(this.timesText, spent.map(([stage, seconds, color]) => [color, `${stage} ${duration(seconds)}`, "span"]));
  }

  updateUse(model, now) {
    let word = "", note = "", use = "none";
    if (model.mounted) [word, use] = ["Mounted now", "mounted"];
    else if (model.used_at !== null) [word, use] = [`Used ${since(now - model.used_at)}`, "used"];
    else if (model.ready_at !== null) [word, use] = ["Not used yet", "unused"];
    if (model.ready_at !== null) note = `ready ${since(now - model.ready_at)}`;
    else if (model.digest) note = "an earlier version is ready";
    mark(this.use, "use", use);
    say(this.useWord, word);
    say(this.useNote, note);
  }
}

function drawModels(status, now) {
  const news = [], wanted = new Set(), words = byId("filter").value.trim().toLowerCase();
  const focused = document.activeElement;
  for (const model of status.models) {
    wanted.add(model.name);
    if (!rows.has(model.name)) rows.set(model.name, new Row(model.name));
    const row = rows.get(model.name), text = row.update(model, now);
    if (text) news.push(text);
    const searched = `${model.name} ${model.ref} ${model.stage} ${model.reason}`.toLowerCase();
    row.node.hidden = !searched.includes(words);
  }
  for (const [name, row] of rows) {
    if (!wanted.has(name)) { row.node.remove(); rows.delete(name); samples.delete(name); }
  }
  for (const [kind, title] of GROUPS) {
    const members = status.models.filter((model) => kindOf(model) === kind).map((model) => rows.get(model.name).node);
    drawGroup(kind, title, members);
  }
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus();
  const hidden = status.models.length && [...rows.values()].every((row) => row.node.hidden);
  byId("empty").hidden = status.models.length > 0 && !hidden;
  say(byId("empty"), hidden ? "No model matches the filter." : "No model is wanted on this node.");
  byId("filter-label").hidden = status.models.length < FILTER_FROM && !words;
  return news;
}

function drawGroup(kind, title, members) {
  if (!groups.has(kind)) {
    const group = make("section"), heading = make("h3"), body = make("div");
    heading.id = `group-${kind}`;
    group.setAttribute("aria-labelledby", heading.id);
    group.append(heading, body);
    byId("groups").append(group);
    groups.set(kind, { group, heading, body });
  }
  const { group, heading, body } = groups.get(kind);
  members.forEach((node, n) => { if (body.children[n] !== node) body.insertBefore(node, body.children[n] || null); });
  group.hidden = members.every((node) => node.hidden);
  say(heading, `${title} (${members.length})`);
}

function drawDisk(budget) {
  const bar = byId("disk-bar"), limit = Math.max(1, budget.limit);
  const text = `${size(budget.used)} of ${size(budget.limit)} used`;
  share(bar.querySelector(".used"), budget.used / limit);
  share(bar.querySelector(".reserved"), Math.min(budget.reserved, Math.max(0, limit - budget.used)) / limit);
  share(bar.querySelector(".low"), budget.low / limit);
  share(bar.querySelector(".high"), budget.high / limit);
  bar.closest(".disk").classList.toggle("over", budget.used > budget.high);
  bar.setAttribute("aria-label", `${text}, ${size(budget.reserved)} reserved; eviction above ${size(budget.high)}`);
  say(byId("disk-text"), text);
  list(byId("disk-legend"), [
    ["used", `used ${size(budget.used)}`],
    ["reserved", `reserved for transfers ${size(budget.reserved)}`],
    ["", `free ${size(Math.max(0, budget.limit - budget.used - budget.reserved))}`],
    ["tick high", `evicts above ${size(budget.high)}`],
    ["tick low", `until ${size(budget.low)}`],
  ]);
}

function drawTiles(status) {
  const { models, totals } = status, here = models.filter((model) => model.digest);
  const kinds = models.map((model) => model.stage === "Pending" ? "waiting" : kindOf(model));
  say(byId("tile-ready"), `${here.length} of ${models.length}`);
  const dots = byId("dots");
  while (dots.childElementCount > models.length) dots.lastChild.remove();
  while (dots.childElementCount < models.length) dots.append(make("i"));
  kinds.forEach((kind, n) => { mark(dots.children[n], "kind", kind); dots.children[n].title = models[n].name; });
  const ongoing = kinds.filter((kind) => kind === "moving").length, waiting = kinds.filter((kind) => kind === "waiting").length;
  const troubled = kinds.filter((kind) => kind === "trouble").length;
  const now = [[ongoing, "in motion"], [waiting, "waiting"], [troubled, "in trouble"]].filter((item) => item[0]);
  say(byId("tile-ready-note"), now.map(([n, words]) => `${n} ${words}`).join(", ") || "nothing to do");
  const mounted = here.filter((model) => model.mounted).length, used = here.filter((model) => model.mounted || model.used_at !== null).length;
  say(byId("tile-used"), `${used} of ${here.length}`);
  say(byId("tile-used-note"), `${mounted} mounted now; since start, ${totals.used_models} of ${count(totals.imports, "import")}`);
  const moved = totals.fetched_bytes + totals.reused_bytes;
  say(byId("tile-saved"), moved ? percent(totals.reused_bytes / moved) : "–");
  say(byId("tile-saved-note"), `${size(totals.fetched_bytes)} fetched, ${size(totals.reused_bytes)} reused`);
  const failures = Object.values(totals.failures).reduce((sum, number) => sum + number, 0);
  const kindsOf = Object.entries(totals.failures).filter((item) => item[1]).map(([kind, n]) => `${kind.replaceAll("_", " ")} ${n}`).join(", ");
  say(byId("tile-care"), count(failures, "failure"));
  say(byId("tile-care-note"), [
    kindsOf, `${count(totals.evictions, "eviction")}`, `${size(totals.scrubbed_bytes)} read again`,
    totals.damaged ? `${totals.damaged} damaged, ${totals.repaired} repaired` : "",
  ].filter(Boolean).join(" · "));
}

function banner(key, kind, title, text) {
  const old = banners.get(key), shown = title ? `${kind}\n${title}\n${text}` : "";
  if ((old ? old.shown : "") === shown) return;
  if (old) old.node.remove();
  banners.delete(key);
  if (!title) return;
  const node = make("div", "banner");
  node.dataset.kind = kind;
  node.dataset.banner = key;
  node.append(make("strong", "", title), text);
  byId("banners").append(node);
  banners.set(key, { shown, node });
}

function drawBanners(status, now) {
  const { configuration, runtime } = status;
  banner("configuration", "warning", configuration.error === null ? "" : "The configuration was turned down; the one before stays in force",
    `${configuration.error} (${configuration.path}; in force: number ${configuration.generation})`);
  banner("runtime", "trouble", runtime.reachable ? "" : `The runtime (${runtime.kind}) cannot be used`, runtime.reason);
  banner("hung", "trouble", now - status.alive_at > HUNG_SECONDS ? "The daemon's main loop has stopped" : "",
    "What is below may not be true any more; /healthz asks for a restart.");
  const reasons = status.unready.filter((reason) => !reason.startsWith("runtime: "));
  const shown = reasons.slice(0, 6), rest = reasons.length - shown.length;
  banner("unready", "warning", !shown.length || status.stopping ? "" : "Not ready yet",
    shown.join(" · ") + (rest > 0 ? ` · and ${rest} more` : ""));
}

function drawAway() {
  const away = failingSince > 0;
  document.body.classList.toggle("away", away);
  banner("away", "trouble", away ? "The daemon does not answer" : "",
    `Since ${new Date(failingSince).toLocaleTimeString()}: ${problem}. ` +
    (latest ? "Below is what it said last. " : "") + "Trying again.");
  if (away) drawVerdict("away", "No answer");
  else if (latest) drawVerdict(latest.stopping ? "stopping" : latest.ready ? "ready" : "unready",
    latest.stopping ? "Stopping" : latest.ready ? "Ready" : "Not ready");
}

function drawVerdict(state, word) {
  mark(byId("verdict"), "state", state);
  say(byId("verdict"), word);
}

function draw() {
  const passed = (performance.now() - receivedAt) / 1000;
  drawAway();
  if (!latest) return;
  const now = latestNow + (failingSince ? 0 : passed);
  say(byId("node"), latest.node);
  say(byId("about"), `modelpack ${latest.version} · ${latest.runtime.kind} · up ${duration(now - latest.started_at)} · ` +
    `configuration ${latest.configuration.generation}, loaded ${since(now - latest.configuration.loaded_at)}`);
  const news = drawModels(latest, now);
  if (news.length) say(byId("news"), news.slice(0, 4).join(" "));
  drawDisk(latest.budget);
  drawTiles(latest);
  drawBanners(latest, now);
  const here = latest.models.filter((model) => model.digest).length;
  document.title = `${byId("verdict").textContent} ${here}/${latest.models.length} – ${latest.node} – modelpack`;
  say(byId("freshness"), `As of ${new Date(latest.now * 1000).toLocaleString()}, by the node's clock.`);
  byId("main").hidden = false;
}

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  const patience = new AbortController(), alarm = setTimeout(() => patience.abort(), PATIENCE);
  try {
    const answer = await fetch("v1/status", { cache: "no-store", signal: patience.signal });
    if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
    latest = await answer.json();
    // the node's clock now: the picture itself may be old where the main loop has stopped
    latestNow = Math.max(latest.now, Date.parse(answer.headers.get("Date")) / 1000 || 0);
    receivedAt = performance.now();
    failingSince = 0;
  } catch (error) {
    failingSince = failingSince || Date.now();
    problem = error.name === "AbortError" ? "it takes too long" : error.name === "TypeError" ? "no connection" : error.message;
  } finally {
    clearTimeout(alarm);
    asking = false;
    // before drawing: whatever happens there, the next picture is asked for
    const lively = failingSince || latest.models.some(isMoving);
    if (!document.hidden) timer = setTimeout(ask, lively ? FAST : SLOW);
  }
  draw();
}

byId("filter").addEventListener("input", draw);
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
setInterval(() => { if (!document.hidden && latest) draw(); }, 1000);
ask();
