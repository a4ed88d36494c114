// Makes server-rendered pages live. Every page works without it: forms post, links load.
//
//   <body data-events="/events">           server-sent events "change"; their data are the names of what has changed
//   <section data-fragment="/part"         fetched again and swapped when one of these names comes
//            data-on="customer order">
//   <form data-live="#results">            posted as one types; the answer replaces the content of the element
//   <form data-once>                       its button works once: a second click while it is sent does nothing
//   <input data-key="/">, <a data-key="n"> focused or followed when this key is pressed outside a field; of several, the last
//   <p data-address="/customers">          the address of this page, for reload and the way back
//   <select data-submit>                   submits its form when another choice is made
//   <time datetime="...">                  shown in the browser's time zone, unless it has data-fixed
"use strict";

const DEBOUNCE_MS = 150;
const RETRY_MS = 3000;

async function fetchFragment(url, signal, body) {
  const answer = await fetch(url, { method: body ? "POST" : "GET", body, headers: { "X-Fragment": "1" }, signal });
  if (answer.status === 401) location.reload();
  return answer.ok ? answer.text() : null;
}

const shown = new WeakMap();

function swap(target, html) {
  if (html === null || shown.get(target) === html) return;
  const active = document.activeElement;
  const isInside = active !== target && target.contains(active);
  // What a person is filling in is not taken away.
  const fields = [...target.querySelectorAll("input, textarea")];
  if ((isInside && active.matches("input, select, textarea")) || fields.some((each) => each.value !== each.defaultValue)) return;
  const id = isInside ? active.id : "";
  const link = isInside && active.href ? active.getAttribute("href") : "";
  target.innerHTML = html;
  shown.set(target, html);
  prepare(target);
  if (id) document.getElementById(id)?.focus();
  else if (link) [...target.querySelectorAll("a")].find((a) => a.getAttribute("href") === link)?.focus();
}

function refreshOn(name) {
  for (const target of document.querySelectorAll("[data-fragment]")) {
    const names = (target.dataset.on || "").split(" ");
    if (name === "all" || names.includes(name)) refresh(target);
  }
}

const waiting = new WeakMap();

function refresh(target) {
  if (waiting.has(target)) {
    waiting.set(target, true);
    return;
  }
  waiting.set(target, false);
  fetchFragment(target.dataset.fragment)
    .then((html) => swap(target, html))
    .catch(() => {})
    .finally(() => {
      const again = waiting.get(target);
      waiting.delete(target);
      if (again) refresh(target);
    });
}

let source = null;
let wasOpen = false;

function listen(url) {
  // A page has one stream at most: it may become visible twice, and one that nothing closes would keep a connection.
  source?.close();
  source = new EventSource(url);
  source.onopen = () => {
    document.body.classList.remove("disconnected");
    if (wasOpen) refreshOn("all");
    wasOpen = true;
  };
  source.onerror = () => {
    document.body.classList.add("disconnected");
    // The browser tries again by itself, unless it was refused.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => document.hidden || listen(url), RETRY_MS);
  };
  source.addEventListener("change", (event) => event.data.split(" ").forEach(refreshOn));
}

// A browser keeps few connections to a server: pages that nobody looks at hold none.
function listenWhileVisible(url) {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source?.close();
    else listen(url);
  });
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => event.persisted && listen(url));
  if (!document.hidden) listen(url);
}

// What is searched for may be personal data: it is posted, and kept in the state of the page, not in its address.
function liveForm(form) {
  const target = document.querySelector(form.dataset.live);
  const field = form.querySelector("input[type=search]");
  let timer = 0;
  let request = null;
  async function search() {
    clearTimeout(timer);
    request?.abort();
    request = new AbortController();
    const body = new URLSearchParams(new FormData(form));
    history.replaceState({ searched: field.value }, "");
    try {
      swap(target, await fetchFragment(form.action, request.signal, body));
      return true;
    } catch (error) {
      if (error.name !== "AbortError") document.body.classList.add("disconnected");
      return false;
    }
  }
  const results = () => [...target.querySelectorAll("td.lead a")];
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, DEBOUNCE_MS);
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if ((await search()) && field.value.trim() && results().length === 1) results()[0].click();
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const places = [field, ...results()];
    const at = places.indexOf(document.activeElement);
    if (!step || at < 0 || !places[at + step]) return;
    event.preventDefault();
    places[at + step].focus();
  });
  // A link to the page begins anew, though the browser keeps the state of the same address.
  const isNew = performance.getEntriesByType("navigation")[0]?.type === "navigate";
  if (!isNew && history.state?.searched && !field.value) {
    field.value = history.state.searched;
    field.select();
    search();
  }
}

function sentOnce(event) {
  if (!event.target.matches("[data-once]")) return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "1";
}

function pressed(event) {
  const isField = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && isField) event.target.blur();
  if (event.ctrlKey || event.altKey || event.metaKey || isField) return;
  const target = [...document.querySelectorAll("[data-key]")].findLast((each) => each.dataset.key === event.key.toLowerCase());
  if (!target) return;
  event.preventDefault();
  if (target.matches("input")) target.select();
  if (target.matches("a")) target.click();
  else target.focus();
}

function prepare(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-fixed])")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    const style = today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
    time.textContent = new Intl.DateTimeFormat(document.documentElement.lang, style).format(at);
    time.title = at.toLocaleString(document.documentElement.lang);
  }
}

prepare(document);
document.documentElement.classList.add("live");
document.querySelectorAll("form[data-live]").forEach(liveForm);
document.querySelectorAll("select[data-submit]").forEach((each) => each.addEventListener("change", () => each.form.requestSubmit()));
document.addEventListener("keydown", pressed);
document.addEventListener("submit", sentOnce);
addEventListener("pageshow", () => document.querySelectorAll("[data-sent]").forEach((form) => delete form.dataset.sent));
if (document.body.dataset.events) listenWhileVisible(document.body.dataset.events);
// A page that answers a form has the address of the form: the browser does not ask whether to send it again.
const address = [...document.querySelectorAll("[data-address]")].at(-1)?.dataset.address;
if (address) history.replaceState(history.state, "", address);
(document.querySelector("[aria-invalid=true]") ?? document.querySelector(".summary"))?.focus();
