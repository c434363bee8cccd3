/* Small comforts on top of pages that work without them: copy, dialogs, keys, times, live badge. */
(() => {
  window.trustedTypes?.createPolicy("default", { createHTML: (text) => text });
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const body = document.body;

  // An opened <details> stays open when its region is replaced.
  htmx.registerExtension("tc", {
    htmx_before_morph_attr: (element, detail) =>
      !(detail.attrName === "open" || (detail.attrName === "hidden" && element.dataset.copy)),
  });

  const relative = (ms) => {
    const s = Math.floor(ms / 1000);
    if (s < 3) return "just now";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    const days = Math.floor(s / 86400);
    return days === 1 ? "1 day ago" : `${days} days ago`;
  };
  const two = (n) => String(n).padStart(2, "0");
  const lasting = (ms) => {
    const s = Math.max(0, Math.round(ms / 1000));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
    return `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)} min`;
  };
  const put = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const tick = () => {
    const now = Date.now();
    for (const e of $$("time[datetime]")) put(e, relative(now - Date.parse(e.dateTime)));
    for (const e of $$("[data-since]")) put(e, lasting(now - Date.parse(e.dataset.since)));
  };
  setInterval(tick, 1000);

  // Follow the log until the reader scrolls up; lines that came twice go.
  const log = () => $(".log");
  const toEnd = () => {
    if ($("#follow")?.checked && log()) log().scrollTop = log().scrollHeight;
  };
  const tidyLog = () => {
    let last = -1;
    for (const line of $$("#log > li")) {
      const at = Number(line.id.slice(4));
      if (at <= last) line.remove();
      else last = at;
    }
    toEnd();
  };
  const onScroll = (event) => {
    if (event.target !== log() || !$("#follow")) return;
    const { scrollTop, scrollHeight, clientHeight } = event.target;
    $("#follow").checked = scrollHeight - scrollTop - clientHeight < 24;
  };
  document.addEventListener("scroll", onScroll, true);

  const refresh = () => {
    for (const e of $$("button[data-copy][hidden], .follow[hidden]")) e.hidden = false;
    const state = $("#main [data-title]") ?? $("#main");
    if (state?.dataset.title) document.title = `${state.dataset.title} · templatecenter`;
    if (state?.dataset.tone) {
      const href = `/ui/icon/${state.dataset.tone}.svg`;
      if ($("link[rel=icon]").getAttribute("href") !== href) $("link[rel=icon]").href = href;
    }
    tidyLog();
  };

  // The live badge, and the truth when the node cannot be reached.
  let state = "connecting";
  let since = Date.now();
  const badge = $("#live");
  const words = { connecting: "Connecting", live: "Live", paused: "Paused", lost: "Reconnecting" };
  const show = (next) => {
    if (next !== state) since = Date.now();
    state = next;
    if (!badge) return;
    badge.dataset.state = next;
    put(badge, words[next]);
    badge.setAttribute("aria-pressed", String(next === "paused"));
    badge.title = next === "paused" ? "Resume live updates (p)" : "Pause live updates (p)";
    if (next === "live") $("#offline").hidden = true;
  };
  const streaming = body.hasAttribute("hx-sse:connect");
  if (badge && streaming) badge.hidden = false;
  const reload = () => htmx.trigger(body, "reload-needed");
  const pause = () => {
    if (!streaming) return;
    if (state !== "paused") return show("paused");
    show("live");
    reload();
  };
  badge?.addEventListener("click", pause);
  body.addEventListener("htmx:sse:after:connection", () => state !== "paused" && show("live"));
  const lost = () => state !== "paused" && show("lost");
  body.addEventListener("htmx:sse:error", lost);
  body.addEventListener("htmx:sse:close", lost);
  body.addEventListener("htmx:sse:before:message", (event) => {
    if (state === "paused") event.preventDefault();
  });
  setInterval(() => {
    if (!streaming || state === "live" || state === "paused" || document.hidden) return;
    const away = Date.now() - since;
    if (away > 8000) {
      const at = new Date(since).toLocaleTimeString();
      put($("#offline"), `No contact for ${lasting(away)}. What you see is from ${at}.`);
      $("#offline").hidden = false;
      reload();
    }
  }, 5000);

  body.addEventListener("htmx:after:swap", () => {
    refresh();
    tick();
  });

  // Confirmations: the same content as their page.
  const dialog = $("#dialog");
  const content = new MutationObserver(() => {
    if (dialog.childElementCount > 0 && !dialog.open) dialog.showModal();
  });
  content.observe(dialog, { childList: true });
  dialog.addEventListener("close", () => dialog.replaceChildren());
  document.addEventListener("click", (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      void navigator.clipboard.writeText(copy.dataset.copy).then(() => {
        copy.classList.add("done");
        put($("#announce"), "Copied.");
        setTimeout(() => copy.classList.remove("done"), 1200);
      });
    }
    if (event.target.closest("#dialog [data-close]")) {
      event.preventDefault();
      dialog.close();
    }
  });
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || event.target.method !== "post") return;
    const button = event.submitter;
    for (const e of $$("[data-busy]", event.target)) e.hidden = false;
    setTimeout(() => button && (button.disabled = true));
  });
  window.addEventListener("pageshow", () => {
    for (const button of $$("[type=submit][disabled]")) button.disabled = false;
  });

  // Keys; off where the visitor said so, and while one types.
  let going = false;
  const step = (by) => {
    const rows = $$("#main .row");
    const at = rows.indexOf(document.activeElement);
    rows[Math.min(rows.length - 1, Math.max(0, at + by))]?.focus();
  };
  const keys = {
    "/": () => $("#filter")?.focus(),
    "?": () => location.assign("/ui/help"),
    p: pause,
    j: () => step(1),
    k: () => step(-1),
    g: () => (going = true),
  };
  document.addEventListener("keydown", (event) => {
    if (body.dataset.shortcuts === "off" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, dialog")) return;
    const wasGoing = going;
    going = false;
    const link = wasGoing && $(`[data-key="${CSS.escape(event.key)}"]`);
    const run = link ? () => link.click() : keys[event.key];
    if (!run) return;
    event.preventDefault();
    run();
  });
  refresh();
  tick();
})();
