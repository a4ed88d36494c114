// Headquarters' dashboard: keeps ages up to date between the changes that the server tells of.
//
//   <span class="age" data-since="2026-03-31T18:05:09+00:00">12 s</span>
"use strict";

const UNITS = [["s", 1, 120], ["min", 60, 120], ["h", 3600, 48], ["d", 86400, Infinity]];

// The browser's clock may be wrong: ages are by the server's.
const ahead = Date.now() - Date.parse(document.querySelector("[data-now]").dataset.now);

function age(since) {
  const seconds = Math.max(0, Math.floor((Date.now() - ahead - since) / 1000));
  if (seconds < 1) return "now";
  const [unit, size] = UNITS.find(([, size, most]) => seconds < size * most);
  return `${Math.floor(seconds / size)} ${unit}`;
}

function showAges() {
  for (const element of document.querySelectorAll(".age[data-since]")) {
    const text = age(Date.parse(element.dataset.since));
    if (element.textContent !== text) element.textContent = text;
  }
}

setInterval(showAges, 1000);

// What a person has opened or closed stays so when the part around it is fetched again.
const opened = new Map();

document.addEventListener("click", (event) => {
  const details = event.target.closest("summary")?.parentElement;
  if (details?.id) opened.set(details.id, !details.open);
});

new MutationObserver(() => {
  for (const [id, isOpen] of opened) document.getElementById(id)?.toggleAttribute("open", isOpen);
}).observe(document.querySelector("main"), { childList: true, subtree: true });
