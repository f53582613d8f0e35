// Before the page is drawn: the colours that the reader chose last, if any. Without storage the system decides.
"use strict";
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("catalogue-theme"); } catch { /* storage is off: the system's choice stands */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
