// Replaces the live part of the page when docxy says that something changed; at most once a second.
// Without JavaScript the page stands as it was loaded.
"use strict";
(() => {
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      return true;
    } catch {
      // Over plain HTTP there is no clipboard. Where this is refused, too, the text stays selected.
      getSelection().selectAllChildren(text);
      return document.execCommand("copy");
    }
  };
  document.querySelectorAll(".code").forEach((box, n) => {
    const button = document.createElement("button");
    button.type = "button";
    // Who hears the page is told what each of them copies, and that it did.
    box.querySelector("figcaption span").id = `file-${n}`;
    button.setAttribute("aria-describedby", `file-${n}`);
    button.setAttribute("aria-live", "polite");
    button.textContent = document.body.dataset.copy;
    button.addEventListener("click", async () => {
      if (!await copy(box.querySelector("pre"))) return;
      button.textContent = document.body.dataset.copied;
      setTimeout(() => { button.textContent = document.body.dataset.copy; }, 1500);
    });
    box.querySelector("figcaption").append(button);
  });
  const live = document.getElementById("main");
  if (!live.dataset.from || !window.EventSource) return;
  // Changes what differs and leaves every other node as it is: focus, selection, a click under way, an open detail.
  const morph = (old, next) => {
    if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) return old.replaceWith(next);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== next.data) old.data = next.data;
      return;
    }
    for (const { name } of [...old.attributes]) if (name !== "open" && !next.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const before = [...old.childNodes], after = [...next.childNodes];
    after.forEach((child, n) => { if (n < before.length) morph(before[n], child); else old.append(child); });
    before.slice(after.length).forEach((child) => child.remove());
  };
  // Of what comes and goes the box stays as high as it was, within reason: what is below must not jump.
  const kept = 480;
  const renewed = (old, next) => {
    const before = old.firstElementChild?.offsetHeight;
    morph(old, next);
    if (old.dataset.part === "fills") old.firstElementChild.style.minHeight = `${Math.min(before, kept)}px`;
  };
  let due = false, busy = false;
  const renew = async () => {
    due = false;
    busy = true;
    try {
      const response = await fetch(live.dataset.from);
      if (response.ok) {
        const next = new DOMParser().parseFromString(await response.text(), "text/html");
        for (const part of next.querySelectorAll("[data-part]")) {
          const old = live.querySelector(`[data-part="${part.dataset.part}"]`);
          if (old) renewed(old, part);
        }
      }
    } finally {
      setTimeout(() => { busy = false; if (due) renew(); }, 1000);
    }
  };
  new EventSource(live.dataset.events).onmessage = () => { due = true; if (!busy) renew(); };
})();
