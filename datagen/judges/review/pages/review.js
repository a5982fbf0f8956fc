"use strict";
// One row at a time: the server says what to show, the page says what was voted. Texts become text nodes, nothing else.

const $ = (id) => document.getElementById(id);
const HIDDEN = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]+)/;
const MOST_MARKS = 2000; // a text made of control characters must not become a million elements
const UNBROKEN = /[^\s\u3000-\u9fff]{2000}/; // no word of a language
let page = null; // what the server sent last
let places = []; // the ranking so far: groups of answers, best first
let joining = false; // does the next answer share the last place given?
let waiting = false; // is a request under way?

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function named(character) {
  return "U+" + character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
}

// Texts of strangers: direction isolated, characters that hide or steer made visible, Chinese told apart for its fonts.
function textOf(text, className = "") {
  const made = element("div", ("text " + className).trim());
  const parts = text.replace(/\r\n/g, "\n").split(HIDDEN);
  const visible = parts.map((part, at) => (at % 2 ? Array.from(part, named).join(" ") : part));
  if (parts.length > MOST_MARKS) made.textContent = visible.join("");
  else made.append(...visible.map((part, at) => (at % 2 ? element("span", "hidden-character", part) : part)));
  made.dir = "auto";
  made.classList.toggle("unbroken", UNBROKEN.test(text));
  if (/[\u3040-\u30ff]/.test(text)) made.lang = "ja";
  else if (/[\u4e00-\u9fff]/.test(text)) made.lang = "zh";
  return made;
}

const pair = () => page.answers.length === 2;
const label = (at) => (pair() ? "AB"[at] : String(at + 1));

function show(sent) {
  page = sent;
  places = [];
  joining = false;
  $("progress").max = page.rows;
  $("progress").value = page.voted;
  $("count").textContent = `${page.voted} of ${page.rows}`;
  $("by").textContent = page.by;
  $("bar").hidden = false;
  if (page.summary) showSummary(page.summary);
  else showRow();
}

function showRow() {
  const roles = { user: "User", assistant: "Assistant", system: "System" };
  const turns = page.prompt.map(({ role, content }) => {
    const turn = element("div", "turn", textOf(content));
    if (page.prompt.length > 1) turn.prepend(element("span", "role", roles[role] || role));
    return turn;
  });
  const prompt = element("section", "prompt", ...turns);
  prompt.tabIndex = 0;
  prompt.setAttribute("aria-label", "Prompt");
  $("main").replaceChildren(prompt, element("section", page.answers.length === 4 ? "answers four" : "answers", ...page.answers.map(answerCard)));
  prompt.scrollTop = prompt.scrollHeight;
  if (page.ranks) places = groups(page.ranks);
  say(page.verdict ? `You said: ${page.verdict.replace("_", " ")}. A new vote takes its place.` : "");
  showPlaces();
}

function answerCard(text, at) {
  const place = element("span", "place");
  const head = element("button", "", element("kbd", "", label(at)), "Answer", place);
  head.addEventListener("click", () => choose(at));
  const body = textOf(text);
  body.tabIndex = 0;
  return element("article", "answer", head, body);
}

// The groups of answers that ranks make, best first.
function groups(ranks) {
  const made = [];
  ranks.forEach((rank, at) => (made[rank - 1] = made[rank - 1] || []).push(at));
  return made;
}

function ranksOf(groupsOfAnswers) {
  const left = page.answers.map(() => groupsOfAnswers.length + 1);
  groupsOfAnswers.forEach((group, rank) => group.forEach((at) => (left[at] = rank + 1)));
  return left;
}

function showPlaces() {
  const ranks = ranksOf(places);
  document.querySelectorAll(".answer").forEach((card, at) => {
    const placed = ranks[at] <= places.length;
    card.classList.toggle("placed", placed);
    card.querySelector(".place").textContent = placed ? `place ${ranks[at]}` : "";
  });
  if (!page.verdict || joining) say(hint());
  showActions();
}

function hint() {
  if (joining) return "The next answer shares the place of the last one.";
  if (pair()) return "Which answer is better?";
  if (!places.length) return "Choose the answers in order, best first.";
  return places.flat().length < page.answers.length ? "What you leave out shares the last place." : "";
}

