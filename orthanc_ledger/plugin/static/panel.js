// Draws what the node knows of a study, series or instance. Every text is set as text, never as markup.
"use strict";

const ledgerPanel = (() => {
  const SIGNS = { good: "\u2714", neutral: "\u25cf", attention: "\u25b2", danger: "\u2716" };
  const COUNTS = [
    ["anchored", "anchored"],
    ["waiting", "waiting"],
    ["quarantined", "in quarantine"],
    ["conflicts", "in conflict"],
    ["damaged", "withheld"],
    ["withdrawn", "withdrawn from research"],
    ["superseded", "corrected"],
    ["earlier", "from before the installation, not under custody"],
  ];
  const AWAY = "The node's processes do not answer now. Orthanc works as ever; what it receives is kept safely.";
  const WAITING_MS = 5000;

  function make(tag, className, ...content) {
    const element = document.createElement(tag);
    if (className) {
      element.className = className;
    }
    element.append(...content.filter((each) => each !== null));
    return element;
  }

  function when(seconds) {
    const moment = new Date(seconds * 1000);
    const element = make("time", "", moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }));
    element.dateTime = moment.toISOString();
    return element;
  }

  function counted(number, noun) {
    return number === 1 ? `1 ${noun}` : `${number} ${noun}s`;
  }

  function code(text) {
    return make("code", "", text);
  }

  function row(list, label, ...content) {
    list.append(make("dt", "", label), make("dd", "", ...content));
  }

  function drawState(facts) {
    const sign = make("span", "ledger-sign", SIGNS[facts.tone]);
    sign.setAttribute("aria-hidden", "true");
    const since = facts.since === null ? [] : [", since ", when(facts.since)];
    const state = make("p", `ledger-state ledger-${facts.tone}`, sign, make("strong", "", facts.state), ...since);
    state.setAttribute("role", "status");
    return [state, make("p", "ledger-meaning", facts.meaning)];
  }

  function drawCounts(list, facts) {
    const told = COUNTS.filter(([name]) => facts.counts[name]).map(([name, word]) => `${facts.counts[name]} ${word}`);
    if (facts.level !== "instance" && told.length) {
      row(list, "Objects", told.join(", "));
    }
    if (facts.counts.held && facts.in_orthanc > facts.counts.held + facts.counts.earlier) {
      row(list, "In Orthanc", `${counted(facts.in_orthanc, "object")}, of which the node has ${facts.counts.held}`);
    }
  }

  function anchor(each) {
    const time = each.time === null ? null : make("span", "", ", ", when(each.time));
    const stored = each.stored ? ", the custodian holds a copy" : null;
    const what = `position ${each.position}`;
    return make("li", "", what, time, `, ${counted(each.count, "object")}, manifest `, code(each.manifest), stored);
  }

  function drawAnchors(list, facts) {
    if (facts.object !== null) {
      row(list, "Content (CID)", code(facts.object));
    }
    if (!facts.anchors.length) {
      return;
    }
    const [last, ...others] = [...facts.anchors].reverse();
    const shown = [make("ul", "", anchor(last))];
    if (others.length) {
      const summary = make("summary", "", `${others.length} earlier`);
      shown.push(make("details", "", summary, make("ul", "", ...others.map(anchor))));
    }
    row(list, "On the ledger", ...shown);
  }

  function drawWay(list, facts) {
    if (facts.origins.length) {
      const ways = facts.origins.map((each) => {
        const who = each.sender ? ` from ${each.sender}` : "";
        return make("li", "", `${each.way}${who}, ${counted(each.count, "object")}, `, when(each.first));
      });
      row(list, "Received by", make("ul", "", ...ways));
    }
    if (facts.anchors.length && facts.ledger_away === null) {
      const checked = facts.checked === null ? ["by no sweep yet"] : [when(facts.checked.ended), ", all copies verified"];
      row(list, "Last check", ...checked);
    }
    if (facts.ledger_away !== null) {
      row(list, "Ledger", "does not answer now; what only it knows is not shown");
    }
  }

  function release(each) {
    const count = each.sent === null ? `${each.released} (under way)` : `${each.sent} of ${each.released}`;
    const until = each.until === null ? [] : [", until ", when(each.until)];
    return make(
      "tr",
      "",
      make("td", "", `${each.organisation}, ${each.ae_title}`),
      make("td", "", each.purposes.join(", ") || "no purpose named"),
      make("td", "", when(each.last)),
      make("td", "", each.is_certain ? count : `${count}, perhaps this one`),
      make("td", "", each.state, ...until),
    );
  }

  function table(caption, columns, rows) {
    const head = columns.map((name) => {
      const cell = make("th", "", name);
      cell.scope = "col";
      return cell;
    });
    const whole = make("table", "", make("caption", "", caption));
    whole.append(make("thead", "", make("tr", "", ...head)), make("tbody", "", ...rows));
    const frame = make("div", "ledger-wide", whole);
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", caption);
    return frame;
  }

  function drawReleases(facts) {
    if (facts.ledger_away !== null || !facts.anchors.length) {
      return [];
    }
    if (!facts.releases.length) {
      return [make("p", "", "Nothing of it was released to research.")];
    }
    const columns = ["To", "Purpose", "Last", "Objects sent", "Approval"];
    return [table("Released to research", columns, facts.releases.map(release))];
  }

  function drawAlarms(facts) {
    return facts.alarms.map((each) => {
      const sign = make("span", "ledger-sign", SIGNS[each.tone]);
      sign.setAttribute("aria-hidden", "true");
      const count = each.count > 1 ? ` (${each.count} times)` : "";
      const head = make("p", "", sign, make("strong", "", each.kind), `${count}, since `, when(each.since));
      const said = make("p", "ledger-said", each.text);
      return make("div", `ledger-alarm ledger-${each.tone}`, head, make("p", "", each.what_to_do), said);
    });
  }

  function drawEvents(facts) {
    if (!facts.events.length) {
      return [];
    }
    const rows = facts.events.map((each) =>
      make(
        "tr",
        "",
        make("td", "", when(each.time)),
        make("td", "", each.what),
        make("td", "ledger-detail", each.detail),
        make("td", "", each.who),
        make("td", "", each.position === null ? "" : String(each.position)),
      ),
    );
    return [table("What happened", ["When", "What", "Detail", "Who", "Ledger position"], rows)];
  }

  function drawLink(facts) {
    if (facts.console === null) {
      return [];
    }
    const link = make("a", "", "Open in the console");
    link.href = facts.console;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    return [make("p", "ledger-link", link)];
  }

  function draw(place, facts) {
    const list = make("dl", "");
    drawCounts(list, facts);
    drawAnchors(list, facts);
    drawWay(list, facts);
    place.replaceChildren(
      make("h2", "", "Chain of custody"),
      ...drawState(facts),
      ...drawAlarms(facts),
      list,
      ...drawReleases(facts),
      ...drawEvents(facts),
      ...drawLink(facts),
    );
  }

  function drawAway(place, text) {
    const state = make("p", "ledger-state ledger-neutral", text);
    state.setAttribute("role", "status");
    place.replaceChildren(make("h2", "", "Chain of custody"), state);
  }

  // Asks at `address` and draws into `place`, which belongs to `address` as long as its data-address says so; what
  // waits is asked for again. `told` is called with what came.
  async function show(place, address, told = () => {}) {
    place.dataset.address = address;
    let facts = null;
    try {
      const answer = await fetch(address, { headers: { Accept: "application/json" } });
      facts = answer.ok ? await answer.json() : null;
    } catch {
      facts = null;
    }
    if (!place.isConnected || place.dataset.address !== address) {
      return;
    }
    if (facts === null) {
      drawAway(place, AWAY);
    } else {
      draw(place, facts);
      told(facts);
    }
    if (facts === null || facts.counts.waiting) {
      setTimeout(() => {
        if (place.isConnected && place.dataset.address === address) {
          show(place, address, told);
        }
      }, WAITING_MS);
    }
  }

  return { make, show };
})();
