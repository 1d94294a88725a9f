// Puts the panel on Orthanc Explorer's pages of a study, a series and an instance (jQuery Mobile).
"use strict";

(() => {
  const PAGES = { study: "studies", series: "series", instance: "instances" };

  function show(level) {
    const id = ($.mobile.pageData || {}).uuid;
    const column = document.querySelector(`#${level} .ui-block-b > div`);
    if (!id || column === null) {
      return;
    }
    let place = column.querySelector(".ledger-panel");
    if (place === null) {
      place = ledgerPanel.make("section", "ledger-panel");
      place.setAttribute("aria-label", "Chain of custody");
      column.prepend(place);
    }
    place.replaceChildren();
    ledgerPanel.show(place, `../ledger/${PAGES[level]}/${encodeURIComponent(id)}/facts`);
  }

  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = "../ledger/panel.css";
  document.head.append(style);
  for (const level of Object.keys(PAGES)) {
    $(document).delegate(`#${level}`, "pagebeforeshow", () => show(level));
  }
  // From one study to another, the page stays.
  window.addEventListener("hashchange", () => {
    const active = ($.mobile.pageData || {}).active;
    if (active in PAGES) {
      show(active);
    }
  });
})();
