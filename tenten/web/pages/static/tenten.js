// Makes server-rendered pages live. Every page works without it: forms post, links load.
//
//   <body data-events="/events">           server-sent events "change"; their data are the names of what has changed
//   <section data-fragment="/part"         fetched again and swapped when one of these names comes
//            data-on="customer order">
//   <form data-live="#results">            posted as one types; the answer replaces the content of the element
//   <form data-once>                       its button works once: a second click while it is sent does nothing
//   <input data-key="/">, <a data-key="n"> focused or followed when this key is pressed outside a field
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
  if (isInside && active.matches("input, select, textarea")) return;
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
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      request?.abort();
      request = new AbortController();
      const body = new URLSearchParams(new FormData(form));
      history.replaceState({ searched: field.value }, "");
      try {
        swap(target, await fetchFragment(form.action, request.signal, body));
      } catch (error) {
        if (error.name !== "AbortError") document.body.classList.add("disconnected");
      }
    }, DEBOUNCE_MS);
  });
  if (history.state?.searched && !field.value) {
    field.value = history.state.searched;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

function onceOnly(form) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
  });
  addEventListener("pageshow", () => delete form.dataset.sent);
}

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea")) return;
  const target = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === event.key);
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
document.querySelectorAll("form[data-once]").forEach(onceOnly);
document.querySelectorAll("select[data-submit]").forEach((each) => each.addEventListener("change", () => each.form.requestSubmit()));
document.addEventListener("keydown", pressed);
if (document.body.dataset.events) listenWhileVisible(document.body.dataset.events);
