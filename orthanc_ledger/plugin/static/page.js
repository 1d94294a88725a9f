// The panel on a page of its own, with what happened.
"use strict";

ledgerPanel.show(document.querySelector(".ledger-panel"), `${location.pathname}/facts?events`, (facts) => {
  document.querySelector("h1").textContent = facts.title;
  document.title = `Chain of custody: ${facts.title}`;
});