function say(text, wrong = false) {
  $("said").textContent = text;
  $("said").classList.toggle("wrong", wrong);
}

function showActions() {
  const row = !page.summary;
  const actions = [["←", "Back", back, page.at > 0]];
  if (row && !pair()) actions.push(["=", "Same place", join, places.length > 0], ["⌫", "Take back", takeBack, places.length > 0]);
  if (row) actions.push(["T", "Tie", () => vote("tie"), true], ["X", "All bad", () => vote("all_bad"), true], ["S", "Skip", () => vote("skip"), true]);
  if (row && !pair()) actions.push(["↵", "Vote", submit, places.length > 0]);
  $("actions").replaceChildren(...actions.map(([key, name, act, able]) => {
    const button = element("button", name === "Vote" ? "main" : "", element("kbd", "", key), name);
    button.disabled = !able;
    button.addEventListener("click", act);
    return button;
  }));
}

function showSummary(summary) {
  const share = (value) => (value === null ? "–" : (100 * value).toFixed(1) + " %");
  const rows = [["Votes", summary.votes], ["Order", summary.verdicts.order], ["Tie", summary.verdicts.tie],
    ["All bad", summary.verdicts.all_bad], ["Skipped", summary.verdicts.skip]];
  if (summary.pairs) {
    rows.push(["Pairs compared with the judge", summary.pairs], ["Agreement", share(summary.agreement)],
      ["Agreement without ties", share(summary.agreement_decided)],
      ["Cohen’s kappa", summary.kappa === null ? "–" : summary.kappa.toFixed(3)]);
  }
  const list = element("dl", "", ...rows.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", String(value))]));
  $("main").replaceChildren(element("section", "done", element("h1", "", "All done"),
    element("p", "", "Every vote is kept. This page can be closed; Ctrl-C ends the server."), list));
  say("");
  showActions();
}

function choose(at) {
  if (pair()) return vote("order", at === 0 ? [1, 2] : [2, 1]);
  if (page.verdict) { // a changed mind begins anew
    page.verdict = null;
    places = [];
  }
  if (places.flat().includes(at)) return;
  if (joining) places[places.length - 1].push(at);
  else places.push([at]);
  joining = false;
  showPlaces();
}

function join() {
  joining = places.length > 0 && !joining;
  showPlaces();
}

function takeBack() {
  joining = false;
  if (places.length) places[places.length - 1].pop();
  places = places.filter((group) => group.length);
  page.verdict = null;
  showPlaces();
}

const submit = () => places.length && vote("order", ranksOf(places));
const vote = (verdict, ranks = null) => ask("vote", { id: page.id, verdict, ranks });
const back = () => page.at > 0 && ask("page?at=" + (page.at - 1));
const forward = () => page.at < page.rows && ask("page?at=" + (page.at + 1));

async function ask(path, sent) {
  if (waiting) return;
  waiting = true;
  try {
    const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) };
    const reply = await fetch(path, sent ? post : {});
    if (reply.ok) show(await reply.json());
    else fail(await reply.text());
  } catch {
    fail("The server does not answer. Start it again and open its new link: all votes so far are kept.");
  } finally {
    waiting = false;
  }
}

function fail(text) {
  $("bar").hidden = false;
  say(text.trim(), true);
}

document.addEventListener("keydown", (event) => {
  if (!page || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = page.summary ? { ArrowLeft: back, u: back }[key] : rowKey(key, event.target);
  if (!act) return;
  event.preventDefault();
  act();
});

function rowKey(key, target) {
  const at = pair() && "ab".includes(key) ? "ab".indexOf(key) : "123456789".indexOf(key);
  if (key.length === 1 && at >= 0 && at < page.answers.length) return () => choose(at);
  if (key === "Enter" && target.closest("button")) return null; // Enter on a button presses it
  return { t: () => vote("tie"), x: () => vote("all_bad"), s: () => vote("skip"), "=": join, Enter: submit,
    Backspace: takeBack, ArrowLeft: back, u: back, ArrowRight: forward }[key];
}

ask("page");
