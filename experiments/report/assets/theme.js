// Before anything is drawn: the theme that was chosen on this page before, and that scripts run.
document.documentElement.classList.add("scripted");
try {
  const kept = localStorage.getItem("theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch { /* a browser that keeps nothing: the system's theme */ }
