// What the console's pages do beyond links and forms: "/" searches, text is copied, a live
// list is paused, and what would be sent twice is sent once. Without it all pages work.
"use strict";

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const search = document.querySelector("main input[type=search]") || document.getElementById("search");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  }
});

// Buttons that need this script are shown by it.
function reveal(root) {
  for (const button of root.querySelectorAll("[data-copy][hidden], [data-pause][hidden], [data-print][hidden]")) {
    button.hidden = false;
  }
}
reveal(document);

// What was opened, paused or refused before a part of the page was exchanged.
const opened = new Set();
document.addEventListener("toggle", (event) => {
  if (event.target.id) opened[event.target.open ? "add" : "delete"](event.target.id);
}, true);
document.addEventListener("htmx:afterSettle", (event) => {
  reveal(event.target);
  for (const id of opened) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  for (const button of document.querySelectorAll("button[data-pause]")) showPaused(button);
});
document.addEventListener("htmx:afterRequest", (event) => {
  const problem = document.getElementById("problem");
  if (event.detail.successful && problem) problem.replaceChildren();
});

function showPaused(button) {
  const paused = document.body.hasAttribute("data-paused");
  button.setAttribute("aria-pressed", String(paused));
  button.textContent = paused ? "Resume" : "Pause";
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy !== undefined) {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it by hand";
    }
    setTimeout(() => { button.textContent = said; }, 2000);
  }
  if (button.dataset.pause !== undefined) {
    document.body.toggleAttribute("data-paused");
    showPaused(button);
  }
  if (button.dataset.print !== undefined) window.print();
});

// A list that refreshes itself keeps still while it is paused, and while nobody looks.
document.addEventListener("htmx:beforeRequest", (event) => {
  const live = event.detail.elt.hasAttribute("data-live");
  if (live && (document.body.hasAttribute("data-paused") || document.hidden)) event.preventDefault();
});

// A link to a part of the page opens it.
function openTarget() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target && (target.matches("details") ? target : target.querySelector("details"));
  if (details) details.open = true;
}
window.addEventListener("hashchange", openTarget);
openTarget();

// On a narrow screen the sections are wider than the page: the current one is in sight.
function showSection() {
  const current = document.querySelector(".top nav [aria-current]");
  if (!current) return;
  const nav = current.closest("nav");
  const from = current.getBoundingClientRect().left - nav.getBoundingClientRect().left;
  nav.scrollLeft += from - (nav.clientWidth - current.offsetWidth) / 2;
}
showSection();

// The nonce of a form makes a second click harmless; this makes it invisible.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent !== undefined) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "";
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
