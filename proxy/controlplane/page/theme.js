// The chosen theme, before anything is drawn: what a module sets, it sets after the first frame.
(function () {
  try {
    const chosen = localStorage.getItem("serinus-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // No storage: as the system has it.
  }
})();
