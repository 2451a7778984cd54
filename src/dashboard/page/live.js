"use strict";
(() => {
  const live = document.getElementById("live");
  let source = null, again = 0;
  const say = (state, text) => { live.dataset.state = state; if (live.textContent !== text) live.textContent = text; };

  // Ages are told only where a script can keep them true; the time itself stays in the title.
  const units = [[86400, "day"], [3600, "h"], [60, "min"], [1, "s"]];
  const ages = (root) => {
    for (const time of root.querySelectorAll("time.age")) {
      const seconds = Math.round((Date.now() - Date.parse(time.dateTime)) / 1000);
      const [size, unit] = units.find(([size]) => Math.abs(seconds) >= size) || [1, "s"];
      const n = Math.floor(Math.abs(seconds) / size), words = n + " " + unit + (unit === "day" && n !== 1 ? "s" : "");
      time.title = time.dateTime.replace("T", " ").replace("Z", " UTC");
      const text = seconds < 0 ? "in " + words : words + " ago";
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // A fragment is swapped as a whole; what has the focus and what is unfolded stay as they are.
  const swap = (html) => {
    const holder = document.createElement("template");
    holder.innerHTML = html;
    const fresh = holder.content.firstElementChild;
    const old = fresh && document.getElementById(fresh.id);
    if (!old || old.dataset.v === fresh.dataset.v) return;
    for (const details of old.querySelectorAll("details[open]")) {
      const same = fresh.querySelector("#" + CSS.escape(details.id));
      if (same) same.open = true;
    }
    const active = old.contains(document.activeElement) ? document.activeElement : null;
    ages(fresh);
    old.replaceWith(fresh);
    if (!active) return;
    const alike = Array.from(fresh.querySelectorAll(active.tagName));
    const same = alike.find((element) => element.getAttribute("href") === active.getAttribute("href"));
    (same || document.getElementById("main")).focus({ preventScroll: true });
  };

  const stop = () => { clearTimeout(again); if (source) source.close(); source = null; };
  const start = () => {
    stop();
    source = new EventSource(document.body.dataset.live);
    source.addEventListener("open", () => say("on", "live"));
    source.addEventListener("fragment", (event) => swap(event.data));
    source.addEventListener("error", () => {
      const refused = source && source.readyState === EventSource.CLOSED;
      say("off", refused ? "not live: tried again in 30 s" : "not live: connecting");
      if (refused) again = setTimeout(start, 30000);
    });
  };

  // A page that nobody sees holds no connection: a browser has six for all its tabs.
  const look = () => { if (document.hidden) { stop(); say("off", "paused"); } else start(); };
  document.addEventListener("visibilitychange", look);
  ages(document);
  setInterval(() => ages(document), 1000);
  look();
})();
