// Makes server-rendered pages live. Every page works without it: forms post, links load.
//
//   <body data-events="/events">           server-sent events; the name of an event says what has changed
//   <section data-fragment="/part"         fetched again and swapped when one of these events comes
//            data-on="customer order">
//   <form data-live="#results">            submitted as one types; the answer replaces the element
//   <time datetime="...">                  shown in the browser's time zone
"use strict";

const DEBOUNCE_MS = 150;

async function fetchFragment(url, signal) {
  const answer = await fetch(url, { headers: { "X-Fragment": "1" }, signal });
  if (answer.status === 401) location.reload();
  return answer.ok ? answer.text() : null;
}

function swap(target, html) {
  if (html === null || target.innerHTML === html) return;
  const active = document.activeElement;
  const inside = target.contains(active) && active.id ? active.id : null;
  if (target.contains(active) && active.matches("input, select, textarea")) return;
  target.innerHTML = html;
  if (inside) document.getElementById(inside)?.focus();
  prepare(target);
}

function refreshOn(eventName) {
  for (const target of document.querySelectorAll("[data-fragment]")) {
    const names = (target.dataset.on || "").split(" ");
    if (names.includes(eventName) || eventName === "all") refresh(target);
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

function listen(url) {
  const source = new EventSource(url);
  let wasOpen = false;
  source.onopen = () => {
    document.body.classList.remove("disconnected");
    if (wasOpen) refreshOn("all");
    wasOpen = true;
  };
  source.onerror = () => document.body.classList.add("disconnected");
  source.addEventListener("change", (event) => event.data.split(" ").forEach(refreshOn));
}

function liveForm(form) {
  const target = document.querySelector(form.dataset.live);
  let timer = 0;
  let request = null;
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      request?.abort();
      request = new AbortController();
      const query = new URLSearchParams(new FormData(form)).toString();
      try {
        swap(target, await fetchFragment(`${form.getAttribute("action")}?${query}`, request.signal));
        history.replaceState(null, "", `?${query}`);
      } catch (error) {
        if (error.name !== "AbortError") throw error;
      }
    }, DEBOUNCE_MS);
  });
}

function prepare(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    const style = today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
    time.textContent = new Intl.DateTimeFormat(document.documentElement.lang, style).format(at);
    time.title = at.toLocaleString(document.documentElement.lang);
  }
}

prepare(document);
document.querySelectorAll("form[data-live]").forEach(liveForm);
if (document.body.dataset.events) listen(document.body.dataset.events);
